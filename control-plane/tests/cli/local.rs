//! What needs no server.

use std::fs;

use super::program::{fusebox, fusebox_reading, manifest};

#[tokio::test]
async fn help_names_every_verb_and_the_exit_codes() {
    let answer = fusebox(&["--help"]).await.exits(0);
    for verb in [
        "serve",
        "apply",
        "diff",
        "validate",
        "get",
        "describe",
        "delete",
        "history",
        "undo",
        "breaker",
        "events",
        "wait",
        "schema",
        "completion",
        "version",
    ] {
        assert!(answer.out.contains(&format!("\n  {verb} ")), "{verb} is missing: {}", answer.out);
    }
    answer.prints("7 server unavailable");
    fusebox(&["breaker", "force-open", "--help"]).await.exits(0).prints("Example:\n  fusebox breaker force-open");
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_changes_nothing() {
    for args in [
        &[] as &[&str],
        &["frobnicate"],
        &["get"],
        &["get", "breakers", "-o", "xml"],
        &["apply"],
        &["breaker", "force-open", "service-b", "--reason", "x"],
        &["breaker", "force-open", "service-b", "--for", "15m"],
        &["breaker", "force-open", "service-b", "--for", "soon", "--reason", "x"],
        &["wait", "policy/b"],
        &["wait", "policy/b", "--for", "open"],
        &["wait", "instance/a", "--for", "open"],
        &["get", "policies", "--address", "ftp://localhost"],
        &["apply", "-f", "no-such-file.yaml"],
    ] {
        let answer = fusebox(args).await;
        assert_eq!(answer.code, 2, "{args:?}: {answer:?}");
        assert!(answer.out.is_empty() && !answer.err.is_empty(), "{args:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_mistyped_type_is_told_the_right_one() {
    fusebox(&["get", "polices"]).await.exits(2).says("did you mean \"policies\"?");
}

#[tokio::test]
async fn without_a_server_the_address_and_the_remedy_are_told() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for args in [&["get", "policies"] as &[&str], &["events", "-f"], &["version", "--server"]] {
        let answer = fusebox(&[args, &["--address", &address]].concat()).await.exits(7);
        assert!(answer.out.is_empty(), "{answer:?}");
        answer.says(&address).says("refused").says("fusebox serve").says("FUSEBOX_ADDRESS");
    }
}

#[tokio::test]
async fn a_deletion_needs_somebody_who_confirms_it() {
    fusebox(&["delete", "policy", "service-b"]).await.exits(2).says("--yes");
    fusebox(&["delete", "breaker", "service-b", "--yes"]).await.exits(2).says("release");
}

#[tokio::test]
async fn a_good_manifest_is_valid_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("good.yaml");
    let text =
        format!("{}---\n{}", manifest("service-b", "service-b", "10s"), manifest("payments", "payments", "1m30s"));
    fs::write(&file, &text).unwrap();
    let answer = fusebox(&["validate", "--offline", "-f", file.to_str().unwrap()]).await.exits(0);
    assert_eq!(answer.out, "policy/service-b valid\npolicy/payments valid\n");
    let answer = fusebox_reading(&text, &["validate", "--offline", "-q", "-f", "-"]).await.exits(0);
    assert_eq!(answer.out, "service-b\npayments\n");
}

#[tokio::test]
async fn a_broken_manifest_is_refused_with_line_and_path() {
    let good = manifest("service-b", "service-b", "10s");
    let folder = tempfile::tempdir().unwrap();
    for (what, right, wrong, line, path) in [
        ("an unknown field", "maxAttempts: 3", "maxAttempt: 3", 10, "maxAttempt"),
        ("a bad duration", "duration: 10s", "duration: 2 sekonds", 13, "duration"),
        ("negative attempts", "maxAttempts: 3", "maxAttempts: -1", 10, "maxAttempts"),
        ("no attempts", "maxAttempts: 3", "maxAttempts: 0", 10, "maxAttempts"),
        ("a bad name", "name: service-b", "name: Service_B", 4, "metadata.name"),
    ] {
        let text = good.replace(right, wrong);
        assert_ne!(text, good, "{what}");
        let file = folder.path().join("broken.yaml");
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        for verb in [&["validate", "--offline", "-f", file] as &[&str], &["apply", "-f", file], &["diff", "-f", file]] {
            let answer = fusebox(verb).await;
            assert_eq!(answer.code, 5, "{what}: {answer:?}");
            assert!(answer.err.contains(&format!("broken.yaml:{line}:")), "{what}: {answer:?}");
            assert!(answer.err.contains(path), "{what}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn faults_of_all_files_are_told_together() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), manifest("a", "a", "never")).unwrap();
    fs::write(folder.path().join("b.yaml"), manifest("b", "b", "0s")).unwrap();
    fs::write(folder.path().join("c.yaml"), manifest("c", "c", "1s")).unwrap();
    let answer = fusebox(&["validate", "--offline", "-f", folder.path().to_str().unwrap()]).await.exits(5);
    answer.says("a.yaml:13:").says("b.yaml:13:");
}

#[tokio::test]
async fn one_policy_written_twice_is_a_fault_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), manifest("b", "b", "1s")).unwrap();
    fs::write(folder.path().join("b.yaml"), manifest("b", "b", "2s")).unwrap();
    let answer = fusebox(&["validate", "--offline", "-f", folder.path().to_str().unwrap()]).await.exits(5);
    answer.says("twice").says("a.yaml:1");
}

#[tokio::test]
async fn an_empty_file_is_not_silently_nothing() {
    fusebox_reading("", &["validate", "--offline", "-f", "-"]).await.exits(5).says("no policy");
}

#[tokio::test]
async fn a_namespace_that_contradicts_the_file_is_refused() {
    let text = manifest("b", "b", "1s").replace("  name: b\n", "  name: b\n  namespace: team-a\n");
    let args = ["validate", "--offline", "-f", "-", "-n", "team-b"];
    fusebox_reading(&text, &args).await.exits(5).says("<stdin>:5:").says("metadata.namespace");
    fusebox_reading(&manifest("b", "b", "1s"), &args).await.exits(0);
}

#[tokio::test]
async fn completion_scripts_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        fusebox(&["completion", shell]).await.exits(0).prints("force-open");
    }
}

