//! Tenants of one server know nothing of each other, and reach nothing of each other.

mod asks;
mod raw;
mod tenant;

use std::{collections::BTreeMap, num::NonZeroU32};

use fusebox_control_plane::access::{
    limits,
    rules::{Row, TABLE},
};
use fusebox_proto::v1;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use tokio::runtime::Runtime;
use tonic::Code;
use tonic_types::StatusExt as _;

use self::{
    asks::{Ask, Wanted, asks},
    raw::{Answer, call, open},
    tenant::{Heard, MARKS, Tenant, token},
};
use crate::server::{Server, Told, reason};

/// A server with three tenants, each with one of everything, and an override of the owner's on all of them.
async fn housed() -> (Server, Vec<Tenant>) {
    let often = NonZeroU32::new(10_000).unwrap();
    let limits = limits::Settings { writes_per_second: often, ..limits::Settings::default() };
    let server = Server::start(Told { limits, ..Told::default() }).await;
    let mut tenants = Vec::new();
    for number in 0..MARKS.len() {
        tenants.push(Tenant::of(&server, number).await);
    }
    let forced = v1::ForceBreakerRequest {
        selector: Some(v1::BreakerKey { target: "payments".to_owned(), ..Default::default() }),
        state: v1::FleetState::ForcedClosed.into(),
        reason: "the owner drills".to_owned(),
        duration: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        ..v1::ForceBreakerRequest::default()
    };
    let mut root = server.admin().await;
    let told = root.breakers.force_breaker(forced).await.unwrap().into_inner();
    assert!(!told.unacknowledged.is_empty(), "there is something to hide");
    // What replicas tell is written behind their backs.
    loop {
        let request = v1::ListBreakerTransitionsRequest { page_size: 1000, ..Default::default() };
        let listed = root.breakers.list_breaker_transitions(request).await.unwrap().into_inner().transitions;
        if MARKS.iter().all(|mark| listed.iter().any(|own| own.instance == format!("{mark}-2"))) {
            return (server, tenants);
        }
        tokio::task::yield_now().await;
    }
}

fn path(row: &Row) -> String {
    format!("/{}/{}", row.service, row.method)
}

