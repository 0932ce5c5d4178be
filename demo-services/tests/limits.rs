//! Three replicas share one limit: together they stay under it, and whoever is hungry gets what the others leave.

mod process;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use fusebox::{Client, Target};
use process::Process;

/// Far longer than anything here takes; only a broken fleet needs it.
const LIMIT: Duration = Duration::from_secs(60);

const POLICY: &str = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: service-b }\nspec:\n  match: { target: service-b }\n  \
                      pipeline:\n    - rateLimiter: { limit: 300, burst: 300, scope: fleet }\n";

struct Replica {
    client: Client,
    target: Target,
    tried: u64,
    admitted: u64,
}

impl Replica {
    fn start(instance: &str, control_plane: &str) -> Self {
        let client = Client::builder("service-a")
            .instance(instance)
            .control_plane(control_plane)
            .start()
            .expect("the names are good");
        let target = client.target("service-b");
        Self { client, target, tried: 0, admitted: 0 }
    }

    async fn call(&mut self) {
        self.tried += 1;
        let called = self.target.call(|| async { Ok::<_, std::io::Error>(()) }).await;
        self.admitted += u64::from(called.is_ok());
    }

    /// Its part of the limit in millionths, if that is on a lease.
    fn leased(&self) -> Option<u32> {
        self.client.status().limits.first().filter(|limit| limit.leased).map(|limit| limit.share_ppm)
    }
}

/// One replica wants far more than there is, one a little, one nothing; until it fits.
async fn load(replicas: &mut [Replica; 3], what: &str, mut fits: impl FnMut(&[Replica; 3]) -> bool) {
    let began = Instant::now();
    let mut turn = 0_u64;
    while !fits(replicas) {
        assert!(began.elapsed() < LIMIT, "did not happen: {what}");
        for _ in 0..20 {
            replicas[0].call().await;
        }
        if turn.is_multiple_of(10) {
            replicas[1].call().await;
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_a_limit_by_demand_and_stay_under_it_together() {
    let plane = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, POLICY).unwrap();
    let fusebox = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        let output = command.arg("fusebox").args(args).args(["--address", &plane.url]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    fusebox(&["apply", "-f", file.to_str().unwrap()]);
    let mut replicas = ["a-1", "a-2", "a-3"].map(|instance| Replica::start(instance, &plane.url));
    load(&mut replicas, "everybody has a share", |replicas| replicas.iter().all(|own| own.leased() > Some(0))).await;
    load(&mut replicas, "the hungry one has most of the limit", |replicas| replicas[0].leased() > Some(600_000)).await;

    let before = replicas.each_ref().map(|own| (own.tried, own.admitted));
    let began = Instant::now();
    // More than an equal part could ever let through: a third of the rate, and a third of the burst.
    load(&mut replicas, "the hungry one gets what the others leave", |replicas| {
        let equal_part = 100 + 1 + (100.0 * began.elapsed().as_secs_f64()) as u64;
        replicas[0].admitted - before[0].1 > equal_part
    })
    .await;
    replicas[2].call().await;
    let elapsed = began.elapsed();
    let admitted: u64 = replicas.iter().zip(before).map(|(own, before)| own.admitted - before.1).sum();
    // The burst, one call for each replica, and what comes in the time.
    let most = 300 + 3 + (300.0 * elapsed.as_secs_f64()).ceil() as u64;
    assert!(admitted <= most, "{admitted} calls in {elapsed:?}");
    assert_eq!(replicas[1].admitted - before[1].1, replicas[1].tried - before[1].0, "the modest one is never refused");
    assert_eq!(replicas[2].admitted, 1, "nor is the first call of an idle one");
    let leased: u32 = replicas.iter().filter_map(Replica::leased).sum();
    assert!(leased <= 1_000_000, "{leased}");

    let shown = fusebox(&["describe", "policy", "service-b"]);
    assert!(["a-1", "a-2", "a-3"].iter().all(|instance| shown.contains(&format!("service-a  {instance}"))), "{shown}");
    let shown = fusebox(&["describe", "instance", "a-1"]);
    assert!(shown.contains("Shares of limits:"), "{shown}");
}
