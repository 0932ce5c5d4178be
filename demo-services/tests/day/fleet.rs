//! What runs that day: the control plane, service B, three replicas of service A, and their traffic.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{pki::Pki, process::Process};

/// The control plane, which can be lost.
pub(crate) struct Plane {
    listen: String,
    options: Vec<String>,
    process: Option<Process>,
}

impl Plane {
    /// One over TLS that asks for tokens. It does not run yet.
    pub(crate) fn new(data: &Path, pki: &Pki) -> Self {
        let options = [("--data-dir", data), ("--tls-cert", &pki.certificate), ("--tls-key", &pki.key)];
        let path = |path: &Path| path.to_str().expect("a path of text").to_owned();
        let mut options: Vec<String> =
            options.into_iter().flat_map(|(name, value)| [name.to_owned(), path(value)]).collect();
        options.extend(["--auth".to_owned(), "token".to_owned()]);
        Self { listen: "127.0.0.1:0".to_owned(), options, process: None }
    }

    /// Starts it, again on the same address; answers with that.
    pub(crate) fn start(&mut self) -> String {
        let mut args = vec!["fusebox", "serve", "--listen", &self.listen];
        args.extend(self.options.iter().map(String::as_str));
        let process = Process::start(&args);
        let url = process.url.clone();
        self.listen = url.trim_start_matches("https://").to_owned();
        self.process = Some(process);
        url
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }
}

/// Service B and three replicas of service A.
pub(crate) struct Fleet {
    replicas: Vec<Process>,
    http: reqwest::Client,
    runtime: Runtime,
    _b: Process,
}

impl Fleet {
    /// Starts it.
    pub(crate) fn start(folder: &Path, plane: &str, pki: &Pki, token: &str) -> Self {
        let b = Process::start(&["service-b", "--listen", "127.0.0.1:0"]);
        let secrets = [("FUSEBOX_TOKEN", token), ("FUSEBOX_CA", pki.ca.to_str().expect("a path of text"))];
        let replicas = ["a-1", "a-2", "a-3"].map(|instance| {
            let cache = folder.join(instance);
            let cache = cache.to_str().expect("a path of text");
            let options =
                ["--instance", instance, "--control-plane", plane, "--service-b", &b.url, "--cache-dir", cache];
            let args = [&["service-a", "--listen", "127.0.0.1:0"], &options[..]].concat();
            Process::start_with(&args, &secrets)
        });
        let runtime = Runtime::new().expect("a runtime starts");
        Self { replicas: replicas.into(), http: reqwest::Client::new(), runtime, _b: b }
    }

    fn ask(&self, path: &str) -> Vec<Value> {
        let ask = async |replica: &Process| {
            let said = self.http.get(format!("{}{path}", replica.url)).send().await.expect("service A answers");
            said.json().await.expect("it answers with JSON")
        };
        self.runtime.block_on(async {
            let mut answers = Vec::new();
            for replica in &self.replicas {
                answers.push(ask(replica).await);
            }
            answers
        })
    }

    /// Whether calls of every replica reach service B.
    pub(crate) fn all_pass(&self) -> bool {
        self.ask("/").iter().all(|said| said["messageB"] == "hello from service B")
    }

    /// Whether every replica answers with its fallback.
    pub(crate) fn none_passes(&self) -> bool {
        self.ask("/").iter().all(|said| said["messageB"] == "fallback")
    }

    /// Whether every replica hears the control plane.
    pub(crate) fn connected(&self) -> bool {
        self.ask("/status").iter().all(|said| said["connected"] == true)
    }

    /// Calls every replica in turn, until it is stopped.
    pub(crate) fn traffic(&self) -> Traffic {
        let urls: Vec<String> = self.replicas.iter().map(|replica| format!("{}/", replica.url)).collect();
        let (http, over) = (self.http.clone(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&over);
        let load = self.runtime.spawn(async move {
            let (mut asked, mut failed) = (0_u64, 0_u64);
            while !told.load(Ordering::Relaxed) {
                for url in &urls {
                    asked += 1;
                    failed += u64::from(!http.get(url).send().await.is_ok_and(|said| said.status().is_success()));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (asked, failed)
        });
        Traffic { over, load }
    }
}

/// Calls that go on all day.
pub(crate) struct Traffic {
    over: Arc<AtomicBool>,
    load: JoinHandle<(u64, u64)>,
}

impl Traffic {
    /// Ends it: how many calls there were, and how many failed.
    pub(crate) fn stop(self, fleet: &Fleet) -> (u64, u64) {
        self.over.store(true, Ordering::Relaxed);
        fleet.runtime.block_on(self.load).expect("the traffic flows")
    }
}
