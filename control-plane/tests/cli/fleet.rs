//! Breakers, replicas and events, against a canned fleet.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{
    canned::{BREAKER, Canned},
    program::{Answer, command, fusebox},
};

async fn ask(server: &Canned, line: &str) -> Answer {
    let args: Vec<_> = line.split(' ').chain(["--address", &server.address]).collect();
    fusebox(&args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn breakers_as_json_have_the_shape_that_scripts_use() {
    let server = Canned::start().await;
    let list = ask(&server, "get breakers -o json").await.exits(0).json();
    assert_eq!(list["nextPageToken"], "");
    let item = &list["items"][0];
    for key in [
        "name",
        "namespace",
        "caller",
        "policy",
        "strategy",
        "target",
        "zone",
        "mode",
        "fleet",
        "reason",
        "evidence",
        "instances",
        "override",
        "term",
        "rev",
        "half_open_in_ms",
        "probes_issued",
        "probes_succeeded",
        "since_ms",
    ] {
        assert!(item.get(key).is_some(), "{key} is missing in {item}");
    }
    assert_eq!((&item["fleet"], &item["half_open_in_ms"]), (&json!("open"), &json!(3000)));
    assert_eq!(item["evidence"]["open_voters"], 2);
    let locals: Vec<_> = item["instances"].as_array().unwrap().iter().map(|one| one["local"].clone()).collect();
    assert_eq!(locals, ["open", "open", "closed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_for_people_and_names_for_pipes() {
    let server = Canned::start().await;
    let table = ask(&server, "get breakers").await.exits(0);
    assert_eq!(table.out.lines().count(), 2, "{table:?}");
    assert!(table.out.starts_with("TARGET "), "{table:?}");
    assert_eq!(ask(&server, "get breakers --no-headers").await.out.lines().count(), 1);
    assert_eq!(ask(&server, "get breakers -o name").await.out, format!("{BREAKER}\n"));
    ask(&server, &format!("get {BREAKER} -o wide")).await.exits(0).prints("balanced");
    ask(&server, "breaker list service-b").await.exits(0).prints("2 of 3 replicas are open");
    ask(&server, "get breakers -o yaml").await.exits(0).prints("fleet: open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_nobody_holds_is_not_found() {
    let server = Canned::start().await;
    ask(&server, "get breaker servce-b").await.exits(3).says("did you mean \"service-b\"?");
    ask(&server, "describe instance a-9").await.exits(3).says("did you mean \"a-1\"?");
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_tells_state_evidence_replicas_and_events() {
    let server = Canned::start().await;
    let answer = ask(&server, "describe breaker/service-b").await.exits(0);
    answer
        .prints("Fleet:         open")
        .prints("2 of 3 replicas with a vote are open")
        .prints("a-3")
        .prints("failure_rate");
    ask(&server, "describe instance a-1").await.exits(0).prints("behind").prints("41, wanted 43");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_decisions_witnesses_and_what_was_held_back() {
    let server = Canned::start().await;
    ask(&server, "explain breaker service-b")
        .await
        .exits(0)
        .prints("frozen (stall) for another 9s")
        .prints("released -> open")
        .prints("3/17")
        .prints("startup_grace x5")
        .prints("a-1 12/20 open, a-2 12/20 open")
        .prints("a-1 12/20 open (no vote: startup_grace), a-2");
    let item =
        ask(&server, "explain breaker/service-b --service service-a -o json").await.exits(0).json()["items"][0].clone();
    assert_eq!((&item["mode"], &item["breaker"]["fleet"]), (&json!("frozen"), &json!("open")));
    let held = &item["decisions"][1];
    assert_eq!((&held["guard"], &held["times"], &held["since_ms"]), (&json!("startup_grace"), &json!(5), &json!(8000)));
    assert_eq!(held["witnesses"].as_array().unwrap().len(), 2);
    ask(&server, "explain breaker service-b --service service-x").await.exits(3);
    ask(&server, "explain policy service-b").await.exits(2).says("this works on a breaker");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_say_whether_they_run_what_they_should() {
    let server = Canned::start().await;
    let list = ask(&server, "get instances -o json").await.exits(0).json();
    let states: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["behind", "behind", "current"]);
    assert_eq!(list["items"][0]["applied_revision"], 41);
    assert_eq!(ask(&server, "get instance a-3 -o json").await.json()["instance"], "a-3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_is_made_seen_and_ended() {
    let server = Canned::start().await;
    ask(&server, "breaker release service-b --reason done").await.exits(3).says("breaker overrides");
    let dry = "breaker force-closed service-b --for 1h --reason test --dry-run";
    ask(&server, dry).await.exits(0).prints("would be forced closed for 1h; 3 connected replicas");
    ask(&server, "breaker overrides").await.exits(0).says("no overrides found");

    let force = "breaker force-open service-b --service service-a --for 15m --reason test";
    ask(&server, force).await.exits(0).prints("forced open for 15m (override 1); 2 of 3 replicas have confirmed");
    let item = ask(&server, "get breakers -o json").await.json()["items"][0].clone();
    assert_eq!((&item["fleet"], &item["override"]["reason"]), (&json!("forced_open"), &json!("test")));
    ask(&server, "breaker overrides").await.exits(0).prints("2/3");

    ask(&server, "breaker release service-b --service service-a --reason done").await.exits(0).prints("released");
    ask(&server, "wait breaker/service-b --for released --timeout 20s").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_disabled_and_enabled_again() {
    let server = Canned::start().await;
    let dry = "breaker disable service-b --for 1h --reason test --dry-run";
    ask(&server, dry).await.exits(0).prints("would be disabled for 1h; 3 connected replicas");
    let disable = "breaker disable service-b --for 15m --reason test";
    ask(&server, disable)
        .await
        .exits(0)
        .prints("breaker/service-b disabled for 15m (override 1); 2 of 3 replicas have confirmed")
        .says("fusebox wait breaker/service-b --for disabled");
    assert_eq!(ask(&server, "get breakers -o json").await.json()["items"][0]["fleet"], "disabled");
    let unconfirmed = "wait breaker/service-b --for disabled --timeout 300ms";
    ask(&server, unconfirmed).await.exits(8).says("not confirmed by a-3");
    let release = "breaker release service-b --reason done";
    ask(&server, release).await.exits(0).prints("released (override 1: disabled, 15m were left)");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_exit_code_5_with_the_field() {
    let server = Canned::start().await;
    let args = ["breaker", "force-open", "b", "--for", "1m", "--reason", " ", "-v", "--address", &server.address];
    fusebox(&args).await.exits(5).says("reason: is required").says("InvalidArgument");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_condition_or_with_exit_code_8() {
    let server = Canned::start().await;
    ask(&server, "wait breaker/service-b --for open --timeout 20s").await.exits(0);
    let answer = ask(&server, "wait breaker service-b --for closed --timeout 300ms").await.exits(8);
    answer.says("gave up after 300ms").says("is open");
    ask(&server, "wait breaker/other --for open --timeout 300ms").await.exits(8).says("no replica holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_events_come_from_all_pages_oldest_first() {
    let server = Canned::start().await;
    let list = ask(&server, "events -o json").await.exits(0).json();
    let ids: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!((&list["items"][1]["scope"], &list["items"][1]["instance"]), (&json!("fleet"), &Value::Null));
    assert_eq!(ask(&server, "events --limit 1 -o name").await.out, "event/3\n");
    assert_eq!(ask(&server, "events").await.out.lines().count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_events_are_lines_of_json_at_once() {
    let server = Canned::start().await;
    let args = ["events", "-f", "-o", "json", "--address", &server.address];
    let mut child = command().args(args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in 1..=2 {
        let line = lines.next_line().await.unwrap().expect("the stream ended");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], id);
    }
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_changes_until_the_server_ends_it() {
    let server = Canned::start().await;
    let answer = ask(&server, "get breakers -w -o json").await.exits(7).says("ended the stream");
    let lines: Vec<Value> = answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].clone()).collect();
    assert_eq!(events, ["upserted", "synced", "deleted"]);
    assert_eq!((&lines[0]["item"]["fleet"], &lines[2]["name"]), (&json!("open"), &json!(BREAKER)));
    let answer = ask(&server, "get breakers -w").await.exits(7).says("is gone");
    assert_eq!(answer.out.lines().count(), 2, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_is_told_apart_from_a_missing_thing() {
    let server = Canned::start().await;
    ask(&server, "get policies").await.exits(1).says("does not know this request");
    ask(&server, "version --server").await.exits(0).prints("server 9.9.9");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_summed_up_over_their_replicas() {
    let server = Canned::start().await;
    ask(&server, "get services").await.exits(0).prints("41:1, 42:1, 43:1").prints("service-b");
    assert_eq!(ask(&server, "get svc -o name").await.out, "service/service-a\n");
    let one = ask(&server, "get service service-a -o json").await.exits(0).json();
    assert_eq!((&one["behind"], &one["targets"]), (&json!(2), &json!(["service-b"])));
    ask(&server, "get service servce-a").await.exits(3).says("did you mean \"service-a\"?");
    ask(&server, "describe service service-a").await.exits(0).prints("3, 2 behind").prints("a-2");
    ask(&server, "get services -w").await.exits(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_shown_by_service_and_the_top_by_what_is_restricted() {
    let server = Canned::start().await;
    let fleet = ask(&server, "fleet").await.exits(0);
    fleet.prints("service-a: 1 of 3 replicas run what they should").prints("2 revisions").prints("behind");
    let json = ask(&server, "fleet -o json").await.exits(0).json();
    assert_eq!(
        (&json["items"][0]["service"], &json["items"][0]["instances"][0]["lag"]),
        (&json!("service-a"), &json!(2))
    );
    assert_eq!(ask(&server, "fleet -q").await.out.lines().count(), 3);
    ask(&server, "top").await.exits(0).prints("3 replicas of 1 services, 1 breakers, 1 restricted").prints("service-b");
    ask(&server, "top --limit 0").await.exits(0).prints("and 1 more");
    let bare = ask(&server, "top --no-headers").await.exits(0);
    assert!(!bare.out.contains("TARGET"), "{bare:?}");
    assert_eq!(ask(&server, "top -q").await.exits(0).out.lines().count(), 1);
    let json = ask(&server, "top -o json").await.exits(0).json();
    assert_eq!((&json["restricted"], &json["breakers"][0]["target"]), (&json!(1), &json!("service-b")));
}

#[tokio::test(flavor = "multi_thread")]
async fn breakers_and_replicas_are_shown_by_verbs_of_their_own() {
    let server = Canned::start().await;
    let described = ask(&server, "describe breaker service-b").await.exits(0);
    assert_eq!(ask(&server, "breaker show service-b").await.exits(0).out.lines().next(), described.out.lines().next());
    ask(&server, "breaker show servce-b").await.exits(3).says("did you mean \"service-b\"?");
    ask(&server, "instance describe a-1").await.exits(0).prints("a-1");
    assert_eq!(
        ask(&server, "instance describe a-1 -q").await.exits(0).out,
        ask(&server, "get instance a-1 -q").await.out
    );
    ask(&server, "instance describe a-9").await.exits(3);
}
