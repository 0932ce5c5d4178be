//! An operator's day, on real processes: from the first start over a bad change and a drill to a lost database.
//!
//! `cargo test -p fusebox-demo --test day -- --nocapture` shows all that is typed and answered.

mod desk;
mod fleet;
#[path = "../pki/mod.rs"]
mod pki;
#[path = "../process/mod.rs"]
mod process;

use std::fs;

use desk::{Desk, until};
use fleet::{Fleet, Plane};
use pki::Pki;

/// Policies that the operator brings along, besides that of service B.
const OTHERS: usize = 49;

/// The policy of service B. `timeout` and `extra` lines of its pipeline are what the day is about.
fn service_b(timeout: &str, extra: &str) -> String {
    format!(
        "apiVersion: fusebox/v1
kind: Policy
metadata: {{ name: service-b, labels: {{ team: shop }} }}
spec:
  match: {{ caller: service-a, target: service-b }}
  pipeline:
    - fallback: {{ response: {{ status: 200, headers: {{ content-type: application/json }}, body: '{{\"message\":\"fallback\"}}' }} }}
    - circuitBreaker: {{ delay: 2s }}
    - timeout: {timeout}
{extra}  coordination: {{ mode: balanced, scope: fleet }}
"
    )
}

fn other(number: usize) -> String {
    format!(
        "apiVersion: fusebox/v1
kind: Policy
metadata: {{ name: shelf-{number:02}, labels: {{ team: shop }} }}
spec:
  match: {{ caller: warehouse, target: shelf-{number:02} }}
  pipeline:
    - retry: {{ maxAttempts: 3, backoff: {{ exponential: {{ initial: 100ms }} }} }}
    - timeout: {}ms
",
        500 + 10 * number
    )
}

