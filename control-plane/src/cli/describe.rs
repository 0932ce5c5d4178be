//! `describe`: everything about one thing, for a person.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use fusebox_proto::v1::{self, Breaker, Instance};

use super::{
    Session,
    connect::Server,
    failure::Failure,
    fetch::{self, Transitions},
    output::{self, Format, OutputArgs},
    render::{self, Row},
    resource::{Kind, Wanted},
    span,
};

/// Options of `describe`.
#[derive(Clone, Debug, Args)]
pub struct DescribeArgs {
    /// policy, breaker or instance, then its name; or TYPE/NAME
    #[arg(required = true, value_name = "TYPE NAME")]
    what: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is described by a verb of its own kind.
#[derive(Clone, Debug, Args)]
pub struct DescribeNamedArgs {
    /// Its name; TYPE/NAME is understood too
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What can be done with replicas.
#[derive(Clone, Debug, Subcommand)]
pub enum InstanceCommand {
    /// Show everything about a replica; the same as `describe instance`
    #[command(
        after_help = "Example:\n  fusebox instance describe a-1\n  fusebox instance describe service-a/a-1 -o json"
    )]
    Describe(DescribeNamedArgs),
}

/// Runs `describe` for one kind of thing.
pub(super) async fn named(session: &Session, kind: Kind, args: DescribeNamedArgs) -> Result<(), Failure> {
    let DescribeNamedArgs { name, output } = args;
    describe(session, DescribeArgs { what: vec![kind.singular().to_owned(), name], output }).await
}

/// Enough to see what happened lately, little enough for a screen.
const EVENTS: usize = 10;

/// Runs `describe`.
pub(super) async fn describe(session: &Session, args: DescribeArgs) -> Result<(), Failure> {
    let (kind, name) =
        Wanted::one(&args.what, &[Kind::Policies, Kind::Breakers, Kind::Instances, Kind::Services, Kind::Rollouts])?;
    let server = session.server().await?;
    let is_prose = !args.output.quiet && matches!(args.output.format, Format::Table | Format::Wide);
    match kind {
        Kind::Policies => {
            let found = fetch::policy(&server, session.namespace(), &name).await?;
            let text = if is_prose { policy(&server, &found).await? } else { render::one(&found, args.output)? };
            output::print(&text)
        }
        Kind::Breakers => {
            let all = fetch::breakers(&server, session.given_namespace(), "").await?;
            let found = fetch::breakers_named(&all, &name)?;
            if !is_prose {
                return output::print(&render::many(&found, args.output)?);
            }
            let mut texts = Vec::new();
            for one in &found {
                texts.push(breaker(&server, one).await?);
            }
            output::print(&texts.join("\n\n"))
        }
        Kind::Instances => {
            let all = fetch::instances(&server, session.given_namespace(), "").await?;
            let found = fetch::instances_named(&all, &name)?;
            if !is_prose {
                return output::print(&render::many(&found, args.output)?);
            }
            let breakers = fetch::breakers(&server, session.given_namespace(), "").await?;
            let texts: Vec<_> = found.iter().map(|one| instance(one, &breakers)).collect();
            output::print(&texts.join("\n\n"))
        }
        Kind::Rollouts => {
            let found = fetch::rollout(&server, session.namespace(), &name).await?;
            output::print(&if is_prose { render::rollout_status(&found) } else { render::one(&found, args.output)? })
        }
        Kind::Services => {
            let found = fetch::services_named(&fetch::services(&server, "").await?, &name)?;
            if !is_prose {
                return output::print(&render::many(&found, args.output)?);
            }
            let mut texts = Vec::new();
            for one in &found {
                texts.push(service(&server, one).await?);
            }
            output::print(&texts.join("\n\n"))
        }
    }
}