fn holds(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// Everything that a refusal carries.
fn text(status: &tonic::Status) -> Vec<u8> {
    [format!("{status:?}").as_bytes(), status.details()].concat()
}

/// The same for comparison.
fn words(status: &tonic::Status) -> (String, BTreeMap<String, String>) {
    let details = status.get_error_details();
    let facts = details.error_info().map(|info| info.metadata.clone()).unwrap_or_default();
    (status.message().to_owned(), facts.into_iter().collect())
}

/// That an answer is as it is wanted, and holds nothing of anybody else's.
fn judge(row: &Row, ask: &Ask, answer: &Answer, own: &Tenant) {
    let what = || format!("{} by {} ({:?}): {answer:?}", path(row), own.mark, ask.wanted);
    let others = || MARKS.iter().filter(|mark| **mark != own.mark);
    for mark in others() {
        assert!(!answer.messages.iter().any(|message| holds(message, mark)), "{mark} in {}", what());
        // A refusal may quote the request.
        let quoted = holds(&ask.message, mark) && ask.wanted != Wanted::Refused;
        if let Some(status) = answer.refused.as_ref().filter(|_| !quoted) {
            assert!(!holds(&text(status), mark), "{mark} in {}", what());
        }
    }
    let told = answer.refused.as_ref().map(|status| {
        let details = status.get_error_details();
        (status.code(), details.error_info().map(|info| info.reason.clone()).unwrap_or_default())
    });
    let wanted = match ask.wanted {
        Wanted::Own => return,
        Wanted::Absent => {
            assert_eq!(told.map(|(code, _)| code), Some(Code::NotFound), "{}", what());
            return;
        }
        Wanted::Refused => "OTHER_NAMESPACE",
        Wanted::Whole => "SCOPE_INSUFFICIENT",
        Wanted::NotOwnService => "NOT_OWN_SERVICE",
    };
    assert_eq!(told, Some((Code::PermissionDenied, wanted.to_owned())), "{}", what());
    assert_eq!(answer.messages.len(), 0, "{}", what());
}

async fn put(row: &Row, ask: &Ask, own: &Tenant) -> Answer {
    let caller = if ask.by_agent { &own.agent } else { &own.admin };
    call(caller, &path(row), ask.message.clone()).await
}

#[tokio::test]
async fn no_rpc_of_the_table_reads_or_changes_what_is_another_tenant_s() {
    let (server, tenants) = housed().await;
    let (own, others) = tenants.split_last().unwrap();
    for row in TABLE {
        let mut refusals = Vec::new();
        for other in others {
            let asks = asks(row, own, other);
            assert!(!asks.is_empty(), "{}", path(row));
            for ask in &asks {
                let answer = put(row, ask, own).await;
                judge(row, ask, &answer, own);
                refusals.extend(answer.refused.filter(|_| ask.wanted == Wanted::Refused).as_ref().map(words));
            }
        }
        // Whether it exists does not show.
        refusals.dedup();
        assert!(refusals.len() <= 1, "{}: {refusals:?}", path(row));
    }
    // What is one's own is there all the same.
    let mut own = own.admin.clone();
    let all = "namespaces/-".to_owned();
    let listed = own.policies.list_policies(v1::ListPoliciesRequest { parent: all, ..Default::default() }).await;
    assert_eq!(listed.unwrap().into_inner().policies.len(), 2);
    assert_eq!(
        own.fleet.list_instances(v1::ListInstancesRequest::default()).await.unwrap().into_inner().instances.len(),
        2
    );
    assert_eq!(
        own.breakers.list_breakers(v1::ListBreakersRequest::default()).await.unwrap().into_inner().breakers.len(),
        2
    );
    let forced = own.breakers.list_overrides(v1::ListOverridesRequest::default()).await.unwrap().into_inner().overrides;
    let of = |own: &v1::Override| own.selector.clone().unwrap().namespace;
    assert_eq!(forced.iter().map(of).collect::<Vec<_>>(), ["tenant-ruby", ""], "one's own, and one on everybody");
    assert!(forced[1].unacknowledged.is_empty(), "whose replicas have not heard of it is not told");
    let tokens = own.admin.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    let mut names: Vec<_> = tokens.iter().map(|token| token.display_name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["boss", "cart", "ruby-reader"]);
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_s_admin_lets_in_whom_they_want_and_no_further_than_themselves() {
    let (server, mut tenants) = housed().await;
    let own = tenants.last_mut().unwrap();
    let namespace = own.namespace();
    let who = own.admin.who().await.unwrap();
    assert_eq!(
        (who.name.as_str(), who.role(), who.namespace.as_str()),
        ("tenant-ruby/boss", v1::Role::Admin, "tenant-ruby")
    );
    let (made, secret) = token(&mut own.admin, &namespace, "carol", v1::Role::Operator, "").await;
    let mut carol = server.caller(Some(&secret)).await;
    assert_eq!(carol.who().await.unwrap().name, "tenant-ruby/carol");
    let request = v1::GetPolicyRequest { name: own.policy_name("checkout") };
    carol.policies.get_policy(request.clone()).await.unwrap();
    let refused = carol.policies.get_policy(v1::GetPolicyRequest { name: "namespaces/default/policies/x".to_owned() });
    assert_eq!(reason(refused.await), (Code::PermissionDenied, "OTHER_NAMESPACE".to_owned()));
    let mut may = async |verb: &str, kind: &str| {
        let request = v1::CheckAccessRequest { verb: verb.to_owned(), r#type: kind.to_owned() };
        let answer = own.admin.admin.check_access(request).await.unwrap().into_inner();
        (answer.allowed, answer.reason)
    };
    let (allowed, why) = may("apply", "policies").await;
    assert!(allowed && why.contains("in the namespace tenant-ruby and in no other"), "{why}");
    let (allowed, why) = may("backup", "store").await;
    assert!(!allowed && why.contains("for all namespaces"), "{why}");
    let end = v1::RevokeTokenRequest { name: made.name, reason: "left".to_owned(), ..Default::default() };
    own.admin.admin.revoke_token(end).await.unwrap();
    assert_eq!(reason(carol.policies.get_policy(request).await).0, Code::Unauthenticated);
    server.stop().await;
}

/// Something that a tenant does.
#[derive(Clone, Debug)]
enum Step {
    /// Asks for what is another's: by a row, one of its requests, of one of the two others.
    Ask { tenant: usize, other: usize, row: prop::sample::Index, ask: prop::sample::Index },
    /// Defines what is its own anew.
    Define { tenant: usize, seconds: u32 },
    /// Forces its own breakers.
    Force { tenant: usize },
    /// Ends that.
    Release { tenant: usize },
    /// Its replicas report.
    Trip { tenant: usize, seq: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let tenant = || 0..MARKS.len();
    prop_oneof![
        6 => (tenant(), 1..MARKS.len(), any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(tenant, further, row, ask)| Step::Ask { tenant, other: (tenant + further) % MARKS.len(), row, ask }),
        2 => (tenant(), 1..60_u32).prop_map(|(tenant, seconds)| Step::Define { tenant, seconds }),
        1 => tenant().prop_map(|tenant| Step::Force { tenant }),
        1 => tenant().prop_map(|tenant| Step::Release { tenant }),
        1 => (tenant(), 10..1_000_000_u64).prop_map(|(tenant, seq)| Step::Trip { tenant, seq }),
    ]
}

async fn make(step: Step, tenants: &[Tenant]) {
    match step {
        Step::Ask { tenant, other, row, ask } => {
            let (own, row) = (&tenants[tenant], row.get(TABLE));
            let asks = asks(row, own, &tenants[other]);
            let ask = ask.get(&asks);
            judge(row, ask, &put(row, ask, own).await, own);
        }
        Step::Define { tenant, seconds } => tenants[tenant].define("checkout", &format!("{seconds}s")).await,
        Step::Force { tenant } => {
            let own = &tenants[tenant];
            own.breakers().force_breaker(own.force(format!("{} again", own.mark))).await.unwrap();
        }
        Step::Release { tenant } => {
            let own = &tenants[tenant];
            let (selector, reason) = (own.force(String::new()).selector, format!("{} ends it", own.mark));
            let request = v1::ReleaseBreakerRequest { selector, reason, ..Default::default() };
            // There may be none.
            if let Err(status) = own.breakers().release_breaker(request).await {
                assert_eq!(status.code(), Code::NotFound, "{status:?}");
            }
        }
        Step::Trip { tenant, seq } => tenants[tenant].trip(seq).await,
    }
}

/// Watches everything that there is to watch, and hands on what comes.
async fn watch(own: &Tenant, others: &Tenant) -> Heard {
    let heard = Heard::default();
    for row in TABLE.iter().filter(|row| row.verb == "watch") {
        for ask in asks(row, own, others).into_iter().filter(|ask| ask.wanted == Wanted::Own) {
            let mut stream = open(&own.admin, &path(row), ask.message).await.unwrap();
            let told = heard.clone();
            tokio::spawn(async move {
                while let Ok(Some(message)) = stream.message().await {
                    told.note(message);
                }
            });
        }
    }
    heard
}

#[test]
fn whatever_tenants_do_no_byte_of_one_is_in_a_message_to_another() {
    let runtime = Runtime::new().unwrap();
    let (server, tenants) = runtime.block_on(housed());
    let mut watched = Vec::new();
    for number in 0..tenants.len() {
        let other = &tenants[(number + 1) % tenants.len()];
        watched.push(runtime.block_on(watch(&tenants[number], other)));
    }
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() });
    let mut heard = 0;
    runner
        .run(&vec(step(), 1..16), |steps| {
            runtime.block_on(async {
                for step in steps {
                    make(step, &tenants).await;
                }
            });
            Ok(())
        })
        .unwrap();
    for (tenant, watched) in tenants.iter().zip(&watched) {
        let ways = [("told", watched), ("sent to replicas", &tenant.heard)];
        for (way, messages) in ways {
            for message in messages.all() {
                let foreign = MARKS.iter().find(|mark| **mark != tenant.mark && holds(&message, mark));
                assert_eq!(foreign, None, "{way} to {}: {message:?}", tenant.mark);
                heard += 1;
            }
        }
    }
    assert!(heard > 100, "the streams told {heard} messages");
    // Nobody's words are in another one's things.
    let mut root = runtime.block_on(server.admin());
    let all = v1::ListPoliciesRequest { parent: "namespaces/-".to_owned(), ..Default::default() };
    let policies = runtime.block_on(root.policies.list_policies(all)).unwrap().into_inner().policies;
    assert_eq!(policies.len(), 2 * MARKS.len());
    for policy in policies {
        let marks = MARKS.iter().filter(|mark| holds(format!("{policy:?}").as_bytes(), mark));
        assert_eq!(marks.count(), 1, "{policy:?}");
    }
    runtime.block_on(server.stop());
}
