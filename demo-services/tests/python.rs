//! Clients that are not ours: one made from server reflection, one from the .proto files alone.

#[path = "pki/mod.rs"]
mod pki;
mod process;

use std::{ffi::OsString, process::Command};

use pki::Pki;
use process::Process;
use serde_json::Value;

/// A Python with what clients need; `None`, and said so, without one. In CI that is a failure.
fn python() -> Option<OsString> {
    let python = std::env::var_os("FUSEBOX_PYTHON");
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "in CI the Python client is not optional: set FUSEBOX_PYTHON");
        #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
        {
            eprintln!(
                "SKIPPED: set FUSEBOX_PYTHON to a Python with grpcio, grpcio-tools, grpcio-reflection and protobuf"
            );
        }
    }
    python
}

#[test]
fn a_python_client_made_from_reflection_creates_gets_lists_and_watches_a_policy() {
    let Some(python) = python() else { return };
    let server = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reflection.py");
    let address = server.url.trim_start_matches("http://");
    let ran = Command::new(python).arg(script).arg(address).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("created, got, listed, watched"), "{said}");
}

#[test]
fn a_python_agent_made_from_the_proto_files_does_what_its_role_may_and_nothing_else() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path());
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    // The first tokens are written into the database before it is served.
    let token = |role: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(["fusebox", "token", "create", "--name", role, "--role", role, "--data-dir", data, "-o", "json"]);
        let made = command.args(more).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        made["secret"].as_str().unwrap().to_owned()
    };
    let (admin, viewer) = (token("admin", &[]), token("viewer", &[]));
    let agent = token("agent", &["--service", "service-a"]);
    let [certificate, key] = [&pki.certificate, &pki.key].map(|path| path.to_str().unwrap());
    let tls = ["--tls-cert", certificate, "--tls-key", key, "--auth", "token"];
    let serve = ["fusebox", "serve", "--listen", "127.0.0.1:0", "--data-dir", data];
    let server = Process::start(&[&serve[..], &tls[..]].concat());
    let ran = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent.py"))
        .env("ADDRESS", server.url.trim_start_matches("https://"))
        .env("PROTO", concat!(env!("CARGO_MANIFEST_DIR"), "/../proto"))
        .env("CA", &pki.ca)
        .env("ADMIN", admin)
        .env("VIEWER", viewer)
        .env("AGENT", agent)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("subscribed, received, acknowledged, reported, refused"), "{said}");
}
