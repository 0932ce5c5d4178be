//! The verbs against `fusebox serve`.

use std::{fs, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::program::{Answer, command, fusebox, fusebox_reading, manifest};

/// For a server to say where it listens, on a loaded machine.
const START: Duration = Duration::from_secs(30);

/// A control plane of its own, with a temporary database; killed when dropped.
pub(super) struct Served {
    address: String,
    _process: Child,
}

impl Served {
    pub(super) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(more: &[&str]) -> Self {
        let mut process = command().args(["serve", "--dev", "--listen", "127.0.0.1:0"]).args(more).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let find = async {
            let mut seen = String::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("listening on http://") {
                    let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
                    return format!("http://{}", &rest[..end]);
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            panic!("the server ended: {seen}");
        };
        let address = timeout(START, find).await.expect("the server does not say where it listens");
        // A full pipe would stop the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, _process: process }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn run(&self, line: &str) -> Answer {
        let args: Vec<_> = line.split(' ').chain(["--address", &self.address]).collect();
        fusebox(&args).await
    }

    /// Runs a verb that reads a manifest from stdin.
    pub(super) async fn read(&self, text: &str, line: &str) -> Answer {
        let args: Vec<_> = line.split(' ').chain(["-f", "-", "--address", &self.address]).collect();
        fusebox_reading(text, &args).await
    }

    /// Starts a verb that goes on, and returns its lines.
    pub(super) fn follow(&self, line: &str) -> (Child, tokio::io::Lines<BufReader<ChildStdout>>) {
        let args: Vec<_> = line.split(' ').chain(["--address", &self.address]).collect();
        let mut child = command().args(args).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_lives_from_its_creation_to_its_revival() {
    let server = Served::start().await;
    let first = manifest("service-b", "service-b", "10s");
    server.read(&first, "apply").await.exits(0).prints("policy/service-b created (rev 1)").says("watch it land");
    server.read(&first, "apply").await.exits(0).prints("policy/service-b unchanged (rev 1)");
    server.read(&first, "diff").await.exits(0);

    let second = manifest("service-b", "service-b", "3s");
    let differs = server.read(&second, "diff").await.exits(1).prints("-").says("--if-match");
    let removed = differs.out.lines().any(|line| line.starts_with('-') && line.contains("10s"));
    let added = differs.out.lines().any(|line| line.starts_with('+') && line.contains("3s"));
    assert!(removed && added, "{differs:?}");
    server.read(&second, "apply --dry-run").await.exits(0).prints("would be configured (now rev 1)");
    server.read(&second, "apply -m shorter").await.exits(0).prints("policy/service-b configured (rev 1 → 2)");

    let history = server.run("history policy service-b -o json").await.exits(0).json();
    assert_eq!((&history["items"][0]["revision"], &history["items"][0]["message"]), (&2.into(), &"shorter".into()));
    assert_eq!(history["items"][1]["action"], "create");
    server.run("history policy/service-b --patch").await.exits(0).prints("rev 2: update").prints("+++ rev 2");

    server.run("undo policy service-b").await.exits(0).prints("rolled back (rev 2 → 3");
    server.read(&first, "diff").await.exits(0);
    server.run("undo policy service-b --to 9").await.exits(3).says("has no revision 9");
    server.run("describe policy service-b").await.exits(0).prints("Revision:").prints("none connected");

    server.run("delete policy service-b --yes").await.exits(0).prints("policy/service-b deleted");
    server.run("get policy service-b").await.exits(3);
    server.run("delete policy service-b --yes").await.exits(3);
    server.run("delete policy service-b --yes --ignore-not-found").await.exits(0);
    server.run("undo policy service-b").await.exits(0);
    server.read(&first, "diff").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_get_prints_can_be_applied() {
    let server = Served::start().await;
    let text = format!("{}---\n{}", manifest("a", "a", "1s"), manifest("b", "b", "2s"));
    server.read(&text, "apply").await.exits(0);
    let yaml = server.run("get policies -o yaml").await.exits(0).out;
    let again = server.read(&yaml, "apply").await.exits(0);
    assert_eq!(again.out, "policy/a unchanged (rev 1)\npolicy/b unchanged (rev 2)\n");
    let printed = server.run("get policies -o json").await.exits(0);
    let again = server.read(&printed.out, "apply").await.exits(0);
    assert_eq!(again.out, "policy/a unchanged (rev 1)\npolicy/b unchanged (rev 2)\n");
    let one = server.run("get policy b -o json").await.exits(0).out;
    server.read(&one, "diff").await.exits(0);
    let wrong = one.replace("\"reconciling\"", "\"reconcilin\"");
    server.read(&wrong, "apply").await.exits(5).says("status.reconcilin: unknown field: did you mean reconciling?");
    let list = printed.json();
    assert_eq!(list["items"][1]["metadata"]["name"], "b");
    assert_eq!(list["items"][1]["status"]["revision"], 2);
    assert!(list["items"][1]["status"]["etag"].is_string(), "{list}");
    assert_eq!(server.run("get policies -o name").await.out, "policy/a\npolicy/b\n");
    server.run("get policies").await.prints("retry(circuitBreaker(timeout))");
    assert_eq!(server.run("get policy a -o json").await.json()["metadata"]["name"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_somebody_else_made_is_a_conflict() {
    let server = Served::start().await;
    server.read(&manifest("b", "b", "1s"), "apply").await.exits(0);
    let seen = server.run("get policy b -o json").await.json()["status"]["etag"].as_str().unwrap().to_owned();
    server.read(&manifest("b", "b", "2s"), "apply").await.exits(0);
    let args = ["apply", "-f", "-", "--address", &server.address, "--if-match", &seen];
    fusebox_reading(&manifest("b", "b", "3s"), &args).await.exits(4);
    let seen = server.run("get policy b -o json").await.json()["status"]["etag"].as_str().unwrap().to_owned();
    let args = ["apply", "-f", "-", "--address", &server.address, "--if-match", &seen];
    fusebox_reading(&manifest("b", "b", "3s"), &args).await.exits(0).prints("configured (rev 2 → 3)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_only_the_server_knows_has_its_line_too() {
    let server = Served::start().await;
    server.read(&manifest("one", "b", "1s"), "apply").await.exits(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.yaml");
    fs::write(&file, format!("{}---\n{}", manifest("other", "x", "1s"), manifest("two", "b", "1s"))).unwrap();
    let file = file.to_str().unwrap();
    server.run(&format!("validate --offline -f {file}")).await.exits(0);
    for verb in ["validate", "diff", "apply"] {
        let answer = server.run(&format!("{verb} -f {file}")).await.exits(5);
        // The second document's `match`, on the sixth line after the 14 of the first with its mark.
        answer.says("two.yaml:20:").says("spec.match").says("\"one\"");
    }
    server.run("get policy other").await.exits(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_a_change_when_it_is_made() {
    let server = Served::start().await;
    server.read(&manifest("b", "b", "1s"), "apply").await.exits(0);
    let (mut child, mut lines) = server.follow("get policies -w -o json");
    let mut next = async || -> Value {
        let line = timeout(START, lines.next_line()).await.expect("no event").unwrap().expect("the stream ended");
        serde_json::from_str(&line).unwrap()
    };
    let first = next().await;
    assert_eq!((&first["event"], &first["item"]["status"]["revision"]), (&"upserted".into(), &1.into()));
    assert_eq!(next().await["event"], "synced");
    server.read(&manifest("b", "b", "2s"), "apply").await.exits(0);
    let mut changed = next().await;
    // Further marks may come at any time.
    while changed["event"] == "synced" {
        changed = next().await;
    }
    assert_eq!(changed["item"]["status"]["revision"], 2);
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_watch_with_exit_code_130() {
    let server = Served::start().await;
    let (mut child, mut lines) = server.follow("get policies -w -o json");
    // Once it has printed, it listens for the signal.
    timeout(START, lines.next_line()).await.expect("no event").unwrap().expect("the stream ended");
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    let status = timeout(START, child.wait()).await.expect("it goes on").unwrap();
    assert_eq!(status.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_name_is_told_the_nearest_one() {
    let server = Served::start().await;
    server.read(&manifest("payments", "payments", "1s"), "apply").await.exits(0);
    for line in ["get policy payment", "describe policy/paymets", "history policy paymnts", "delete policy payment -y"]
    {
        server.run(line).await.exits(3).says("did you mean \"payments\"?");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_replicas_that_do_not_come_times_out() {
    let server = Served::start().await;
    server.read(&manifest("b", "b", "1s"), "apply --wait").await.exits(0).says("no replica is connected");
    server.run("wait policy/b --for applied").await.exits(0).says("no replica is connected");
    let answer = server.run("wait policy/b --for applied --replicas 1 --timeout 300ms").await.exits(8);
    answer.says("0 of 1 replicas are connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_apart() {
    let server = Served::start().await;
    server.read(&manifest("b", "b", "1s"), "apply").await.exits(0);
    server.read(&manifest("b", "b", "2s"), "apply -n team-a").await.exits(0).prints("-n team-a");
    assert_eq!(server.run("get policies -q").await.out, "b\n");
    assert_eq!(server.run("get policies -q -A").await.out, "b\nb\n");
    let own = server.run("get policy b -n team-a -o json").await.exits(0).json();
    assert_eq!(own["metadata"]["namespace"], "team-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_come_whole() {
    let server = Served::start().await;
    let texts: Vec<_> = (0..501).map(|index| manifest(&format!("p-{index}"), &format!("t-{index}"), "1s")).collect();
    server.read(&texts.join("---\n"), "apply -q").await.exits(0);
    let list = server.run("get policies -o json").await.exits(0).json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["nextPageToken"]), (501, &"".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_without_replicas_is_empty_and_not_an_error() {
    let server = Served::start().await;
    for kind in ["breakers", "instances"] {
        let list = server.run(&format!("get {kind} -o json")).await.exits(0).json();
        assert_eq!(list, serde_json::json!({ "items": [], "nextPageToken": "" }));
        server.run(&format!("get {kind}")).await.exits(0).says("found");
    }
    server.run("events -o json").await.exits(0);
    server.run("version --server").await.exits(0).prints(env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_for_a_target_that_nobody_calls_yet_is_kept() {
    let server = Served::start().await;
    let force = "breaker force-open service-b --for 15m --reason maintenance";
    server.run(force).await.exits(0).prints("forced open for").prints("no connected replica holds a matching breaker");
    server.run("breaker overrides").await.exits(0).prints("maintenance");
    server.run("breaker release service-b --reason done").await.exits(0).prints("released");
    server.run("breaker release service-b --reason done").await.exits(3);
    server.run("breaker force-open service-b --for 8d --reason long").await.exits(5);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_narrowed_by_labels_and_filters() {
    let server = Served::start().await;
    let labelled =
        |name: &str, labels: &str| manifest(name, name, "1s").replace("spec:", &format!("  labels: {labels}\nspec:"));
    let text = format!("{}---\n{}", labelled("a", "{ team: payments }"), labelled("b", "{ team: search, old: 'yes' }"));
    server.read(&text, "apply").await.exits(0);
    assert_eq!(server.run("get policies -l team=payments -q").await.exits(0).out, "a\n");
    assert_eq!(server.run("get policies -l team,!old -q").await.exits(0).out, "a\n");
    assert_eq!(server.run("get policies -l team!=payments -q").await.exits(0).out, "b\n");
    let filter = |text: &str| {
        let args = ["get", "policies", "-q", "--address", &server.address, "--filter", text].map(str::to_owned);
        async move { fusebox(&args.each_ref().map(String::as_str)).await }
    };
    assert_eq!(filter("target = b OR target = c").await.exits(0).out, "b\n");
    filter("targt = b").await.exits(5).says("at 1: there is no field targt: did you mean target?");
    server.run("get policies a -l team=x").await.exits(2).says("either names or a selection");
    server.run("get breakers -l team=x").await.exits(2).says("breakers have no labels");
    server.run("get instances -l team=x").await.exits(0).says("no instances found");
    server.run("events --filter id>0").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn resolve_tells_the_policy_of_a_call_and_why() {
    let server = Served::start().await;
    let narrow = manifest("narrow", "b", "1s").replace("target: b", "target: b\n    routes: [\"grpc.Pay/*\"]");
    let text = format!("{}---\n{narrow}", manifest("wide", "b", "1s"));
    server.read(&text, "apply").await.exits(0);
    let found = server.run("resolve --service a --target b --method /grpc.Pay/Charge -o json").await.exits(0).json();
    assert_eq!(found["policy"]["metadata"]["name"], "narrow");
    assert_eq!(found["candidates"][1]["reason"], "\"narrow\" is closer: it names a route");
    let text = server.run("resolve --service a --target b").await.exits(0);
    text.prints("policy/wide (rev 1)")
        .prints("chosen")
        .prints("attempts of one call: at most 3")
        .prints("maxAttempts: 3");
    let bare = server.run("resolve --service a --target b --no-headers").await.exits(0);
    assert!(!bare.out.contains("VERDICT") && !bare.out.contains("KIND"), "{bare:?}");
    assert_eq!(server.run("resolve --service a --target b -q").await.exits(0).out, "wide\n");
    assert_eq!(server.run("resolve --service a --target b -o name").await.exits(0).out, "policy/wide\n");
    server.run("resolve --service a --target c").await.exits(3).says("no policy is for calls from a to c");
    server.run("resolve --service a --target b --method x").await.exits(5).says("route");
    server.run("resolve --service a --target b --header x").await.exits(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_prunes_only_what_it_was_told_to() {
    let server = Served::start().await;
    let labelled = |name: &str| manifest(name, name, "1s").replace("spec:", "  labels: { team: x }\nspec:");
    let all = format!("{}---\n{}---\n{}", labelled("a"), labelled("b"), manifest("c", "c", "1s"));
    server.read(&all, "apply").await.exits(0);
    server.read(&labelled("a"), "apply --prune").await.exits(2).says("--selector");
    server.read(&labelled("a"), "apply --prune -l team=x --dry-run").await.exits(0).prints("policy/b would be deleted");
    server
        .read(&labelled("a"), "apply --prune -l team=x")
        .await
        .exits(0)
        .prints("policy/b deleted")
        .says("fusebox undo policy/b");
    assert_eq!(server.run("get policies -q").await.out, "a\nc\n");
    server.read(&labelled("a"), "apply --prune --all").await.exits(0).prints("policy/c deleted");
}

/// An editor that changes 1s to a time, as `EDITOR`.
fn editor(to: &str) -> String {
    format!("sed -i 's/1s/{to}/'")
}

async fn edit(server: &Served, editor: &str, args: &[&str]) -> Answer {
    let args = [&["edit", "policy", "b", "--yes", "--address", &server.address], args].concat();
    let child = command().args(args).env("VISUAL", editor).output();
    let output = timeout(START, child).await.expect("the editor did not end").unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_edited_and_what_was_written_is_not_lost() {
    let server = Served::start().await;
    server.run("create policy b --from write").await.exits(0).prints("policy/b created (rev 1)").says("fusebox edit");
    server.read(&manifest("b", "b", "1s"), "apply").await.exits(0);
    edit(&server, &editor("2s"), &["-m", "slower"]).await.exits(0).prints("policy/b configured (rev 2 → 3)").says("+");
    assert_eq!(server.run("history policy b -o json").await.json()["items"][0]["message"], "slower");
    edit(&server, "true", &[]).await.exits(0).prints("policy/b unchanged");

    let refused = edit(&server, "sed -i 's/maxAttempts: 3/maxAttempts: many/'", &[]).await.exits(5);
    let kept = refused.err.split("apply -f ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    assert!(fs::read_to_string(&kept).unwrap().contains("maxAttempts: many"), "{refused:?}");
    fs::remove_file(kept).unwrap();

    // Somebody else changes it while the editor is open.
    let program = env!("CARGO_BIN_EXE_fusebox");
    let meanwhile = format!("{program} undo policy b --address {} > /dev/null 2>&1; sed -i 's/2s/7s/'", server.address);
    let conflict = edit(&server, &meanwhile, &[]).await.exits(4).says("your text is in");
    fs::remove_file(conflict.err.split("apply -f ").nth(1).unwrap().split('`').next().unwrap()).unwrap();
    server.run("edit policy b").await.exits(2).says("--yes");
    server.run("edit policy none --yes").await.exits(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_cut_and_compared_by_revisions() {
    let server = Served::start().await;
    for time in ["1s", "2s", "3s"] {
        server.read(&manifest("b", "b", time), "apply").await.exits(0);
    }
    let listed = server.run("history policy b --from 2 -o json").await.exits(0).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let diff = server.run("history policy b -p --from 1 --to 3").await.exits(0);
    assert!(diff.out.contains("duration: 1s") || diff.out.contains("-"), "{diff:?}");
    assert!(diff.out.contains("1s") && diff.out.contains("3s") && !diff.out.contains("2s"), "{diff:?}");
    server.run("history policy b --from 2 --to 2 -p").await.exits(0).prints("rev 2: update").prints("1s");
    server.run("history policy b --to 9").await.exits(3).says("has no revision 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_fleet_is_shown_as_one() {
    let server = Served::start().await;
    server.run("fleet").await.exits(0).says("no instances found");
    server.run("fleet service-a").await.exits(3).says("no replica connects as service");
    server.run("top").await.exits(0).prints("rev 0, 0 replicas of 0 services, 0 breakers, 0 restricted");
    server.read(&manifest("b", "b", "1s"), "diff").await.exits(1).says("worst-case attempts of one call 3");
}

#[tokio::test]
async fn a_full_namespace_is_told_with_what_to_do() {
    let served = Served::start_with(&["--policies-per-namespace", "2"]).await;
    served.read(&manifest("a", "ta", "1s"), "apply").await.exits(0);
    served.read(&manifest("b", "tb", "1s"), "apply").await.exits(0);
    for line in ["apply --dry-run", "apply"] {
        let answer = served.read(&manifest("c", "tc", "1s"), line).await;
        let answer = answer.exits(1).says("namespace default would hold 3 policies and may hold 2");
        answer.says("fusebox get policies -n default").says("--policies-per-namespace");
    }
    served.read(&manifest("a", "ta", "2s"), "apply").await.exits(0);
    served.run("delete policy/b --yes").await.exits(0);
    served.read(&manifest("c", "tc", "1s"), "apply").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_to_whoever_watches_the_process() {
    let server = Served::start().await;
    assert_eq!(server.run("health").await.exits(0).out, "serving\n");
    assert_eq!(server.run("health -q --service fusebox.v1.PolicyService").await.exits(0).out, "");
    server.run("health --service fusebox.v1.NoService").await.exits(3);
    fusebox(&["health", "--address", "127.0.0.1:1"]).await.exits(7);
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_tells_differences_when_asked() {
    let server = Served::start().await;
    server.read(&manifest("b", "b", "1s"), "apply").await.exits(0);
    server.read(&manifest("b", "b", "1s"), "validate --diff").await.exits(0);
    server.read(&manifest("b", "b", "2s"), "validate --diff").await.exits(1).prints("+        duration: 2s");
    server.read("kind: Policy", "validate --diff").await.exits(5);
    server.read(&manifest("b", "b", "2s"), "validate --diff --offline").await.exits(2);
    fusebox_reading(&manifest("b", "b", "2s"), &["validate", "--diff", "-f", "-", "--address", "127.0.0.1:1"])
        .await
        .exits(7);
}
