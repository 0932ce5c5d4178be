//! The story as a stranger runs it: it ends by itself, with 0, and what it measured says that acting as one is better.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_story_is_told_to_its_end_and_measures_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let told = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg("--report")
        .arg(&file)
        .arg("--folder")
        .arg(folder.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{words}\n{}", String::from_utf8_lossy(&told.stderr));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["replicas"], 3);
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.len() >= 10);
    for step in steps {
        assert_eq!(step["ok"], true, "{step}");
        assert!(step["name"].is_string() && step["took_ms"].is_u64(), "{step}");
    }
    for number in ["failed_calls_reached_b", "last_replica_open_ms", "probes_at_recovery", "closed_ms"] {
        assert!(report["coordinated"][number].is_u64() && report["local"][number].is_u64(), "{report}");
    }
    for number in ["failed_calls_reached_b", "probes_at_recovery"] {
        assert!(report["coordinated"][number].as_u64() < report["local"][number].as_u64(), "{number}: {report}");
    }
    assert!(
        report["coordinated"]["probes_at_recovery"].as_u64() <= Some(3),
        "the policy allows three probes: {report}"
    );
}
