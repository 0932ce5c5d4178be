//! Two of three replicas see service B die; the third, without traffic, learns of it, and B is tested by one small set of probes.

mod process;

use std::{
    future::Future,
    process::Command,
    time::{Duration, Instant},
};

use process::Process;
use serde_json::{Value, json};

/// Far longer than anything here takes; only a broken fleet needs it.
const LIMIT: Duration = Duration::from_secs(30);

async fn json_of(http: &reqwest::Client, url: &str) -> Value {
    let response = http.get(url).send().await.expect("the process answers");
    response.json().await.expect("the answer is JSON")
}

/// Asks again and again until it fits.
async fn until<F: Future<Output = bool>>(what: &str, mut fits: impl FnMut() -> F) -> Duration {
    let began = Instant::now();
    while !fits().await {
        assert!(began.elapsed() < LIMIT, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_traffic_opens_with_the_others_and_recovery_costs_one_set_of_probes() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0"]);
    let b = Process::start(&["service-b", "--listen", "127.0.0.1:0"]);
    let replicas: Vec<Process> = ["a-1", "a-2", "a-3"]
        .into_iter()
        .map(|instance| {
            let cache = folder.path().join(instance);
            let cache = cache.to_str().unwrap();
            Process::start(&[
                "service-a",
                "--listen",
                "127.0.0.1:0",
                "--control-plane",
                &plane.url,
                "--service-b",
                &b.url,
                "--instance",
                instance,
                "--zone",
                "z1",
                "--cache-dir",
                cache,
            ])
        })
        .collect();
    let http = reqwest::Client::new();
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/service-b.yaml");
    let fusebox = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.arg("fusebox").args(args).args(["--address", &plane.url]);
        command.output().unwrap()
    };
    let applied = fusebox(&["apply", "-f", policy]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let status = |index: usize| {
        let (http, url) = (http.clone(), format!("{}/status", replicas[index].url));
        async move { json_of(&http, &url).await }
    };
    for index in 0..3 {
        until("the policy lands", || async { status(index).await["policy"]["source"] == "stream" }).await;
    }
    let shape = status(2).await;
    assert_eq!(shape["service"], "service-a");
    assert_eq!((&shape["instance"], &shape["zone"], &shape["connected"]), (&json!("a-3"), &json!("z1"), &json!(true)));
    assert_eq!(shape["policy"], json!({ "name": "service-b", "revision": 1, "source": "stream" }));
    assert_eq!(
        shape["breakers"],
        json!([{ "policy": "service-b", "target": "service-b", "local": "closed", "fleet": "released",
                 "admission": 1.0, "half_open_in_ms": null }])
    );

    let faults = |faults: Value| http.put(format!("{}/faults", b.url)).body(faults.to_string()).send();
    assert!(faults(json!({ "errorRate": 1 })).await.unwrap().status().is_success());
    // Load on two replicas only, until the second has tripped.
    for index in [0, 1] {
        until("the replica trips", || async {
            let answer = json_of(&http, &replicas[index].url).await;
            assert_eq!(answer["messageB"], "error accessing service B");
            status(index).await["breakers"][0]["local"] == "open"
        })
        .await;
    }
    let took = until("the third opens", || async { status(2).await["breakers"][0]["fleet"] == "open" }).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let third = status(2).await;
    assert_eq!(third["breakers"][0]["admission"], 0.0);
    assert_eq!(third["breakers"][0]["local"], "closed", "it has seen nothing itself");

    let listed = fusebox(&["get", "breakers", "-o", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let breaker = &listed["items"][0];
    assert_eq!((&breaker["fleet"], &breaker["target"]), (&json!("open"), &json!("service-b")), "{listed}");
    assert_eq!(breaker["instances"].as_array().unwrap().len(), 3, "{listed}");
    for instance in breaker["instances"].as_array().unwrap() {
        let local = if instance["instance"] == "a-3" { "closed" } else { "open" };
        assert_eq!(instance["local"], local, "{listed}");
    }

    assert!(faults(json!({})).await.unwrap().status().is_success());
    let received = |stats: &Value| stats["received"].as_u64().unwrap();
    let stats_url = format!("{}/stats", b.url);
    let before = received(&json_of(&http, &stats_url).await);
    // People keep asking the two replicas; only probes reach B until the fleet closes.
    until("the fleet closes", || async {
        let closed = status(2).await["breakers"][0]["fleet"] == "released";
        if !closed {
            for replica in &replicas[..2] {
                json_of(&http, &replica.url).await;
            }
        }
        closed
    })
    .await;
    let after = received(&json_of(&http, &stats_url).await);
    // What B takes for probes are calls that were begun before the fleet was seen closed. How many permits were used is known by the server.
    let events = fusebox(&["events"]);
    let events = String::from_utf8_lossy(&events.stdout);
    assert_eq!(events.matches("3 of 3 probes succeeded").count(), 1, "{events}");
    assert!(!events.contains("probe_failed"), "{events}");
    // The last probe closes the fleet while the question that showed it was under way: two calls may have passed since.
    assert!(after - before <= 3 + 2, "{} requests reached B before the fleet was seen closed", after - before);
    for index in 0..3 {
        until("every replica closes", || async {
            let breaker = status(index).await["breakers"][0].clone();
            breaker["local"] == "closed" && breaker["admission"] == 1.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_reaches_every_replica_and_outlives_the_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let plane = Process::start(&["fusebox", "serve", "--data-dir", data, "--listen", "127.0.0.1:0"]);
    let b = Process::start(&["service-b", "--listen", "127.0.0.1:0"]);
    let a =
        Process::start(&["service-a", "--listen", "127.0.0.1:0", "--control-plane", &plane.url, "--service-b", &b.url]);
    let http = reqwest::Client::new();
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/service-b.yaml");
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.arg("fusebox").args(args).args(["--address", &plane.url]).output().unwrap()
    };
    assert!(run(&["apply", "-f", policy]).status.success());
    let fleet = || async { json_of(&http, &format!("{}/status", a.url)).await["breakers"][0]["fleet"].clone() };
    until("the policy lands", || async { fleet().await == "released" }).await;
    let unexplained = run(&["breaker", "force-open", "service-b", "--for", "15m"]);
    assert!(!unexplained.status.success(), "a reason is required");
    let forced = run(&["breaker", "force-open", "service-b", "--for", "15m", "--reason", "drill"]);
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    until("it is forced open", || async { fleet().await == "forced_open" }).await;
    assert_eq!(json_of(&http, &a.url).await["messageB"], "error accessing service B");
    let address = plane.url.trim_start_matches("http://").to_owned();
    drop(plane);
    until("the replica notices", || async { json_of(&http, &format!("{}/status", a.url)).await["connected"] == false })
        .await;
    assert_eq!(fleet().await, "forced_open", "a human's word holds without the server");
    let plane = Process::start(&["fusebox", "serve", "--data-dir", data, "--listen", &address]);
    until("the replica is back", || async { json_of(&http, &format!("{}/status", a.url)).await["connected"] == true })
        .await;
    assert_eq!(fleet().await, "forced_open");
    let mut release = Command::new(env!("CARGO_BIN_EXE_demo"));
    release.args(["fusebox", "breaker", "release", "service-b", "--reason", "over", "--address", &plane.url]);
    assert!(release.output().unwrap().status.success());
    until("it is released", || async { fleet().await == "released" }).await;
}
