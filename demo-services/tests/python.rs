//! A client that is not ours, made from server reflection alone, works with policies.

mod process;

use std::process::Command;

use process::Process;

#[test]
fn a_python_client_made_from_reflection_creates_gets_lists_and_watches_a_policy() {
    let Some(python) = std::env::var_os("FUSEBOX_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "in CI the Python client is not optional: set FUSEBOX_PYTHON");
        #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
        {
            eprintln!("SKIPPED: set FUSEBOX_PYTHON to a Python with grpcio, grpcio-reflection and protobuf");
        }
        return;
    };
    let server = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reflection.py");
    let address = server.url.trim_start_matches("http://");
    let ran = Command::new(python).arg(script).arg(address).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("created, got, listed, watched"), "{said}");
}
