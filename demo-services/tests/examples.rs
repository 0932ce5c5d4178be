//! The examples of the SDK, as their own comments say to run them: against a real control plane, and without one.

mod process;

use std::{
    collections::BTreeSet,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use process::Process;
use tokio::{process::Command, task::JoinSet, time::timeout};

/// Far longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(60);
/// How a manual runs the command line.
const FUSEBOX: &str = "cargo run --bin fusebox -- ";

/// The examples, and how decisive lines of what each prints begin; `SOURCE` is where the policies come from.
const EXAMPLES: [(&str, &[&str]); 7] = [
    (
        "axum",
        &[
            "policy shop: SOURCE, revision",
            "policy shop-reports: SOURCE, revision",
            "policy shop-search: SOURCE, revision",
            "bulkhead of 1: 200, the report",
            "bulkhead of 1: 503, Retry-After: 1, rejected by shop-reports/bulkhead: full",
            "rate of 2 a minute: 200, found",
            "rate of 2 a minute: 429, Retry-After: ",
            "adaptive limit, at first 2: 200, an article",
            "adaptive limit, at first 2: 503, Retry-After: 1, rejected by shop/concurrency-limit: concurrency limit",
            "timeout: 503, timed out after 1000 ms (shop/timeout)",
        ],
    ),
    (
        "closure",
        &[
            "policy prices: SOURCE, revision",
            "policy stock: SOURCE, revision",
            "retry: Some(42) after 2 attempts",
            "timeout: timed out after 200 ms (prices/timeout)",
            "our own error: the price service is down",
            "breaker: rejected by prices/circuit-breaker: open, retry after",
            "breaker: 43 again, prices/circuit-breaker is closed",
            "or_value: 0",
            "fallback_with: last-known-stock is asked, after other error",
            "fallback_with: 7",
            "call_cached: asked 1 time",
        ],
    ),
    (
        "metrics",
        &[
            "policy warehouse: SOURCE, revision",
            "rejected by warehouse/circuit-breaker: open, retry after",
            r#"fusebox_calls_total{service="service-a",policy="warehouse",target="warehouse",outcome="success"} 3"#,
            r#"fusebox_calls_total{service="service-a",policy="warehouse",target="warehouse",outcome="breaker_open"} 1"#,
            r#"fusebox_breaker_state{service="service-a",policy="warehouse",target="warehouse",strategy="circuit-breaker",scope="local",state="open"} 1"#,
        ],
    ),
    (
        "middleware",
        &[
            "policy users: SOURCE, revision",
            "attempt: GET / was answered with 503",
            "attempt: GET / was answered with 200",
            "retry: users",
            "exhausted: 503",
            "breaker: rejected by users/circuit-breaker: open, retry after",
        ],
    ),
    (
        "reqwest",
        &[
            "policy orders: SOURCE, revision",
            "policy suggestions: SOURCE, revision",
            "GET: 200 OK after 2 attempts",
            "POST: 1 attempt",
            "POST with a key: 3 attempts",
            "fallback: orders/fallback stands for status 503",
            r#"fallback: {"orders":[]}"#,
            "breaker: rejected: open; the server saw 0 requests",
            "function: bestsellers, for status 503",
        ],
    ),
    (
        "tonic",
        &[
            "policy inventory: SOURCE, revision",
            "policy inventory-watch: SOURCE, revision",
            "unary: Serving, at the third attempt",
            "stream: Some(Serving), at the second attempt",
            "exhausted: Unavailable, restarting",
            "breaker: Unavailable, rejected by inventory/circuit-breaker: open",
        ],
    ),
    (
        "tower",
        &[
            "policy geocoder: SOURCE, revision",
            "policy search: SOURCE, revision",
            "retry: 46.9 N, 7.4 E",
            "fallback: somewhere",
            "GET: 200 OK, the server saw 2 requests",
            "POST: 503 Service Unavailable, the server saw 3",
            "exhausted: 503 Service Unavailable, the server saw 6",
            "breaker: rejected by search/circuit-breaker: open",
        ],
    ),
];
/// Needs no control plane and shows tests, which are run with the SDK's own.
const ELSEWHERE: &str = "testing";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// The executable that cargo made of an example, beside this test's own: `target/PROFILE/deps/THIS`.
fn executable(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().expect("a test has an executable");
    let profile = own.parent().and_then(Path::parent).expect("cargo puts tests two folders deep");
    let path = profile.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    path.exists().then_some(path)
}

/// The examples with their executables; nothing, and said so, if they were not built. In CI that is a failure.
fn built() -> Option<Vec<(&'static str, &'static [&'static str], PathBuf)>> {
    let all: Option<Vec<_>> =
        EXAMPLES.iter().map(|(name, lines)| executable(name).map(|path| (*name, *lines, path))).collect();
    if all.is_none() {
        let fix = "the examples are not built: run `cargo build -p fusebox --examples`, or test the whole workspace";
        assert!(env::var_os("CI").is_none(), "{fix}");
        #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
        {
            eprintln!("SKIPPED: {fix}");
        }
    }
    all
}

/// The commands in the first comment of an example.
fn commands(name: &str) -> Vec<String> {
    let source =
        fs::read_to_string(root().join(format!("client-sdk/examples/{name}.rs"))).expect("every example has a source");
    let block = source.lines().skip_while(|line| *line != "//! ```sh").skip(1).take_while(|line| *line != "//! ```");
    block.map(|line| line.trim_start_matches("//! ").to_owned()).collect()
}

/// Runs all examples at the same time and looks at what each prints.
async fn run(examples: Vec<(&'static str, &'static [&'static str], PathBuf)>, address: &str, source: &'static str) {
    let mut running = JoinSet::new();
    for (name, lines, path) in examples {
        let mut command = Command::new(path);
        command.env("FUSEBOX_CONTROL_PLANE", address).env("RUST_LOG", "fusebox=info").kill_on_drop(true);
        running.spawn(async move {
            let ran = timeout(LIMIT, command.output()).await;
            let ran = ran.unwrap_or_else(|_| panic!("{name} does not end")).expect("it starts");
            let said = String::from_utf8_lossy(&ran.stdout);
            let all = format!("{name} printed:\n{said}\n{}", String::from_utf8_lossy(&ran.stderr));
            assert!(ran.status.success(), "{all}");
            assert!(!said.contains("not expected"), "{all}");
            for line in lines {
                let wanted = line.replace("SOURCE", source);
                assert!(said.lines().any(|line| line.starts_with(&wanted)), "missing: {wanted}\n{all}");
            }
        });
    }
    while let Some(done) = running.join_next().await {
        if let Err(error) = done {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

#[test]
fn every_example_is_run() {
    let files = fs::read_dir(root().join("client-sdk/examples")).unwrap().map(|entry| entry.unwrap().path());
    let there: BTreeSet<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let known = EXAMPLES.iter().map(|(name, _)| *name).chain([ELSEWHERE]).map(ToOwned::to_owned).collect();
    assert_eq!(there, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_do_what_they_say_under_the_policies_of_a_control_plane() {
    let Some(examples) = built() else { return };
    let plane = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0"]);
    for (name, ..) in &examples {
        let [serve, apply, example] = commands(name).try_into().expect("an example says three commands");
        assert_eq!(serve, format!("{FUSEBOX}serve --dev"), "{name}");
        assert_eq!(example, format!("cargo run -p fusebox --example {name}"));
        let arguments = apply.strip_prefix(FUSEBOX).unwrap_or_else(|| panic!("{name}: {apply}")).split(' ');
        let mut fusebox = Command::new(env!("CARGO_BIN_EXE_demo"));
        let applying = fusebox.arg("fusebox").args(arguments).env("FUSEBOX_ADDRESS", &plane.url).current_dir(root());
        let applied = applying.output().await.unwrap();
        assert!(applied.status.success(), "{apply}: {}", String::from_utf8_lossy(&applied.stderr));
    }
    run(examples, &plane.url, "stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_do_the_same_under_built_in_policies_when_the_control_plane_is_silent() {
    let Some(examples) = built() else { return };
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    run(examples, &format!("http://{}", silent.local_addr().unwrap()), "builtin").await;
}
