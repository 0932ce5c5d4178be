//! `rollout` against `fusebox serve`, with a replica that says what the test says.

use serde_json::json;

use super::{program::manifest, served::Served};

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_started_shown_refused_forced_and_aborted() {
    let server = Served::start().await;
    let (first, second) = (manifest("service-b", "service-b", "10s"), manifest("service-b", "service-b", "9s"));
    server.read(&first, "apply").await.exits(0);
    server.run("rollout status policy/service-b").await.exits(3).says("never been rolled out");
    server.run("rollout status policy/servce-b").await.exits(3).says("did you mean \"service-b\"?");
    server.read(&second, "rollout start -m why").await.exits(2).says("--to-instance");
    server.read(&second, "rollout start --to-percent 10 --auto -m why").await.exits(2).says("--bake");
    server
        .read(&second, "rollout start --to-percent 10 --dry-run -m why")
        .await
        .exits(0)
        .prints("would be rolled out as rev 2");
    server
        .read(&second, "rollout start --to-instance a-1 --to-percent 50 -m why")
        .await
        .exits(0)
        .prints("policy/service-b rollout of rev 2 started (rev 1 is in force): stage 1 of 2, instance a-1; 0 of 0")
        .says("no connected replica is selected yet")
        .says("fusebox rollout status policy/service-b -w");
    server
        .run("rollout status policy/service-b")
        .await
        .exits(0)
        .prints("RUNNING")
        .prints("1 of 2: instance a-1")
        .prints("INSUFFICIENT_EVIDENCE")
        .prints("Next: when all gates pass: fusebox rollout promote policy/service-b");
    let status = server.run("rollout status policy/service-b -o json").await.exits(0).json();
    assert_eq!(
        (&status["state"], &status["candidate_revision"], &status["stage"]),
        (&json!("RUNNING"), &json!(2), &json!(1))
    );
    assert_eq!(status["progress"]["gates"][0]["name"], "acknowledged");
    server.run("describe policy service-b").await.exits(0).prints("rev 2 RUNNING, stage 1 of 2 (instance a-1)");
    server.run("wait policy/service-b --for applied").await.exits(0).says("rev 2 of it is being rolled out");

    let third = manifest("service-b", "service-b", "8s");
    server.read(&third, "apply").await.exits(4).says("`fusebox rollout abort policy/service-b -m '...'` ends it");
    server
        .run("rollout promote policy/service-b")
        .await
        .exits(4)
        .says("acknowledged INSUFFICIENT_EVIDENCE")
        .says("--force");
    server.run("rollout promote policy/service-b --force").await.exits(2).says("--message");
    server
        .run("rollout promote policy/service-b --force -m known")
        .await
        .exits(0)
        .prints("promoted: stage 2 of 2, 50 %");
    server.run("rollout pause policy/service-b -m lunch").await.exits(0).prints("paused");
    server.run("rollout pause policy/service-b").await.exits(4).says("shows where it is");
    server
        .run("rollout status policy/service-b -w --timeout 1s")
        .await
        .exits(8)
        .prints("lunch")
        .says("gave up after 1s");
    server.run("rollout resume policy/service-b").await.exits(0).prints("goes on");
    server.run("rollout abort policy/service-b").await.exits(2).says("--message");
    server.run("rollout abort policy/service-b -m bad").await.exits(0).prints("aborted: rev 1 is in force for all");
    server.run("rollout status policy/service-b -w").await.exits(1).prints("ABORTED").says("was aborted: bad");
    server.run("rollout resume policy/service-b").await.exits(4).says("it has ended");

    let list = server.run("get rollouts -o json").await.exits(0).json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["state"]), (1, &json!("ABORTED")));
    assert_eq!(server.run("rollout list policy/service-b -q").await.exits(0).out, "service-b/2\n");
    assert_eq!(server.run("get rollout service-b -o name").await.exits(0).out, "rollout/service-b/2\n");
    let history = server.run("history policy service-b --no-headers").await.exits(0);
    let actions: Vec<_> = history.out.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(actions, ["rollback", "candidate", "create"]);
    server.run("undo policy service-b").await.exits(4).says("no earlier revision");
    server.read(&third, "apply").await.exits(0).prints("rev 1 → 7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_is_promoted_ends_its_watch_with_success() {
    let server = Served::start().await;
    server.read(&manifest("service-b", "service-b", "10s"), "apply").await.exits(0);
    server.read(&manifest("service-b", "service-b", "9s"), "rollout start --to-zone z1 -m why").await.exits(0);
    server.run("rollout promote policy service-b --force -m known").await.exits(0).prints("it is in force for all");
    server.run("rollout status policy service-b -w -o json").await.exits(0).prints("\"PROMOTED\"");
    server.run("get policies").await.exits(0).prints("2");
    let several = format!("{}---\n{}", manifest("b", "b", "1s"), manifest("c", "c", "1s"));
    server.read(&several, "rollout start --to-zone z1 -m why").await.exits(2).says("a rollout is of one");
    server.read(&manifest("b", "b", "nonsense"), "rollout start --to-zone z1 -m why").await.exits(5).says("<stdin>:");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_with_stages_begins_a_rollout_and_does_nothing_twice() {
    let server = Served::start().await;
    let (first, second) = (manifest("service-b", "service-b", "10s"), manifest("service-b", "service-b", "9s"));
    server.read(&first, "apply").await.exits(0);
    server.read(&first, "apply --stage 10%").await.exits(0).prints("policy/service-b unchanged (rev 1)");
    server.read(&second, "apply --bake 1m").await.exits(2).says("--stage");
    server.read(&second, "apply --stage 10% --prune --all").await.exits(2).says("--prune");
    server.read(&second, "apply --stage 100%").await.exits(2).says("from 1% to 99%");
    let several = format!("{second}---\n{}", manifest("other", "other", "1s"));
    server.read(&several, "apply --stage 10%").await.exits(2).says("a rollout is of one");
    server.read(&second, "apply --stage 10% --dry-run").await.exits(0).prints("would be rolled out as rev 2");
    let begun = server.read(&second, "apply --stage zone=eu-1 --stage 25% -m why -o json").await.exits(0).json();
    let item = &begun["items"][0];
    assert_eq!(
        (&item["action"], &item["previous_revision"], &item["revision"]),
        (&json!("staged"), &json!(1), &json!(2))
    );
    let shown = server.run("rollout status policy/service-b -o json").await.exits(0).json();
    assert_eq!((&shown["name"], &shown["message"]), (&item["rollout"], &json!("why")));
    assert_eq!(shown["stages"][1]["selector"], "25 %");
    server.read(&second, "apply --stage 10%").await.exits(4);
    server.run("rollout abort policy/service-b -m enough").await.exits(0);
    // Nobody of that zone is there: the first stage never runs it.
    let waiting = "apply --stage zone=eu-1 --wait --timeout 300ms -q";
    let answer =
        server.read(&second, waiting).await.exits(8).says("run by 0 of 0 selected").says("the rollout goes on");
    assert_eq!(answer.out, "service-b\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_are_watched_and_filtered() {
    let server = Served::start().await;
    server.read(&manifest("service-b", "service-b", "10s"), "apply").await.exits(0);
    server.read(&manifest("service-b", "service-b", "9s"), "apply --stage 10%").await.exits(0);
    let (_process, mut lines) = server.follow("get rollouts -w -o json");
    let first: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!((&first["event"], &first["item"]["state"]), (&json!("upserted"), &json!("RUNNING")));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), r#"{"event":"synced"}"#);
    server.run("rollout abort policy/service-b -m enough").await.exits(0);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("ABORTED") {
                return;
            }
        }
        panic!("the watch ended");
    });
    ended.await.unwrap();
    let args = ["get", "rollouts", "-q", "--filter", "state = ABORTED", "--address", server.address()];
    assert_eq!(super::program::fusebox(&args).await.exits(0).out, "service-b/2\n");
}
