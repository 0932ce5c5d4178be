//! `wait`: until a policy runs everywhere, or a breaker is in a state. For scripts.
//!
//! A server that goes away meanwhile is asked again until the time is over: waiting through a restart is the point.

use std::{future::Future, time::Duration};

use clap::{Args, ValueEnum};
use fusebox_proto::v1::{self, Breaker, Instance};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Session,
    connect::Server,
    failure::{Class, Failure},
    fetch, output, render,
    resource::{Kind, Wanted},
    span,
};

/// Options of `wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// policy/NAME or breaker/TARGET
    #[arg(required = true, value_name = "TYPE/NAME")]
    what: Vec<String>,
    /// applied, of a policy: every replica runs it. open, closed, disabled or released, of a breaker
    #[arg(long = "for", value_enum, value_name = "CONDITION")]
    condition: Condition,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// For `applied`: at least this many replicas must run it
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    replicas: usize,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Condition {
    /// Every connected replica that the policy concerns runs its present revision.
    Applied,
    /// Calls are refused: by the fleet, or where it has decided nothing, by every replica. An operator's word counts
    /// when every replica has confirmed it.
    Open,
    /// Calls pass: every replica's own breaker is closed and the fleet does not refuse, or an operator lets all pass.
    Closed,
    /// An operator lets all calls pass uncounted, and every replica has confirmed it.
    Disabled,
    /// The fleet has decided nothing: each replica's own breaker decides.
    Released,
}

/// How far a condition is.
enum Progress {
    /// It holds; perhaps with something to say.
    Done(Option<String>),
    /// Not yet, and why not.
    Waiting(String),
}

/// How often the server is asked.
const PERIOD: Duration = Duration::from_millis(200);

/// Runs `wait`.
pub(super) async fn wait(session: &Session, args: WaitArgs) -> Result<(), Failure> {
    let (kind, name) = Wanted::one(&args.what, &[Kind::Policies, Kind::Breakers])?;
    let usage = |what: &str| Failure::new(Class::Usage, format!("a {} {what}", kind.singular()));
    match (kind, args.condition) {
        (Kind::Policies, Condition::Applied) => {
            let server = session.server().await?;
            let policy = fetch::policy(&server, session.namespace(), &name).await?;
            applied(&server, &policy, args.timeout, args.replicas).await?;
            tell_rollout(&server, &policy).await
        }
        (Kind::Policies, _) => Err(usage("can be waited for with --for applied only")),
        (_, Condition::Applied) => Err(usage("can be waited for with --for open, closed, disabled or released")),
        (_, condition) => {
            let server = session.server().await?;
            let namespace = session.given_namespace();
            let look = || async {
                let mut all = fetch::breakers(&server, namespace, "").await?;
                all.retain(|breaker| fetch::is_breaker(breaker, &name));
                Ok(breaker_progress(&all, condition, &name))
            };
            until(args.timeout, look).await
        }
    }
}

/// Says that some replicas have something else than what is in force, where it is so.
async fn tell_rollout(server: &Server, policy: &v1::Policy) -> Result<(), Failure> {
    if let Some(rollout) = fetch::newest_rollout(server, &policy.name).await?.filter(render::rollout_in_progress) {
        let selected = rollout.progress.as_ref().map_or(0, |progress| progress.selected.len());
        let label = render::label(&policy.name);
        output::say(&format!(
            "rev {} of it is being rolled out, to {selected} of them so far: fusebox rollout status {label}{}",
            rollout.candidate_revision,
            super::apply::in_namespace(&policy.name)
        ));
    }
    Ok(())
}

/// Waits until every connected replica that the policy concerns runs this revision of it.
pub(super) async fn applied(
    server: &Server,
    policy: &v1::Policy,
    limit: Duration,
    at_least: usize,
) -> Result<(), Failure> {
    let look = || async {
        let instances = fetch::instances(server, Some(render::namespace_of(&policy.name)), "").await?;
        let concerned: Vec<_> = instances.into_iter().filter(|one| concerns(policy, one)).collect();
        let candidate = fetch::newest_rollout(server, &policy.name).await?.filter(render::rollout_in_progress);
        let candidate = candidate.map(|rollout| rollout.candidate_revision);
        applied_progress(policy, candidate, &concerned, at_least)
    };
    until(limit, look).await
}

