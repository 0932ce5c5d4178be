//! A server process over TLS, and those who are let in.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use fusebox::{Client, ClientBuilder};

use crate::{
    authority::{Authority, replace},
    process::Process,
};

/// Far longer than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const OPERATOR: &str = "spiffe://example.org/operator";
const BOOTSTRAP: &str = "0123456789abcdef0123456789abcdef";

const POLICY: &str = "apiVersion: fusebox/v1
kind: Policy
metadata: { name: service-b }
spec:
  match: { caller: service-a, target: service-b }
  pipeline: [{ circuitBreaker: { trip: { consecutiveFailures: 5 }, delay: 30s } }]
  coordination: { mode: balanced, scope: fleet }
";

/// By what people and replicas are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Certificates,
    Tokens,
}

pub(crate) struct World {
    pub(crate) authority: Authority,
    folder: tempfile::TempDir,
    method: Method,
    listen: String,
    server: Option<Process>,
}

impl World {
    pub(crate) fn start(method: Method) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("the first authority");
        authority.server(folder.path());
        authority.client(folder.path(), "operator", OPERATOR);
        replace(&folder.path().join("ca.pem"), &authority.pem());
        replace(&folder.path().join("bootstrap"), BOOTSTRAP);
        let mut world = Self { authority, folder, method, listen: "127.0.0.1:0".to_owned(), server: None };
        world.restart();
        world
    }

    /// Kills the server if it runs, and starts it on the same address and data.
    pub(crate) fn restart(&mut self) {
        self.server = None;
        let (data, certificate, key) = (self.path("data"), self.path("server.pem"), self.path("server.key"));
        let (ca, bootstrap) = (self.path("ca.pem"), self.path("bootstrap"));
        let served = ["fusebox", "serve", "--listen", &self.listen, "--data-dir", &data];
        let tls = ["--tls-cert", &certificate, "--tls-key", &key];
        let access: &[&str] = match self.method {
            Method::Certificates => &[
                "--auth",
                "mtls",
                "--client-ca",
                &ca,
                "--grant",
                "admin=spiffe://example.org/operator",
                "--grant",
                "agent=spiffe://example.org/ns/{namespace}/sa/{service}",
            ],
            Method::Tokens => &["--auth", "token", "--bootstrap-token-file", &bootstrap],
        };
        let server = Process::start(&[&served[..], &tls[..], access].concat());
        server.url.trim_start_matches("https://").clone_into(&mut self.listen);
        self.server = Some(server);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Who is trusted, on both sides.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn address(&self) -> String {
        let (_, port) = self.listen.rsplit_once(':').unwrap();
        format!("https://localhost:{port}")
    }

    /// A replica without credentials yet.
    pub(crate) fn replica(&self, service: &str, instance: &str) -> ClientBuilder {
        Client::builder(service).instance(instance).control_plane(self.address())
    }

    fn ask(&self, ca: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.arg("fusebox").args(args).args(["--address", &self.address(), "--ca", ca]);
        command.env("XDG_CONFIG_HOME", self.folder()).env_remove("FUSEBOX_TOKEN");
        match self.method {
            Method::Certificates => {
                command.args(["--cert", &self.path("operator.pem"), "--key", &self.path("operator.key")]);
            }
            Method::Tokens => {
                command.env("FUSEBOX_TOKEN", BOOTSTRAP);
            }
        }
        command.output().unwrap()
    }

    /// What an operator's command prints.
    pub(crate) fn fusebox(&self, args: &[&str]) -> String {
        let done = self.ask(&self.path("ca.pem"), args);
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Whether the operator gets through to the server trusting nobody but this CA.
    pub(crate) fn trusts(&self, ca: &Path) -> bool {
        self.ask(ca.to_str().unwrap(), &["whoami"]).status.success()
    }

    /// A file with the policy of service B, its breaker's delay as given.
    pub(crate) fn policy(&self, delay: &str) -> String {
        let path = self.path("policy.yaml");
        replace(Path::new(&path), &POLICY.replace("delay: 30s", delay));
        path
    }

    pub(crate) fn apply(&self) {
        self.fusebox(&["apply", "-f", &self.policy("delay: 30s")]);
    }

    /// A token that is good for replicas of one service.
    pub(crate) fn agent_token(&self, service: &str) -> String {
        let made = self.fusebox(&[
            "token",
            "create",
            "--name",
            service,
            "--role",
            "agent",
            "--service",
            service,
            "-o",
            "json",
        ]);
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        made["secret"].as_str().unwrap().to_owned()
    }
}

/// Asks again and again until it fits.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut fits: impl FnMut() -> F) {
    let began = Instant::now();
    while !fits().await {
        assert!(began.elapsed() < LIMIT, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