#[test]
fn an_operator_gets_through_the_day_and_the_fleet_does_not_notice() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path());

    // In the morning: a control plane that asks everybody who they are.
    let data = folder.path().join("data");
    let stranger = Desk { address: String::new(), ca: pki.ca.clone(), token: None, folder: folder.path().to_owned() };
    let create = ["token", "create", "--name", "root", "--role", "admin", "--data-dir"];
    let made = stranger.json(&[&create[..], &[data.to_str().unwrap()]].concat());
    let mut plane = Plane::new(&data, &pki);
    let nobody = Desk { address: plane.start(), ..stranger };
    assert_eq!(nobody.ask(&["get", "policies"]).code, 6, "who says nothing is not let in");
    let root = nobody.with_token(made["secret"].as_str().unwrap());
    assert!(root.run(&["whoami"]).contains("root (admin)"));

    // Everybody gets a token of their own, and the replicas one that is good for nothing else.
    let token = |args: &[&str]| {
        let made = root.json(&[&["token", "create"], args].concat());
        made["secret"].as_str().expect("a secret is shown once").to_owned()
    };
    let olga = nobody.with_token(&token(&["--name", "olga", "--role", "operator"]));
    let agent = token(&["--name", "service-a", "--role", "agent", "--service", "service-a"]);
    assert_eq!(olga.ask(&["token", "list"]).code, 6, "tokens are the admin's business");
    assert_eq!(nobody.with_token(&agent).ask(&["get", "policies"]).code, 6, "a replica's token opens no other door");

    // Fifty policies, all or none.
    for number in 0..OTHERS {
        olga.write(&format!("policies/shelf-{number:02}.yaml"), &other(number));
    }
    olga.write("policies/service-b.yaml", &service_b("1s", ""));
    let applied = olga.run(&["apply", "-f", "policies", "-m", "moving in"]);
    assert_eq!(applied.matches(" created (rev ").count(), OTHERS + 1);
    let fleet = Fleet::start(folder.path(), &nobody.address, &pki, &agent);
    olga.run(&["wait", "policy/service-b", "--for", "applied", "--replicas", "3", "--timeout", "60s"]);
    let traffic = fleet.traffic();

    // A change goes to one replica first. It is one that the replicas of service A refuse: they have not opted in to chaos.
    olga.write(
        "candidate.yaml",
        &service_b("800ms", "    - chaos: { percent: 5, latency: 100ms, until: 2030-01-01T00:00:00Z }\n"),
    );
    olga.run(&["rollout", "start", "-f", "candidate.yaml", "--to-instance", "a-1", "-m", "practise failing"]);
    until("the rejection is seen", || {
        olga.run(&["rollout", "status", "policy/service-b"]).contains("opted in to chaos")
    });
    assert_ne!(olga.ask(&["rollout", "promote", "policy/service-b"]).code, 0, "a rejected candidate goes no further");
    let instance = olga.run(&["describe", "instance", "service-a/a-1"]);
    assert!(instance.contains("opted in to chaos"), "why is told where one looks: {instance}");
    olga.run(&["rollout", "abort", "policy/service-b", "-m", "replicas have not opted in to chaos"]);

    // Without the mistake it goes through, to one and then to all.
    olga.write("candidate.yaml", &service_b("800ms", ""));
    olga.run(&["rollout", "start", "-f", "candidate.yaml", "--to-instance", "a-1", "-m", "a shorter timeout"]);
    until("the candidate runs on one", || olga.ask(&["rollout", "promote", "policy/service-b"]).code == 0);
    olga.run(&["wait", "policy/service-b", "--for", "applied", "--replicas", "3", "--timeout", "60s"]);
    assert!(olga.run(&["get", "policy", "service-b", "-o", "yaml"]).contains("800ms"));

    // A drill: every replica confirms the operator's word, and it ends by itself.
    assert!(fleet.all_pass());
    olga.run(&["breaker", "force-open", "service-b", "--for", "3s", "--reason", "drill 7"]);
    olga.run(&["wait", "breaker/service-b", "--for", "open", "--timeout", "20s"]);
    assert!(fleet.none_passes(), "every replica obeys");
    until("the drill ends by itself", || fleet.all_pass());

    // All of it is on record, by whom and why, and nobody has touched the record.
    let audit = olga.json(&["audit", "--limit", "1000"]);
    let events = audit["items"].as_array().expect("a list");
    let told = |action: &str, actor: &str, reason: &str| {
        events
            .iter()
            .filter(|event| {
                let text = event.to_string();
                text.contains(action) && text.contains(actor) && text.contains(reason)
            })
            .count()
    };
    assert_eq!(told("policy.create", "olga", "moving in"), OTHERS + 1);
    assert!(told("token.create", "root", "") >= 2);
    assert!(
        told("rollout.start", "olga", "practise failing") == 1
            && told("rollout.abort", "olga", "opted in to chaos") == 1
    );
    assert!(told("override.set", "olga", "drill 7") == 1);
    assert!(!audit.to_string().contains(&agent), "secrets are not on record");
    olga.run(&["audit", "verify"]);

    // The database is backed up, lost and restored. Meanwhile the replicas go on with what they have.
    root.run(&["backup", "monday.db"]);
    plane.kill();
    fs::remove_dir_all(&data).unwrap();
    root.run(&["restore", "monday.db", "--data-dir", data.to_str().unwrap()]);
    let again = plane.start();
    assert_eq!(again, nobody.address);
    until("the fleet is back", || fleet.connected());
    assert!(
        olga.run(&["get", "policy", "service-b", "-o", "yaml"]).contains("800ms"),
        "tokens and policies are as they were"
    );
    olga.run(&["audit", "verify"]);
    olga.run(&["wait", "policy/service-b", "--for", "applied", "--replicas", "3", "--timeout", "60s"]);

    let (asked, failed) = traffic.stop(&fleet);
    assert!(asked > 100, "there was traffic all day: {asked}");
    assert_eq!(failed, 0, "of {asked} calls");
}