/// Asks again and again until the condition holds or the time is over.
async fn until<F>(limit: Duration, look: impl Fn() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<Progress, Failure>>,
{
    let begin = Instant::now();
    let end = begin + limit;
    let mut missing = "the control plane has not answered".to_owned();
    loop {
        match timeout_at(end, look()).await {
            Ok(Ok(Progress::Done(note))) => {
                output::say(&note.unwrap_or_else(|| format!("done after {}", span::short(begin.elapsed()))));
                return Ok(());
            }
            Ok(Ok(Progress::Waiting(why))) => missing = why,
            Ok(Err(failure)) if failure.class == Class::Unavailable => missing = failure.what,
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {}
        }
        if Instant::now() + PERIOD >= end {
            let what = format!("gave up after {}: {missing}", span::short(limit));
            return Err(Failure::new(Class::TimedOut, what).fix("--timeout allows more time"));
        }
        sleep_until(Instant::now() + PERIOD).await;
    }
}

/// Whether a replica must run the policy, going by its caller.
pub(super) fn concerns(policy: &v1::Policy, instance: &Instance) -> bool {
    let caller = policy.spec.as_ref().and_then(|spec| spec.r#match.as_ref()).map(|selector| selector.caller.as_str());
    caller.is_none_or(|caller| caller.is_empty() || caller == instance.service)
}

fn applied_progress(
    policy: &v1::Policy,
    candidate: Option<u64>,
    instances: &[Instance],
    at_least: usize,
) -> Result<Progress, Failure> {
    let label = render::label(&policy.name);
    for instance in instances {
        let refused = instance.rejected.iter().find(|one| {
            // Who refuses a candidate runs what is in force.
            let own = one.policy == render::id(&policy.name) && candidate != Some(one.revision);
            own && one.revision >= policy.revision
        });
        if let Some(refused) = refused {
            let who = format!("{}/{}", instance.service, instance.instance);
            return Err(Failure::new(Class::Failed, format!("{who} refused {label}: {}", refused.reason))
                .fix("its last good version stays in force there; correct the policy or update the replica's SDK"));
        }
    }
    let missing: Vec<_> = instances
        .iter()
        .filter(|instance| instance.applied_revision < policy.revision)
        .map(|instance| instance.instance.as_str())
        .collect();
    if instances.len() < at_least {
        return Ok(Progress::Waiting(format!("{} of {at_least} replicas are connected", instances.len())));
    }
    if !missing.is_empty() {
        return Ok(Progress::Waiting(format!(
            "{label} rev {} is missing on {} of {} replicas: {}",
            policy.revision,
            missing.len(),
            instances.len(),
            some(&missing)
        )));
    }
    Ok(Progress::Done(Some(if instances.is_empty() {
        format!("no replica is connected that {label} concerns")
    } else {
        format!("{label} rev {} runs on {}", policy.revision, replicas(instances.len()))
    })))
}

fn replicas(count: usize) -> String {
    if count == 1 { "1 replica".to_owned() } else { format!("all {count} replicas") }
}

fn some(names: &[&str]) -> String {
    const MOST: usize = 5;
    let mut text = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text.push_str(", ...");
    }
    text
}

/// Replicas that have yet to confirm an operator's word.
fn unconfirmed(breaker: &Breaker) -> Vec<&str> {
    breaker.r#override.iter().flat_map(|word| &word.unacknowledged).map(String::as_str).collect()
}

fn breaker_progress(breakers: &[Breaker], condition: Condition, name: &str) -> Progress {
    let holds = |breaker: &Breaker| {
        let locals_are = |word: &str| {
            !breaker.instances.is_empty()
                && breaker.instances.iter().all(|one| render::local_word(one.local_state) == word)
        };
        match (condition, render::fleet_word(breaker.fleet_state)) {
            (Condition::Released, fleet) => fleet == "released",
            (Condition::Open, "open") => true,
            (Condition::Open, "forced_open")
            | (Condition::Closed, "forced_closed" | "disabled")
            | (Condition::Disabled, "disabled") => unconfirmed(breaker).is_empty(),
            (Condition::Open, "released") => locals_are("open"),
            (Condition::Closed, "released") => locals_are("closed"),
            (Condition::Open | Condition::Closed | Condition::Disabled | Condition::Applied, _) => false,
        }
    };
    match (breakers, condition) {
        ([], Condition::Released) => Progress::Done(Some(format!("no replica holds a breaker for {name}"))),
        ([], _) => Progress::Waiting(format!("no replica holds a breaker for {name}")),
        (all, _) => match all.iter().find(|breaker| !holds(breaker)) {
            None => Progress::Done(None),
            Some(other) => {
                let key = other.key.clone().unwrap_or_default();
                let fleet = render::fleet_word(other.fleet_state);
                let locals: Vec<_> = other.instances.iter().map(|one| render::local_word(one.local_state)).collect();
                let zone = if key.zone.is_empty() { String::new() } else { format!(" in {}", key.zone) };
                let mut text = format!(
                    "the breaker of {} for {}{zone} is {fleet}, its replicas: {}",
                    key.caller,
                    key.target,
                    some(&locals)
                );
                let unconfirmed = unconfirmed(other);
                if !unconfirmed.is_empty() {
                    text.push_str(&format!("; not confirmed by {}", some(&unconfirmed)));
                }
                Progress::Waiting(text)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use fusebox_proto::v1::{FleetState, InstanceBreaker, LocalState, RejectedPolicy};

    use super::*;

    fn breaker(fleet: FleetState, locals: &[LocalState]) -> Breaker {
        let instances =
            locals.iter().map(|state| InstanceBreaker { local_state: (*state).into(), ..Default::default() }).collect();
        Breaker { fleet_state: fleet.into(), instances, ..Breaker::default() }
    }

    fn is_done(breakers: &[Breaker], condition: Condition) -> bool {
        matches!(breaker_progress(breakers, condition, "b"), Progress::Done(_))
    }

    #[test]
    fn the_fleets_word_comes_before_the_replicas_own() {
        use LocalState::{Closed, Open};
        assert!(is_done(&[breaker(FleetState::Open, &[Closed, Open])], Condition::Open));
        assert!(!is_done(&[breaker(FleetState::Open, &[Closed, Closed])], Condition::Closed));
        assert!(is_done(&[breaker(FleetState::Released, &[Closed, Closed])], Condition::Closed));
        assert!(!is_done(&[breaker(FleetState::Released, &[Closed, Open])], Condition::Closed));
        assert!(is_done(&[breaker(FleetState::Released, &[Open, Open])], Condition::Open));
        assert!(!is_done(&[breaker(FleetState::HalfOpen, &[Open])], Condition::Open));
        assert!(is_done(&[breaker(FleetState::Released, &[Open])], Condition::Released));
    }

    #[test]
    fn an_operators_word_counts_when_every_replica_has_confirmed_it() {
        let mut forced = breaker(FleetState::ForcedOpen, &[LocalState::Closed]);
        forced.r#override = Some(v1::Override { unacknowledged: vec!["a-3".to_owned()], ..v1::Override::default() });
        let Progress::Waiting(why) = breaker_progress(&[forced.clone()], Condition::Open, "b") else {
            panic!("it did not wait")
        };
        assert!(why.ends_with("not confirmed by a-3"), "{why}");
        forced.r#override = Some(v1::Override::default());
        assert!(is_done(&[forced], Condition::Open));
    }

    #[test]
    fn every_matching_breaker_must_agree_and_there_must_be_one() {
        let open = breaker(FleetState::Open, &[]);
        let released = breaker(FleetState::Released, &[LocalState::Closed]);
        assert!(!is_done(&[open, released], Condition::Open));
        assert!(!is_done(&[], Condition::Open));
        assert!(is_done(&[], Condition::Released));
    }

    #[test]
    fn a_policy_is_applied_when_every_replica_runs_its_revision() {
        let policy = v1::Policy { name: "namespaces/default/policies/b".to_owned(), revision: 7, ..Default::default() };
        let replica = |applied_revision| Instance { applied_revision, ..Instance::default() };
        let done = |instances: &[Instance], least| {
            matches!(applied_progress(&policy, None, instances, least), Ok(Progress::Done(_)))
        };
        assert!(done(&[replica(7), replica(9)], 2));
        assert!(!done(&[replica(7), replica(6)], 0));
        assert!(!done(&[replica(7)], 2));
        assert!(done(&[], 0));
    }

    #[test]
    fn a_refusing_replica_ends_the_wait() {
        let policy = v1::Policy { name: "namespaces/default/policies/b".to_owned(), revision: 7, ..Default::default() };
        let rejected = vec![RejectedPolicy { policy: "b".to_owned(), revision: 7, reason: "unknown kind".to_owned() }];
        let replica = Instance { rejected, ..Instance::default() };
        let Err(failure) = applied_progress(&policy, None, &[replica], 0) else { panic!("it went on") };
        assert_eq!(failure.class, Class::Failed);
        assert!(failure.what.contains("unknown kind"));
    }

    #[test]
    fn who_refuses_a_candidate_runs_what_is_in_force() {
        let policy = v1::Policy { name: "namespaces/default/policies/b".to_owned(), revision: 7, ..Default::default() };
        let rejected = vec![RejectedPolicy { policy: "b".to_owned(), revision: 9, reason: "unknown kind".to_owned() }];
        let replica = Instance { rejected, applied_revision: 9, ..Instance::default() };
        assert!(matches!(applied_progress(&policy, Some(9), std::slice::from_ref(&replica), 1), Ok(Progress::Done(_))));
        assert!(applied_progress(&policy, None, &[replica], 1).is_err());
    }
}
