//! The kill switch: a client that obeys nothing that anybody says about its breakers.

use std::time::Duration;

use fusebox::{CallError, Client, FleetStateShown, SetupError};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use super::{
    fake::{Fake, LEASE, key, policy},
    policies::{BREAKER, fail},
};

fn forced(state: v1::FleetState) -> Down {
    let selector = v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() };
    Down::Overrides(sync::OverrideSet {
        anchor_seq: 0,
        version: 1,
        term: 5,
        overrides: vec![sync::Override {
            id: 1,
            selector: Some(selector),
            state: state.into(),
            remaining: Some(to_wire(Duration::from_secs(600))),
            reason: "drill".to_owned(),
        }],
    })
}

async fn call(client: &Client) -> Result<(), CallError<&'static str>> {
    client.target("service-b").call(|| async { Ok(()) }).await
}

#[tokio::test(start_paused = true)]
async fn policies_are_followed_and_verdicts_and_overrides_are_not() {
    let mut fake = Fake::start();
    let client = fake.client().ignore_fleet(true).start().unwrap();
    assert!(client.status().ignores_fleet);
    let mut session = fake.welcomed(5).await;
    assert!(session.hello.ignores_fleet, "the server is told");
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    session.say(forced(v1::FleetState::ForcedOpen)).await;
    session
        .say(Down::Verdict(sync::Verdict {
            key: Some(key()),
            term: 5,
            rev: 1,
            state: v1::FleetState::Open.into(),
            lease: Some(to_wire(LEASE)),
            anchor_seq: 1,
            policy_revision: 1,
            ..sync::Verdict::default()
        }))
        .await;
    // The verdict is held, so that reports answer it; the overrides are not even that.
    assert_eq!(session.acknowledged().await.key, Some(key()));
    assert_eq!(client.status().breakers[0].fleet, FleetStateShown::Open);
    call(&client).await.unwrap();
    fail(&client, 2).await;
    let refused = call(&client).await.unwrap_err();
    assert!(refused.is_rejection(), "its own breaker decides: {refused:?}");
    let window = session
        .until("a report of it", |message| {
            let Up::Transition(transition) = message else { return None };
            transition.window
        })
        .await;
    assert!(window.own_trip && !window.vetoed);
    assert_eq!((window.held_term, window.held_rev), (5, 1));
}

/// Run by the next test with the variable set: a process can't safely change its own environment.
#[tokio::test]
#[ignore = "a part of the next test"]
async fn with_the_variable_of_the_environment() {
    let switched = Client::builder("service-a").start();
    match std::env::var("FUSEBOX_FLEET").as_deref() {
        Ok("off") => assert!(switched.unwrap().status().ignores_fleet),
        Ok("on") => assert!(!switched.unwrap().status().ignores_fleet),
        other => assert!(matches!(switched, Err(SetupError::FleetSwitch { .. })), "{other:?}"),
    }
}

#[test]
fn the_environment_switches_too() {
    for value in ["off", "on", "perhaps"] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "ignored::with_the_variable_of_the_environment"])
            .env("FUSEBOX_FLEET", value)
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && out.contains("1 passed"), "{value}: {out}");
    }
}