async fn service(server: &Server, service: &v1::Service) -> Result<String, Failure> {
    let own = format!("service = \"{}\"", service.service);
    let instances = fetch::instances(server, None, &own).await?;
    let breakers = fetch::breakers(server, None, &own).await?;
    let mut text = facts(&[
        ("Service", service.service.clone()),
        ("Namespaces", render::or_dash(&service.namespaces.join(", "))),
        ("Replicas", format!("{}, {} behind, {} rejecting", service.instances, service.behind, service.rejecting)),
        ("Revisions", render::counts(&service.revisions)),
        ("Zones", render::counts(&service.zones)),
        ("SDK", render::counts(&service.sdk_versions)),
        ("Sources", render::counts(&service.policy_sources)),
        ("Calls", render::or_dash(&service.targets.join(", "))),
        ("Called by", render::or_dash(&service.callers.join(", "))),
    ]);
    section(&mut text, "Replicas", &table(&instances));
    section(&mut text, "Breakers", &table(&breakers));
    Ok(text)
}

async fn policy(server: &Server, policy: &v1::Policy) -> Result<String, Failure> {
    let namespace = render::namespace_of(&policy.name);
    let selector = policy.spec.as_ref().and_then(|spec| spec.r#match.clone()).unwrap_or_default();
    let id = render::id(&policy.name);
    // What the text shows beside the policy itself; all of it is of this moment, nothing is of one revision.
    let revisions = fetch::revisions(server, namespace, id).await?;
    let mut instances = fetch::instances(server, Some(namespace), "").await?;
    instances.retain(|one| selector.caller.is_empty() || selector.caller == one.service);
    let mut breakers = fetch::breakers(server, Some(namespace), "").await?;
    breakers.retain(|one| one.key.as_ref().is_some_and(|key| key.policy == id));
    let wanted = Transitions {
        target: selector.target,
        namespace: Some(namespace.to_owned()),
        policy: Some(id.to_owned()),
        limit: EVENTS,
        ..Transitions::default()
    };
    let events = fetch::transitions(server, &wanted).await?;

    let mut facts = vec![
        ("Name", id.to_owned()),
        ("Namespace", namespace.to_owned()),
        ("Revision", format!("{}, {} ago", policy.revision, span::ago(policy.update_time.as_ref()))),
        ("Etag", policy.etag.clone()),
        ("Created", format!("{} ago", span::ago(policy.create_time.as_ref()))),
    ];
    if let Some(last) = revisions.first() {
        let mut text = render::revision_action(last).to_owned();
        for (word, value) in [(" by ", &last.author), (": ", &last.message)] {
            if !value.is_empty() {
                text.push_str(word);
                text.push_str(value);
            }
        }
        facts.push(("Last change", text));
    }
    facts.push(("Replicas", rollout(policy.revision, id, &instances)));
    if let Some(found) = fetch::newest_rollout(server, &policy.name).await?.filter(render::rollout_in_progress) {
        facts.push(("Rollout", staged(&found)));
    }
    let mut text = self::facts(&facts);
    section(&mut text, "Definition", &indent(&Row::yaml(policy)?));
    section(&mut text, "Breakers", &table(&breakers));
    let shares = shares_of(id, &instances);
    if !shares.is_empty() {
        section(&mut text, "Shares of limits", &shares);
    }
    section(&mut text, "Events", &table(&events));
    Ok(text)
}

/// Each replica's part of the limits of a policy that the fleet shares.
fn shares_of(id: &str, instances: &[Instance]) -> String {
    let shared = instances
        .iter()
        .flat_map(|one| one.limits.iter().filter(|limit| limit.policy == id).map(move |limit| (one, limit)));
    let rows: Vec<_> = shared
        .map(|(one, limit)| {
            vec![
                one.service.clone(),
                one.instance.clone(),
                limit.strategy.clone(),
                render::share(limit),
                render::wanted(limit),
                yes(limit.acknowledged),
            ]
        })
        .collect();
    let header = ["SERVICE", "INSTANCE", "STRATEGY", "SHARE", "WANTS", "CONFIRMED"];
    if rows.is_empty() { String::new() } else { indent(&output::columns(Some(&header), &rows, &[]).0) }
}

fn yes(holds: bool) -> String {
    if holds { "yes" } else { "no" }.to_owned()
}

/// `rev 43 RUNNING, stage 1 of 2 (10 %): 1 of 1 selected run it; fusebox rollout status policy/b`.
fn staged(rollout: &v1::Rollout) -> String {
    let stages = render::stages(rollout);
    let name = stages.get((rollout.stage as usize).saturating_sub(1)).cloned().unwrap_or_default();
    let progress = rollout.progress.clone().unwrap_or_default();
    format!(
        "rev {} {}, stage {} of {} ({name}): {} of {} selected run it; fusebox rollout status {}{}",
        rollout.candidate_revision,
        render::rollout_state(rollout),
        rollout.stage,
        stages.len(),
        progress.acknowledged.len(),
        progress.selected.len(),
        render::label(&rollout.policy),
        super::apply::in_namespace(&rollout.policy)
    )
}

/// `2 of 3 run rev 42; a-3 runs rev 41`.
fn rollout(revision: u64, id: &str, instances: &[Instance]) -> String {
    if instances.is_empty() {
        return "none connected".to_owned();
    }
    let (current, behind): (Vec<_>, Vec<_>) =
        instances.iter().partition(|one| one.applied_revision >= revision && !rejects(one, id));
    let mut text = format!("{} of {} run rev {revision}", current.len(), instances.len());
    for one in behind {
        let _ = match one.rejected.iter().find(|rejected| rejected.policy == id) {
            Some(rejected) => write!(text, "; {} refused it: {}", one.instance, rejected.reason),
            None => write!(text, "; {} is at rev {}", one.instance, one.applied_revision),
        };
    }
    text
}

fn rejects(instance: &Instance, id: &str) -> bool {
    instance.rejected.iter().any(|rejected| rejected.policy == id)
}

async fn breaker(server: &Server, breaker: &Breaker) -> Result<String, Failure> {
    let key = breaker.key.clone().unwrap_or_default();
    let evidence = breaker.evidence.clone().unwrap_or_default();
    let fleet = render::fleet_word(breaker.fleet_state);
    let mut facts = vec![
        ("Name", breaker.id()),
        ("Target", key.target.clone()),
        ("Caller", key.caller.clone()),
        ("Policy", format!("{} in {}, strategy {}", key.policy, key.namespace, key.strategy)),
        ("Zone", render::or_dash(&key.zone)),
        ("Mode", render::or_dash(&breaker.mode)),
        (
            "Fleet",
            breaker
                .since
                .as_ref()
                .map_or(fleet.to_owned(), |since| format!("{fleet} for {}", span::short(span::wire(since)))),
        ),
        ("Reason", render::or_dash(&breaker.reason)),
        ("Verdict", format!("term {}, rev {}", breaker.term, breaker.rev)),
    ];
    if breaker.shadow {
        facts.push(("Shadow", "the fleet's state is what it would do: no call is refused".to_owned()));
    }
    if let Some(left) = &breaker.half_open_in {
        facts.push(("Half-open in", span::short(span::wire(left))));
    }
    if breaker.probes_issued > 0 {
        let probes = format!("{} issued, {} succeeded", breaker.probes_issued, breaker.probes_succeeded);
        facts.push(("Probes", probes));
    }
    if let Some(word) = &breaker.r#override {
        let text = format!(
            "{} for another {} by {}: {}",
            render::fleet_word(word.state),
            span::cell(word.remaining.as_ref()),
            render::or_dash(&word.author),
            word.reason
        );
        facts.push(("Override", text));
    }
    let votes = format!("{} of {} replicas with a vote are open", evidence.open_voters, evidence.eligible);
    let pooled = format!(
        "{} of {} calls failed, over {} replicas",
        evidence.pooled_failures, evidence.pooled_calls, evidence.contributors
    );
    facts.push(("Votes", votes));
    facts.push(("Pooled", pooled));
    if !evidence.witness_instances.is_empty() {
        facts.push(("Witnesses", evidence.witness_instances.join(", ")));
    }
    if !evidence.causes.is_empty() {
        let causes: Vec<_> = evidence.causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        facts.push(("Causes", causes.join(", ")));
    }
    if evidence.insufficient_witnesses {
        facts.push(("Note", "fewer than two replicas have a vote: each replica decides for itself".to_owned()));
    }
    let wanted = Transitions {
        target: key.target,
        caller: key.caller,
        namespace: Some(key.namespace),
        policy: Some(key.policy),
        limit: EVENTS,
        ..Transitions::default()
    };
    let events = fetch::transitions(server, &wanted).await?;
    let mut text = self::facts(&facts);
    section(&mut text, "Replicas", &replicas(breaker));
    section(&mut text, "Events", &table(&events));
    Ok(text)
}

