//! Who changed what, as an operator asks.

use std::fs;

use super::{
    kept::Kept,
    program::{fusebox, manifest},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_with_who_why_and_what() {
    let server = Kept::start().await;
    server.apply(&manifest("b", "b", "1s")).await.exits(0);
    server.apply(&manifest("b", "b", "2s")).await.exits(0);
    server.run("apply --dry-run -f /dev/null").await;
    server.run("undo policy b -m mistake").await.exits(0);
    server.run("breaker force-open b --for 15m --reason drill").await.exits(0);
    server.run("breaker release b --reason over").await.exits(0);
    server.run("delete policy b --yes").await.exits(0);

    let all = server.run("audit -o json").await.exits(0).json();
    let told: Vec<_> = all["items"].as_array().unwrap().iter().map(|item| item["action"].as_str().unwrap()).collect();
    let wanted = [
        "policy.delete",
        "override.release",
        "override.set",
        "policy.rollback",
        "policy.update",
        "policy.create",
        "term.raise",
    ];
    assert_eq!(told, wanted, "newest first");
    let undo = &all["items"][3];
    assert_eq!((&undo["reason"], &undo["object"]), (&"mistake".into(), &"namespaces/default/policies/b".into()));
    let duration = |state: &serde_json::Value| state["spec"]["pipeline"][2]["timeout"]["duration"].clone();
    assert_eq!((duration(&undo["before"]), duration(&undo["after"])), ("2s".into(), "1s".into()));
    assert!(undo["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{undo}");
    assert_eq!((&undo["actor"], &undo["authentication"]), (&"127.0.0.1".into(), &"none".into()));
    assert_eq!(undo["requestId"].as_str().unwrap().len(), 36, "the id that the command line sent");
    assert_eq!(all["items"][2]["after"]["selector"]["target"], "b");

    server.run("audit").await.exits(0).prints("TIME").prints("policy.rollback").prints("mistake");
    assert_eq!(server.run("audit --object policy/b -o jsonl").await.exits(0).out.lines().count(), 4);
    assert_eq!(server.run("audit --action override -q").await.exits(0).out.lines().count(), 2);
    assert_eq!(server.run("audit --actor server -o name").await.exits(0).out, "audit/1\n");
    assert_eq!(server.run("audit --since 1h --limit 3 -q").await.exits(0).out, "7\n6\n5\n");
    server.run("audit --until 1h").await.exits(0).says("no audit events found");
    server.run("audit --actor nobody").await.exits(0).says("no audit events found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_checked_and_exported_and_a_changed_record_is_named() {
    let server = Kept::start().await;
    for seconds in 1..5 {
        server.apply(&manifest("b", "b", &format!("{seconds}s"))).await.exits(0);
    }
    let whole = server.run("audit verify").await.exits(0).prints("is whole: 5 records").says("--link 5:");
    let link = whole.out.trim().rsplit_once(' ').unwrap().1.to_owned();
    let file = server.path("audit.jsonl");
    server.run(&format!("audit export -o {file}")).await.exits(0).says("5 records written");
    server.run(&format!("audit export -o {file}")).await.exits(4).says("is there already");
    server.run(&format!("audit export -o {file} --force")).await.exits(0);
    let offline = ["audit", "verify", "-f", &file, "--link", &link, "--address", "127.0.0.1:1"];
    fusebox(&offline).await.exits(0).prints(&link);

    // In the file: another word, a line less, the last line gone.
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let other = server.path("other.jsonl");
    let check = async |lines: Vec<&str>| {
        fs::write(&other, lines.join("\n")).unwrap();
        fusebox(&["audit", "verify", "-f", &other]).await.exits(1)
    };
    let changed = lines[3].replace("policy.update", "policy.create");
    assert_ne!(changed, lines[3]);
    let mut with_change = lines.clone();
    with_change[3] = &changed;
    check(with_change).await.says("record 3 is not as it was written");
    check(lines.iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| *line).collect())
        .await
        .says("record 2 is missing");
    check(lines[..5].to_vec()).await.says("ends with record 4, and record 5 was written");
    check(vec!["{}"]).await.says("line 1 is not of an exported audit log");

    // In the database.
    server.outside("UPDATE audit SET reason = 'another' WHERE id = 4").await;
    server.run("audit verify").await.exits(1).says("BROKEN: record 4 is not as it was written");
    server.outside("UPDATE audit SET reason = '' WHERE id = 4").await;
    server.run(&format!("audit verify --link {link}")).await.exits(0);

    // Who makes a whole new log, in which everything fits, does not have the link that was told before.
    server.outside("DELETE FROM audit").await;
    server.outside("UPDATE audit_chain SET last_id = 0, last_hash = zeroblob(32)").await;
    for seconds in 5..9 {
        server.apply(&manifest("b", "b", &format!("{seconds}s"))).await.exits(0);
    }
    server.run("audit verify").await.exits(0);
    server.run(&format!("audit verify --link {link}")).await.exits(1).says("ends with record 4, and record 5");
    server.apply(&manifest("b", "b", "9s")).await.exits(0);
    server.run(&format!("audit verify --link {link}")).await.exits(1).says("record 5 is not the one of the link");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_the_same_after_a_restart() {
    let server = Kept::start().await;
    server.apply(&manifest("b", "b", "1s")).await.exits(0);
    let before = server.run("audit -o jsonl").await.exits(0).out;
    let server = Kept::start_in(server.stop().await).await;
    let after = server.run("audit -o jsonl").await.exits(0).out;
    assert!(after.ends_with(&before), "{before} {after}");
    server.run("audit verify").await.exits(0).prints("3 records");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_would_empty_the_log_is_refused() {
    fusebox(&["serve", "--dev", "--audit-retention", "400ms"]).await.exits(2).says("must be at least 1h");
    fusebox(&["serve", "--dev", "--audit-retention", "long"]).await.exits(2).says("such as 400d, or \"forever\"");
}
