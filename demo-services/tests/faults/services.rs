//! Service B and three replicas of service A, each a process of its own, with the article's policy.

use serde_json::{Value, json};

use crate::{
    process::Process,
    world::{serve, until},
};

pub(crate) struct Services {
    pub(crate) plane: Process,
    b: Process,
    pub(crate) replicas: Vec<Process>,
    http: reqwest::Client,
    _data: tempfile::TempDir,
}

impl Services {
    /// Everybody runs the policy.
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let plane = serve(data.path(), "127.0.0.1:0");
        let b = Process::start(&["service-b", "--listen", "127.0.0.1:0"]);
        let replica = |instance| {
            let addresses = ["--control-plane", &plane.url, "--service-b", &b.url];
            let args = ["service-a", "--listen", "127.0.0.1:0", "--instance", instance];
            Process::start(&[&args[..], &addresses[..]].concat())
        };
        let replicas = ["a-1", "a-2", "a-3"].map(replica).into();
        let applied = std::process::Command::new(env!("CARGO_BIN_EXE_demo"))
            .args(["fusebox", "apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/policies/service-b.yaml")])
            .args(["--address", &plane.url])
            .output()
            .unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let services = Self { plane, b, replicas, http: reqwest::Client::new(), _data: data };
        for index in 0..3 {
            until("the policy lands", || async { services.status(index).await["policy"]["source"] == "stream" }).await;
        }
        services
    }

    async fn json(&self, url: &str) -> Value {
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn status(&self, index: usize) -> Value {
        self.json(&format!("{}/status", self.replicas[index].url)).await
    }

    /// What the fleet says at a replica.
    pub(crate) async fn fleet(&self, index: usize) -> String {
        self.status(index).await["breakers"][0]["fleet"].as_str().unwrap().to_owned()
    }

    /// A person asks a replica.
    pub(crate) async fn call(&self, index: usize) -> Value {
        self.json(&self.replicas[index].url).await
    }

    /// Requests that reached service B although their sender admitted no traffic.
    pub(crate) async fn probes(&self) -> u64 {
        self.json(&format!("{}/stats", self.b.url)).await["probes"].as_u64().unwrap()
    }

    async fn faults(&self, faults: Value) {
        let put = self.http.put(format!("{}/faults", self.b.url)).body(faults.to_string());
        assert!(put.send().await.unwrap().status().is_success());
    }

    /// The fleet opens; then service B is well again, and the one replica that people ask waits with a permit.
    pub(crate) async fn hold_permit(&self, holder: usize) {
        self.faults(json!({ "errorRate": 1 })).await;
        until("the fleet opens", || async {
            for index in (0..3).filter(|index| *index != holder) {
                self.call(index).await;
            }
            self.fleet(holder).await == "open"
        })
        .await;
        self.faults(json!({})).await;
        // Only who has refused calls is given a permit; from now on nobody asks.
        self.call(holder).await;
        until("the fleet may probe", || async { self.fleet(holder).await == "half_open" }).await;
    }
}