#[tokio::test]
async fn the_schema_is_json() {
    let schema = fusebox(&["schema"]).await.exits(0).json();
    assert!(schema["$schema"].as_str().is_some_and(|draft| draft.contains("draft-07")), "{schema}");
    assert_eq!(fusebox(&["schema", "--kind", "policy"]).await.exits(0).json(), fusebox(&["schema"]).await.json());
    fusebox(&["schema", "--kind", "token"]).await.exits(2);
    let whole = fusebox(&["explain"]).await.exits(0);
    whole.prints("FIELD: policy <object>").prints("status <object>").prints("Output only");
}

#[tokio::test]
async fn the_version_is_told_without_a_server() {
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(fusebox(&["version"]).await.exits(0).out, format!("fusebox {own}\n"));
    assert_eq!(fusebox(&["version", "-o", "json"]).await.exits(0).json()["client"]["version"], own);
}

#[tokio::test]
async fn a_policy_is_simulated_without_a_server() {
    let text = manifest("b", "b", "1s");
    let line = ["simulate", "-f", "-", "--failure-rate", "0.3", "--latency", "p50=20ms,p99=2s", "--duration", "1m"];
    let first = fusebox_reading(&text, &line).await.exits(0);
    assert_eq!(fusebox_reading(&text, &line).await.out, first.out, "the same seed gives the same figures");
    first.prints("policy/b").prints("load x").prints("Attempts per call:");
    assert_eq!(fusebox_reading(&text, &[&line[..], &["-q"]].concat()).await.out, "b\n");
    let json = [&line[..], &["-o", "json", "--replicas", "12", "--outage", "20s..40s"]].concat();
    let result = fusebox_reading(&text, &json).await.exits(0).json();
    let result = &result["items"][0];
    assert!(result["breaker_open_share"].as_f64().unwrap() > 0.0, "{result}");
    assert!(result["success_rate"].as_f64().unwrap() < 1.0, "{result}");
    for bad in
        [["--failure-rate", "2"], ["--latency", "p99"], ["--rate", "fast"], ["--outage", "3m"], ["--duration", "0s"]]
    {
        fusebox_reading(&text, &[&["simulate", "-f", "-"][..], &bad].concat()).await.exits(2);
    }
}

#[tokio::test]
async fn a_template_is_printed_as_a_manifest_and_a_field_explained() {
    let printed = fusebox(&["create", "policy", "b", "--from", "standard", "--dry-run", "-o", "yaml"]).await.exits(0);
    fusebox_reading(&printed.out, &["validate", "--offline", "-f", "-"]).await.exits(0).prints("policy/b valid");
    fusebox(&["create", "policy", "Not A Name", "--from", "write", "--dry-run", "-o", "yaml"]).await.exits(5);
    fusebox(&["create", "policy", "b", "--from", "magic"]).await.exits(2);
    fusebox(&["explain", "policy.spec.retry.maxAttempts"]).await.exits(0).prints("<integer>").prints("Default: 3");
    fusebox(&["explain", "policy.spec.retry.maxAttemps"]).await.exits(3).says("did you mean \"maxAttempts\"?");
    fusebox(&["explain", "policy"]).await.exits(0).prints("FIELDS:").prints("metadata");
}

#[tokio::test]
async fn man_pages_are_written_for_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("man1");
    fusebox(&["man", target.to_str().unwrap()]).await.exits(0);
    let page = fs::read_to_string(target.join("fusebox-breaker-force-open.1")).unwrap();
    assert!(page.contains("maintenance of B"), "{page}");
    assert!(fs::read_dir(&target).unwrap().count() > 25);
    for shell in ["bash", "zsh", "fish"] {
        fusebox(&["completion", shell]).await.exits(0).prints("simulate").prints("resolve").prints("outage");
    }
}

#[tokio::test]
async fn why_a_server_does_not_start_is_told_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let answer = fusebox(&["serve", "--dev", "--listen", &address]).await.exits(1);
    let told = answer.says(&format!("error: cannot listen on {address}\n"));
    assert_eq!(told.err.matches("in use").count(), 1, "{told:?}");
}