fn replicas(breaker: &Breaker) -> String {
    let rows: Vec<_> = breaker
        .instances
        .iter()
        .map(|one| {
            vec![
                one.instance.clone(),
                render::or_dash(&one.zone),
                render::local_word(one.local_state).to_owned(),
                one.window_calls.to_string(),
                one.window_failures.to_string(),
                one.rejected.to_string(),
                yes(one.eligible),
                if one.unsupported { "too old".to_owned() } else { yes(one.acknowledged) },
                yes(one.vetoed),
                yes(one.disabled),
            ]
        })
        .collect();
    let header =
        ["INSTANCE", "ZONE", "LOCAL", "CALLS", "FAILURES", "REJECTED", "VOTE", "CONFIRMED", "VETO", "DISABLED"];
    if rows.is_empty() { String::new() } else { indent(&output::columns(Some(&header), &rows, &[]).0) }
}

fn instance(instance: &Instance, breakers: &[Breaker]) -> String {
    let labels: Vec<_> = instance.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut facts = vec![
        ("Service", instance.service.clone()),
        ("Instance", instance.instance.clone()),
        ("Namespace", render::or_dash(&instance.namespace)),
        ("Zone", render::or_dash(&instance.zone)),
        ("Labels", render::or_dash(&labels.join(", "))),
        ("SDK", render::or_dash(&instance.sdk_version)),
        ("State", render::instance_state(instance).to_owned()),
        ("Revision", format!("{}, wanted {}", instance.applied_revision, instance.wanted_revision)),
        ("Policies from", render::or_dash(&instance.policy_source)),
        ("Connected for", span::cell(instance.connected_for.as_ref())),
        ("Silent for", span::cell(instance.last_seen.as_ref())),
    ];
    for one in &instance.rejected {
        facts.push(("Refused", format!("policy/{} rev {}: {}", one.policy, one.revision, one.reason)));
    }
    if instance.unshared_breakers > 0 {
        facts.push(("Not shared", format!("{} breakers: there are too many", instance.unshared_breakers)));
    }
    let rows: Vec<_> = breakers
        .iter()
        .filter(|breaker| breaker.key.as_ref().is_some_and(|key| key.caller == instance.service))
        .flat_map(|breaker| {
            let key = breaker.key.clone().unwrap_or_default();
            breaker.instances.iter().filter(|one| one.instance == instance.instance).map(move |one| {
                vec![
                    key.target.clone(),
                    key.policy.clone(),
                    render::local_word(one.local_state).to_owned(),
                    render::fleet_word(breaker.fleet_state).to_owned(),
                    one.window_calls.to_string(),
                    one.window_failures.to_string(),
                ]
            })
        })
        .collect();
    let header = ["TARGET", "POLICY", "LOCAL", "FLEET", "CALLS", "FAILURES"];
    let breakers = if rows.is_empty() { String::new() } else { indent(&output::columns(Some(&header), &rows, &[]).0) };
    let mut text = self::facts(&facts);
    section(&mut text, "Breakers", &breakers);
    let limits: Vec<_> = instance
        .limits
        .iter()
        .map(|one| {
            vec![
                one.target.clone(),
                one.policy.clone(),
                one.strategy.clone(),
                render::share(one),
                render::wanted(one),
                yes(one.acknowledged),
            ]
        })
        .collect();
    if !limits.is_empty() {
        let header = ["TARGET", "POLICY", "STRATEGY", "SHARE", "WANTS", "CONFIRMED"];
        section(&mut text, "Shares of limits", &indent(&output::columns(Some(&header), &limits, &[]).0));
    }
    text
}

