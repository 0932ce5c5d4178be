//! The processes, and how to talk to them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use fusebox_proto::v1::{self, policy_service_client::PolicyServiceClient};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use super::{Broken, broken};

/// Replicas of service A.
pub(super) const REPLICAS: usize = 3;
/// How long a process may take to say where it listens.
const START_WITHIN: Duration = Duration::from_secs(20);
/// The article's policy.
const POLICY: &str = include_str!("../../policies/service-b.yaml");

/// A process, and where it listens. It is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Player {
    child: Child,
    pub(super) url: String,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Cast {
    folder: PathBuf,
    plane: Player,
    b: Player,
    replicas: Vec<Player>,
    pub(super) http: reqwest::Client,
}

/// What a replica says of itself.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) connected: bool,
    pub(super) source: String,
    pub(super) revision: u64,
    pub(super) admission: f64,
    pub(super) local: String,
    pub(super) fleet: String,
}

impl Cast {
    pub(super) async fn start(folder: &Path) -> Result<Self, Broken> {
        std::fs::create_dir_all(folder.join("logs")).map_err(|error| broken("make the folder for logs")(&error))?;
        let plane = control_plane(folder, "127.0.0.1:0", "control-plane").await?;
        let b = player(folder, "service-b", &["service-b", "--listen", "127.0.0.1:0", "--log-format", "json"]).await?;
        let mut replicas = Vec::with_capacity(REPLICAS);
        for number in 1..=REPLICAS {
            let name = format!("a-{number}");
            let cache = folder.join("cache").join(&name).display().to_string();
            let args = [
                "service-a",
                "--listen",
                "127.0.0.1:0",
                "--control-plane",
                &plane.url,
                "--service-b",
                &b.url,
                "--instance",
                &name,
                "--zone",
                "zone-1",
                "--cache-dir",
                &cache,
                "--log-format",
                "json",
            ];
            replicas.push(player(folder, &format!("service-{name}"), &args).await?);
        }
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| broken("make an HTTP client")(&error))?;
        Ok(Self { folder: folder.to_owned(), plane, b, replicas, http })
    }

    pub(super) fn control_plane(&self) -> &str {
        &self.plane.url
    }

    pub(super) fn service_b(&self) -> &str {
        &self.b.url
    }

    pub(super) fn replica_urls(&self) -> Vec<String> {
        self.replicas.iter().map(|player| player.url.clone()).collect()
    }

    /// kill -9.
    pub(super) async fn kill_control_plane(&mut self) -> Result<(), Broken> {
        self.plane.child.kill().await.map_err(|error| broken("kill the control plane")(&error))
    }

    /// The same data on the same port.
    pub(super) async fn restart_control_plane(&mut self) -> Result<(), Broken> {
        let address = self.plane.url.trim_start_matches("http://").to_owned();
        self.plane = control_plane(&self.folder, &address, "control-plane-again").await?;
        Ok(())
    }

    /// The policy as the operator wrote it.
    pub(super) fn policy() -> Result<v1::Policy, Broken> {
        let document = fusebox_proto::manifest::parse("service-b.yaml", POLICY)
            .map_err(|error| broken("read the policy")(&error))?
            .into_iter()
            .next()
            .ok_or_else(|| Broken("service-b.yaml has no policy".to_owned()))?;
        Ok(v1::Policy::from(&document.policy))
    }

    /// Applies a policy over gRPC; says its revision.
    pub(super) async fn apply(&self, policy: v1::Policy, why: &str) -> Result<u64, Broken> {
        let failed = |error: &dyn std::fmt::Display| broken("apply the policy")(error);
        let mut client = PolicyServiceClient::connect(self.plane.url.clone()).await.map_err(|error| failed(&error))?;
        let mut request = tonic::Request::new(v1::ApplyPoliciesRequest {
            policies: vec![policy],
            message: why.to_owned(),
            ..v1::ApplyPoliciesRequest::default()
        });
        request.metadata_mut().insert("x-fusebox-author", tonic::metadata::MetadataValue::from_static("demo"));
        let answer = client.apply_policies(request).await.map_err(|status| failed(&status.message()))?.into_inner();
        let applied = answer.results.into_iter().next().and_then(|result| result.policy);
        applied.map(|policy| policy.revision).ok_or_else(|| Broken("the control plane applied nothing".to_owned()))
    }

    async fn json(&self, url: String) -> Result<Value, Broken> {
        let failed = |error: &dyn std::fmt::Display| broken(&format!("read {url}"))(error);
        let response = self.http.get(&url).send().await.map_err(|error| failed(&error))?;
        response.json().await.map_err(|error| failed(&error))
    }

    /// What every replica says of itself.
    pub(super) async fn said(&self) -> Result<Vec<Said>, Broken> {
        let mut all = Vec::with_capacity(self.replicas.len());
        for player in &self.replicas {
            let status = self.json(format!("{}/status", player.url)).await?;
            let breaker = &status["breakers"][0];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            all.push(Said {
                connected: status["connected"].as_bool().unwrap_or_default(),
                source: text(&status["policy"]["source"]),
                revision: status["policy"]["revision"].as_u64().unwrap_or_default(),
                admission: breaker["admission"].as_f64().unwrap_or(1.0),
                local: text(&breaker["local"]),
                fleet: text(&breaker["fleet"]),
            });
        }
        Ok(all)
    }

    /// Requests that B received, failed, and got as probes.
    pub(super) async fn stats(&self) -> Result<(u64, u64, u64), Broken> {
        let stats = self.json(format!("{}/stats", self.b.url)).await?;
        let number = |name: &str| stats[name].as_u64().unwrap_or_default();
        Ok((number("received"), number("failed"), number("probes")))
    }

    /// Tells B how to fail.
    pub(super) async fn faults(&self, faults: Value) -> Result<(), Broken> {
        let failed = |error: &dyn std::fmt::Display| broken("tell B how to fail")(error);
        let response = self
            .http
            .put(format!("{}/faults", self.b.url))
            .body(faults.to_string())
            .send()
            .await
            .map_err(|error| failed(&error))?;
        response.error_for_status().map(|_| ()).map_err(|error| failed(&error))
    }

    /// Asks the replicas again and again until they say it. Answers with the time it took; `None` if that is longer than the limit.
    pub(super) async fn until(
        &self,
        limit: Duration,
        mut fits: impl FnMut(&[Said]) -> bool,
    ) -> Result<Option<Duration>, Broken> {
        /// Far below what people notice, and no load worth speaking of.
        const EVERY: Duration = Duration::from_millis(5);
        let began = Instant::now();
        loop {
            let said = self.said().await?;
            if fits(&said) {
                return Ok(Some(began.elapsed()));
            }
            if began.elapsed() > limit {
                return Ok(None);
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn control_plane(folder: &Path, listen: &str, log: &str) -> Result<Player, Broken> {
    let data = folder.join("data").display().to_string();
    player(folder, log, &["fusebox", "serve", "--listen", listen, "--data-dir", &data, "--log-format", "json"]).await
}

/// Starts a process of this executable, and waits until it says where it listens.
async fn player(folder: &Path, name: &str, args: &[&str]) -> Result<Player, Broken> {
    let failed = |error: &dyn std::fmt::Display| broken(&format!("start {name}"))(error);
    let path = folder.join("logs").join(format!("{name}.log"));
    let log = File::create(&path).map_err(|error| failed(&error))?;
    let own = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut child = Command::new(own)
        .args(args)
        // Settings of whoever runs the story are not meant for its players.
        .env_remove("FUSEBOX_DEV")
        .env_remove("FUSEBOX_LISTEN")
        .env_remove("FUSEBOX_DATA_DIR")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|error| failed(&error))?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    let began = Instant::now();
    loop {
        let text = tokio::fs::read_to_string(&path).await.map_err(|error| failed(&error))?;
        // A line that is not complete may be half an address.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        if let Some(url) = complete.lines().find_map(|line| line.strip_prefix("listening on ")) {
            return Ok(Player { child, url: url.to_owned() });
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Broken(format!("{name} ended at once ({status}): see {}", path.display())));
        }
        if began.elapsed() > START_WITHIN {
            return Err(Broken(format!("{name} does not say where it listens: see {}", path.display())));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
