//! Policies as files, and back.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{
    kept::Kept,
    program::{fusebox, manifest},
};

/// Every strategy, with everything set.
const EVERYTHING: &str = r#"
    - fallback: { response: { status: 200, headers: { x-a: b }, body: "{\"a\":\"\u0085\u007f\u2028\ufeffé😀\"}\n" }, ignoreWhen: { statuses: ["404"] } }
    - cache: { ttl: 30s, maxEntries: 50, maxBodyBytes: 1000, coalesce: false, failureWhen: { errors: [any] } }
    - timeout: { duration: 30s, scope: body, propagateHeader: x-deadline-ms }
    - throttle: { multiplier: 1.5, window: 30s, minCalls: 5, maxRejectionPercent: 80, ignoreWhen: { statuses: [4xx] } }
    - rateLimiter: { limit: 100, period: 1m, burst: 10, maxWait: 250ms, scope: instance }
    - bulkhead: { maxConcurrent: 10, maxWaiting: 5, maxWait: 100ms }
    - concurrencyLimit: { initial: 10, min: 2, max: 50, failureWhen: { statuses: ["503"] } }
    - retry: { maxAttempts: 4, backoff: { linear: { initial: 10ms, step: 20ms, max: 1s }, jitter: equal }, budget: none }
    - hedge: { quantile: { quantile: 0.95, warmUp: 20 }, maxHedges: 2, budget: { ratio: 0.1 }, failureWhen: { errors: [any] } }
    - circuitBreaker: { window: { count: 50 }, trip: { failureRate: { percent: 30 }, failures: 20 }, ramp: 10s }
    - chaos: { percent: 2.5, latency: 50ms, status: 503, until: 2030-01-01T00:00:00Z }
    - timeout: 1s
"#;

/// Every strategy, with nothing set that need not be.
const DEFAULTS: &str = "
    - fallback: { error: \"no\" }
    - cache: { ttl: 1s }
    - throttle: {}
    - rateLimiter: { limit: 5 }
    - bulkhead: { maxConcurrent: 3 }
    - concurrencyLimit:
    - retry: {}
    - circuitBreaker: {}
    - hedge: { delay: 50ms }
    - chaos: { percent: 1, error: connect, until: 2030-01-01T00:00:00Z }
    - timeout: 333us
";

fn policy(namespace: &str, name: &str, pipeline: &str) -> String {
    format!(
        "---\napiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: {name}, namespace: {namespace}, labels: {{ \"yes\": \"no\", \
         team: \"1\" }} }}\nspec:\n  match: {{ caller: a, target: {name}, routes: [\"GET /\", \"grpc.Payments/*\"] }}\n  \
         pipeline: {pipeline}\n"
    )
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_applied_unchanged() {
    let server = Kept::start().await;
    let texts = [
        policy("default", "everything", EVERYTHING),
        policy("default", "defaults", DEFAULTS),
        policy("team-a", "everything", EVERYTHING),
        policy("team-a", "shared", "[rateLimiter: { limit: 300, burst: 30, scope: fleet }]"),
        policy("team-a", "local", "[circuitBreaker: {}]\n  coordination: { mode: local }"),
        policy("team-a", "any", "[circuitBreaker: {}]\n  coordination: { mode: any, acknowledgeSingleWitness: true }"),
    ];
    server.apply(&texts.concat()).await.exits(0);
    let folder = server.path("policies");
    server.run(&format!("export -o {folder}")).await.exits(0).prints("6 files written, 0 unchanged, 0 removed");
    let found = files(Path::new(&folder));
    assert_eq!(found.len(), 6);
    assert!(found[0].ends_with("policies/default/defaults.yaml"), "{found:?}");
    let mode = fs::metadata(&found[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o600, 0o600);
    let unchanged = server.run(&format!("apply -f {folder} -R")).await.exits(0).out;
    assert_eq!(unchanged.matches(" unchanged (rev ").count(), 6, "{unchanged}");

    let before: Vec<_> = found.iter().map(|path| fs::read(path).unwrap()).collect();
    server.run(&format!("export -o {folder}")).await.exits(0).prints("0 files written, 6 unchanged, 0 removed");
    let again: Vec<_> = found.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, again);

    // Another control plane, made from the files, exports the same.
    let other = Kept::start().await;
    other.run(&format!("apply -f {folder} -R")).await.exits(0);
    let copy = other.path("copy");
    other.run(&format!("export -o {copy}")).await.exits(0);
    let copied: Vec<_> = files(Path::new(&copy)).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, copied);

    // Each form that people print can be applied as well, whatever characters are in it.
    for form in ["yaml", "json", "jsonl"] {
        let printed = server.run(&format!("get policy everything -o {form}")).await.exits(0).out;
        assert!(!printed.contains(['\u{7f}', '\u{85}', '\u{2028}', '\u{feff}']), "{form}");
        let file = server.path("printed.yaml");
        fs::write(&file, printed).unwrap();
        fusebox(&["validate", "--offline", "-f", &file]).await.exits(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_removes_what_it_wrote_and_nothing_else() {
    let server = Kept::start().await;
    for name in ["a", "b"] {
        server.apply(&manifest(name, name, "1s")).await.exits(0);
    }
    let folder = server.path("policies");
    let own = Path::new(&folder).join("default").join("notes.yaml");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "# mine\n").unwrap();
    server.run(&format!("export -o {folder} -n default")).await.exits(0).prints("2 policies");
    server.run("delete policy a --yes").await.exits(0);
    server.run(&format!("export -o {folder}")).await.exits(0).prints("1 policies").prints("1 removed");
    assert_eq!(fs::read_to_string(&own).unwrap(), "# mine\n");

    // A file of somebody's own in the way.
    let place = Path::new(&folder).join("default").join("b.yaml");
    fs::write(&place, "# mine\n").unwrap();
    server.run(&format!("export -o {folder}")).await.exits(4).says("b.yaml was not exported by fusebox");
    assert_eq!(fs::read_to_string(&place).unwrap(), "# mine\n");
    server.run(&format!("export -o {folder} --force")).await.exits(0).prints("1 files written");
}
