//! A rollout over real processes: services with the SDK in them, and a control plane that is killed in the middle.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod process;

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use process::Process;
use serde_json::Value;

/// Far longer than anything here takes; only a broken rollout needs it.
const LIMIT: Duration = Duration::from_secs(60);

fn plane(data: &Path, listen: &str) -> Process {
    Process::start(&["fusebox", "serve", "--data-dir", data.to_str().unwrap(), "--listen", listen])
}

fn replica(plane: &str, b: &str, instance: &str) -> Process {
    Process::start(&[
        "service-a",
        "--listen",
        "127.0.0.1:0",
        "--control-plane",
        plane,
        "--service-b",
        b,
        "--instance",
        instance,
        "--zone",
        "z1",
    ])
}

fn fusebox(plane: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("fusebox").args(args).args(["--address", plane]).output().unwrap()
}

fn done(plane: &str, args: &[&str]) -> String {
    let output = fusebox(plane, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The revision of its policy that a replica runs, once it is connected.
async fn runs(http: &reqwest::Client, replica: &Process) -> Option<u64> {
    let answer = http.get(format!("{}/status", replica.url)).send().await.ok()?;
    let status: Value = answer.json().await.ok()?;
    status["connected"].as_bool().filter(|connected| *connected)?;
    status["policy"]["revision"].as_u64()
}

/// Waits until each replica runs its revision.
async fn until(http: &reqwest::Client, what: &str, wanted: &[(&Process, u64)]) {
    let began = Instant::now();
    loop {
        let mut found = Vec::new();
        for (replica, _) in wanted {
            found.push(runs(http, replica).await);
        }
        if found.iter().zip(wanted).all(|(found, (_, wanted))| *found == Some(*wanted)) {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{what}: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_stays_where_it_is_through_the_death_of_the_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = plane(&data, "127.0.0.1:0");
    let address = server.url.clone();
    let listen = address.trim_start_matches("http://").to_owned();
    let b = Process::start(&["service-b", "--listen", "127.0.0.1:0"]);
    let [first, second] = ["a-1", "a-2"].map(|instance| replica(&address, &b.url, instance));
    let in_force = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/service-b.yaml");
    let text = std::fs::read_to_string(in_force).unwrap();
    let candidate = folder.path().join("candidate.yaml");
    let changed = text.replace("timeout: 1s", "timeout: 900ms");
    assert_ne!(changed, text);
    std::fs::write(&candidate, changed).unwrap();
    let candidate = candidate.to_str().unwrap();
    let http = reqwest::Client::new();
    done(&address, &["apply", "-f", in_force]);
    until(&http, "the policy lands", &[(&first, 1), (&second, 1)]).await;

    let started = done(&address, &["rollout", "start", "-f", candidate, "--to-instance", "a-1", "-m", "try it"]);
    assert!(started.contains("rollout of rev 2 started"), "{started}");
    // Killed as soon as it has answered: what it has answered is stored.
    drop(server);
    let server = plane(&data, &listen);
    until(&http, "the candidate is where it belongs", &[(&first, 2), (&second, 1)]).await;
    let third = replica(&address, &b.url, "a-3");
    until(&http, "a newcomer has what is in force", &[(&first, 2), (&second, 1), (&third, 1)]).await;
    let acknowledged = async {
        loop {
            let status: Value =
                serde_json::from_str(&done(&address, &["rollout", "status", "policy/service-b", "-o", "json"]))
                    .unwrap();
            if status["progress"]["acknowledged"] == serde_json::json!(["services/service-a/instances/a-1"]) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let status = tokio::time::timeout(LIMIT, acknowledged).await.expect("the replica acknowledges in time");
    assert_eq!((&status["progress"]["connected"], &status["state"]), (&3.into(), &"RUNNING".into()), "{status}");

    done(&address, &["rollout", "abort", "policy/service-b", "-m", "no good"]);
    drop(server);
    let server = plane(&data, &listen);
    until(&http, "it is taken back", &[(&first, 1), (&second, 1), (&third, 1)]).await;
    let history = done(&address, &["history", "policy", "service-b", "--no-headers"]);
    let told: Vec<_> = history.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(told, ["rollback", "candidate", "create"], "{history}");

    let started = done(&address, &["rollout", "start", "-f", candidate, "--to-percent", "50", "-m", "again"]);
    assert!(started.contains("rollout of rev 4 started"), "{started}");
    drop(server);
    let _server = plane(&data, &listen);
    done(&address, &["rollout", "promote", "policy/service-b", "--force", "-m", "no traffic here"]);
    until(&http, "all have it", &[(&first, 4), (&second, 4), (&third, 4)]).await;
}