/// `Name:  value` lines, aligned.
fn facts(facts: &[(&str, String)]) -> String {
    let rows: Vec<_> = facts.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]).collect();
    output::columns(None, &rows, &[]).0
}

fn section(text: &mut String, title: &str, body: &str) {
    let body = if body.is_empty() { "  none" } else { body };
    let _ = write!(text, "\n{title}:\n{}", body.trim_end());
}

fn table<T: Row>(items: &[T]) -> String {
    let rows: Vec<_> = items.iter().map(Row::cells).collect();
    if rows.is_empty() { String::new() } else { indent(&output::columns(Some(T::COLUMNS), &rows, &[]).0) }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use fusebox_proto::v1::{BreakerKey, FleetState, InstanceBreaker, LimitShare, LocalState, RejectedPolicy};

    use super::*;

    #[test]
    fn a_rollout_names_those_that_are_behind_and_those_that_refused() {
        let replica = |name: &str, applied_revision| Instance {
            instance: name.to_owned(),
            applied_revision,
            ..Instance::default()
        };
        let mut refusing = replica("a-3", 42);
        refusing.rejected =
            vec![RejectedPolicy { policy: "b".to_owned(), revision: 42, reason: "unknown kind".to_owned() }];
        let text = rollout(42, "b", &[replica("a-1", 42), replica("a-2", 41), refusing]);
        assert_eq!(text, "1 of 3 run rev 42; a-2 is at rev 41; a-3 refused it: unknown kind");
        assert_eq!(rollout(42, "b", &[]), "none connected");
    }

    #[test]
    fn an_instance_shows_its_part_in_each_breaker() {
        let one = Instance { service: "service-a".to_owned(), instance: "a-1".to_owned(), ..Instance::default() };
        let breaker = Breaker {
            key: Some(BreakerKey {
                caller: "service-a".to_owned(),
                target: "service-b".to_owned(),
                policy: "p".to_owned(),
                ..BreakerKey::default()
            }),
            fleet_state: FleetState::Open.into(),
            instances: vec![InstanceBreaker {
                instance: "a-1".to_owned(),
                local_state: LocalState::Closed.into(),
                ..InstanceBreaker::default()
            }],
            ..Breaker::default()
        };
        let text = instance(&one, &[breaker]);
        assert!(text.contains("State:          current"), "{text}");
        assert!(text.ends_with("  service-b  p       closed  open   0      0"), "{text}");
    }

    #[test]
    fn shares_of_limits_are_shown_by_policy_and_by_instance() {
        let limit = |ppm, wanted_per_second| LimitShare {
            policy: "p".to_owned(),
            strategy: "rate-limiter".to_owned(),
            target: "service-b".to_owned(),
            ppm,
            acknowledged: ppm > 0,
            wanted_per_second,
        };
        let replica = |name: &str, limits| Instance {
            service: "service-a".to_owned(),
            instance: name.to_owned(),
            limits,
            ..Instance::default()
        };
        let first = replica("a-1", vec![limit(890_000, Some(1200.0))]);
        let all = [first.clone(), replica("a-2", vec![limit(0, None)]), replica("a-3", vec![])];
        let by_policy = shares_of("p", &all);
        let lines: Vec<Vec<&str>> = by_policy.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["service-a", "a-1", "rate-limiter", "89.0%", "1200.0/s", "yes"]);
        assert_eq!(lines[2], ["service-a", "a-2", "rate-limiter", "none", "free", "yet", "-", "no"]);
        assert_eq!(lines.len(), 3);
        assert_eq!(shares_of("other", &all), "");
        let by_instance = instance(&first, &[]);
        assert!(by_instance.contains("Shares of limits:\n"), "{by_instance}");
        assert!(by_instance.ends_with("  service-b  p       rate-limiter  89.0%  1200.0/s  yes"), "{by_instance}");
        assert!(!instance(&all[2], &[]).contains("Shares"), "a fleet that shares no limit is not troubled with it");
    }
}
