//! `apply`, `diff` and `validate`: manifests against what the server has.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use fusebox_policy::pipeline::worst_case_attempts;
use fusebox_proto::{manifest, v1};
use serde_json::{Value, json};
use v1::{applied_policy::Action, rollout_stage::Selector};

use super::{
    Session,
    connect::{self, Server},
    failure::{Class, Failure},
    fetch,
    manifests::{FileArgs, Manifests},
    output::{self, Format, OutputArgs},
    render,
    rollout::{self, PaceArgs},
    wait,
};

/// Options of `apply`.
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Check and compare on the server, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Only if the stored policy still has this etag; for one of several policies as NAME=ETAG; may be repeated
    #[arg(long, value_name = "ETAG")]
    if_match: Vec<String>,
    /// Also delete the policies of the namespace that have the labels of --selector and are not in the files
    #[arg(long, requires = "pruned")]
    prune: bool,
    /// With --prune: labels of the policies that may be deleted, as KEY=VALUE joined by commas
    #[arg(short = 'l', long, requires = "prune", group = "pruned", value_name = "LABELS")]
    selector: Option<String>,
    /// With --prune: every policy of the namespace may be deleted
    #[arg(long, requires = "prune", group = "pruned")]
    all: bool,
    /// Begin a rollout with this stage: N%, zone=ZONE, instance=NAME,... or label=KEY=VALUE,...; may be repeated, in the order of the stages
    #[arg(long, value_parser = rollout::parse_stage, group = "stages", conflicts_with = "prune")]
    stage: Vec<Selector>,
    #[command(flatten)]
    pace: PaceArgs,
    /// Wait until every replica runs it; with --stage, every one of the first stage; with --auto, until it is in force for all
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Print only the names of policies that differ
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Do not ask the server: what it alone knows, like policies that compete for the same calls, goes unchecked
    #[arg(long)]
    offline: bool,
    /// Show what apply would change, as `diff` does: exit code 1 if anything
    #[arg(long, conflicts_with = "offline")]
    diff: bool,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

impl ValidateArgs {
    /// Whether differences are asked for.
    pub(super) const fn is_diff(&self) -> bool {
        self.diff
    }
}

/// Runs `apply`.
pub(super) async fn apply(session: &Session, args: ApplyArgs) -> Result<(), Failure> {
    let manifests = Manifests::read(&args.files, session.given_namespace())?;
    let mut policies = manifests.to_wire();
    guard(&mut policies, &args.if_match)?;
    let server = session.server().await?;
    if !args.stage.is_empty() {
        return staged(&server, &manifests, policies, args).await;
    }
    let prune = args.prune.then(|| pruned(session, args.selector.as_deref())).transpose()?;
    let results = send(&server, &manifests, policies, args.dry_run, &args.message, prune).await?;

    let lines: Vec<_> = results.iter().map(|result| line(result, args.dry_run)).collect();
    let text = match (args.output.quiet, args.output.format) {
        (true, _) => names(&results, render::id),
        (false, Format::Name) => names(&results, |name| name),
        (false, Format::Table | Format::Wide | Format::Json | Format::Jsonl | Format::Yaml) => lines.join("\n"),
    };
    let value = output::list(results.iter().map(value).collect());
    let format = if args.output.quiet { Format::Name } else { args.output.format };
    output::print_value(format, &value, &text)?;

    let changed: Vec<_> = results.iter().filter(|one| one.action() != Action::Unchanged).collect();
    if args.wait {
        for policy in results.iter().filter_map(|result| result.policy.as_ref()) {
            wait::applied(&server, policy, args.timeout, 0).await?;
        }
    } else if let ([only], false, Format::Table) = (changed.as_slice(), args.dry_run, format) {
        let name = &subject(only).name;
        if only.action() == Action::Deleted {
            output::say(&format!("to have it back: fusebox undo {}{}", render::label(name), in_namespace(name)));
            return Ok(());
        }
        output::say(&format!(
            "watch it land: fusebox wait {} --for applied{}",
            render::label(name),
            in_namespace(name)
        ));
    }
    Ok(())
}

/// Brings the one policy of the files to the first stage.
async fn staged(
    server: &Server,
    manifests: &Manifests,
    policies: Vec<v1::Policy>,
    args: ApplyArgs,
) -> Result<(), Failure> {
    let ApplyArgs { stage, pace, dry_run, message, output, wait, timeout, .. } = args;
    let name = policies.first().map(|policy| policy.name.clone()).unwrap_or_default();
    let created = rollout::create(server, manifests, policies, pace.spec(stage), message, dry_run).await;
    let (begun, action, text) = match created {
        Ok(begun) => {
            let text = rollout::line(&begun, dry_run);
            (begun, "staged", text)
        }
        // As without stages: to apply what is there is to do nothing.
        Err(failure) if failure.reason.as_deref() == Some("NOTHING_TO_ROLL_OUT") => {
            let present = fetch::policy(server, "", &name).await?;
            let text = format!("{} unchanged (rev {})", render::label(&name), present.revision);
            let candidate_revision = present.revision;
            (v1::Rollout { policy: name, candidate_revision, ..v1::Rollout::default() }, "unchanged", text)
        }
        Err(failure) => return Err(failure),
    };
    let known = |revision: u64| (revision != 0).then_some(revision);
    let item = json!({
        "name": render::id(&begun.policy),
        "namespace": render::namespace_of(&begun.policy),
        "action": action,
        "previous_revision": known(begun.stable_revision),
        "revision": begun.candidate_revision,
        "rollout": render::or_null(&begun.name),
    });
    let text = match (output.quiet, output.format) {
        (true, _) => render::id(&begun.policy).to_owned(),
        (false, Format::Name) => render::label(&begun.policy),
        (false, Format::Table | Format::Wide | Format::Json | Format::Jsonl | Format::Yaml) => text,
    };
    let format = if output.quiet { Format::Name } else { output.format };
    output::print_value(format, &output::list(vec![item]), &text)?;
    if begun.name.is_empty() || dry_run {
        return Ok(());
    }
    if format == Format::Table && !wait {
        rollout::next_step(&begun);
    }
    if wait { rollout::wait(server, &begun, timeout, pace.auto).await } else { Ok(()) }
}

/// Runs `diff`.
pub(super) async fn diff(session: &Session, args: DiffArgs) -> Result<(), Failure> {
    let manifests = Manifests::read(&args.files, session.given_namespace())?;
    let server = session.server().await?;
    let results = send(&server, &manifests, manifests.to_wire(), true, "", None).await?;
    let mut different = Vec::new();
    for result in results.iter().filter(|result| result.action() != Action::Unchanged) {
        let policy = result.policy.as_ref().ok_or_else(incomplete)?;
        let after = manifest::to_yaml(&render::domain(policy)?);
        let before = result.previous.as_ref().map(render::domain).transpose()?.map(|policy| manifest::to_yaml(&policy));
        let label = render::label(&policy.name);
        if args.quiet {
            output::print(&label)?;
        } else {
            let revision = result.previous.as_ref().map_or(0, |previous| previous.revision);
            let old_name = format!("{label} (live, rev {revision})");
            let new_name = format!("{label} (file)");
            let text = render::unified(before.as_deref(), Some(&after), &old_name, &new_name);
            output::print(&render::coloured(&text))?;
        }
        different.push((policy, result.previous.as_ref()));
    }
    if different.is_empty() {
        return Ok(());
    }
    if !args.quiet {
        let instances = fetch::instances(&server, None, "").await?;
        for (policy, previous) in &different {
            output::say(&format!("{}{}", impact(policy, &instances), load(policy, *previous)?));
        }
        output::say(&format!(
            "{}: to apply exactly this: {}",
            count(different.len()),
            command(&args.files, &different)
        ));
    }
    Err(Failure::new(Class::Differs, "the files and the server differ"))
}

/// Runs `validate`.
pub(super) async fn validate(session: &Session, args: ValidateArgs) -> Result<(), Failure> {
    if args.diff {
        return diff(session, DiffArgs { files: args.files, quiet: args.quiet }).await;
    }
    let manifests = Manifests::read(&args.files, session.given_namespace())?;
    if !args.offline {
        let server = session.server().await.map_err(|mut failure| {
            if failure.class == Class::Unavailable {
                failure.fix = Some("--offline checks the files without a server".to_owned());
            }
            failure
        })?;
        send(&server, &manifests, manifests.to_wire(), true, "", None).await?;
    }
    let say = |name: &str| if args.quiet { name.to_owned() } else { format!("policy/{name} valid") };
    let lines: Vec<_> = manifests.written.iter().map(|written| say(written.policy.name.as_str())).collect();
    output::print(&lines.join("\n"))
}

async fn send(
    server: &Server,
    manifests: &Manifests,
    policies: Vec<v1::Policy>,
    validate_only: bool,
    message: &str,
    prune: Option<v1::Prune>,
) -> Result<Vec<v1::AppliedPolicy>, Failure> {
    let sent = policies.len();
    let message = message.to_owned();
    let request_id = connect::request_id();
    let request = v1::ApplyPoliciesRequest { policies, validate_only, message, request_id, prune };
    let doing = if validate_only { "check the policies" } else { "apply the policies" };
    let answer = connect::write(async || server.policies().apply_policies(request.clone()).await).await;
    let results = answer.map_err(|status| manifests.place(Failure::to(doing)(status)))?.into_inner().results;
    // Those that were pruned come after those that were sent.
    if results.len() >= sent { Ok(results) } else { Err(incomplete()) }
}

/// Sets the etags that the stored policies must have.
fn guard(policies: &mut [v1::Policy], if_match: &[String]) -> Result<(), Failure> {
    for given in if_match {
        let named = given.split_once('=').and_then(|(name, etag)| {
            policies.iter().position(|policy| render::id(&policy.name) == name).map(|index| (index, etag))
        });
        let (index, etag) = match named {
            Some(named) => named,
            None if policies.len() == 1 => (0, given.as_str()),
            None => {
                return Err(Failure::new(Class::Usage, format!("--if-match {given} does not say for which policy"))
                    .fix("with several policies, give NAME=ETAG for each; `fusebox diff` prints them"));
            }
        };
        etag.clone_into(&mut policies[index].etag);
    }
    Ok(())
}

/// Which policies may be deleted.
fn pruned(session: &Session, selector: Option<&str>) -> Result<v1::Prune, Failure> {
    let mut labels = BTreeMap::new();
    for part in selector.into_iter().flat_map(|selector| selector.split(',')) {
        let (key, value) = part.split_once('=').filter(|(key, _)| !key.ends_with('!')).ok_or_else(|| {
            Failure::new(Class::Usage, format!("\"{part}\" does not say which policies may be deleted"))
                .fix("give --selector KEY=VALUE, joined by commas: only policies with all of these labels are deleted")
        })?;
        labels.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(v1::Prune { parent: format!("namespaces/{}", session.namespace()), labels })
}

/// The policy as it is; of one that was deleted, as it was.
fn subject(result: &v1::AppliedPolicy) -> v1::Policy {
    result.policy.clone().or_else(|| result.previous.clone()).unwrap_or_default()
}

/// `policy/service-b configured (rev 41 → 42)`.
fn line(result: &v1::AppliedPolicy, dry_run: bool) -> String {
    let policy = subject(result);
    let before = result.previous.as_ref().map_or(0, |previous| previous.revision);
    let (verb, revisions) = match result.action() {
        Action::Created if dry_run => ("would be created", String::new()),
        Action::Created => ("created", format!(" (rev {})", policy.revision)),
        Action::Configured if dry_run => ("would be configured", format!(" (now rev {before})")),
        Action::Configured => ("configured", format!(" (rev {before} → {})", policy.revision)),
        Action::Unchanged => ("unchanged", format!(" (rev {})", policy.revision)),
        Action::Deleted if dry_run => ("would be deleted", format!(" (now rev {before})")),
        Action::Deleted => ("deleted", String::new()),
        Action::Unspecified => ("answered with an unknown action", String::new()),
    };
    format!("{} {verb}{revisions}{}", render::label(&policy.name), in_namespace(&policy.name))
}

fn value(result: &v1::AppliedPolicy) -> Value {
    let policy = subject(result);
    json!({
        "name": render::id(&policy.name),
        "namespace": render::namespace_of(&policy.name),
        "action": match result.action() {
            Action::Created => "created",
            Action::Configured => "configured",
            Action::Unchanged => "unchanged",
            Action::Deleted => "deleted",
            Action::Unspecified => "unknown",
        },
        "previous_revision": result.previous.as_ref().map(|previous| previous.revision),
        "revision": policy.revision,
        "etag": policy.etag,
    })
}

fn names(results: &[v1::AppliedPolicy], short: fn(&str) -> &str) -> String {
    let name = |result: &v1::AppliedPolicy| {
        let full = subject(result).name;
        let id = short(&full);
        if id == full { render::label(&full) } else { id.to_owned() }
    };
    results.iter().map(name).collect::<Vec<_>>().join("\n")
}

/// ` -n NAMESPACE`, unless it is the one that needs no naming.
pub(super) fn in_namespace(name: &str) -> String {
    match render::namespace_of(name) {
        "default" => String::new(),
        other => format!(" -n {other}"),
    }
}

/// Whom a change would reach.
fn impact(policy: &v1::Policy, instances: &[v1::Instance]) -> String {
    let namespace = render::namespace_of(&policy.name);
    let reached: Vec<_> =
        instances.iter().filter(|one| one.namespace == namespace && wait::concerns(policy, one)).collect();
    let mut services: Vec<_> = reached.iter().map(|one| one.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    let label = render::label(&policy.name);
    match reached.len() {
        0 => format!("{label} reaches no connected replica"),
        1 => format!("{label} reaches 1 connected replica of {}", services.join(", ")),
        many => format!("{label} reaches {many} connected replicas of {}", services.join(", ")),
    }
}

/// What a change does to the load on the target: `; worst-case attempts of one call 3 -> 9`.
fn load(policy: &v1::Policy, previous: Option<&v1::Policy>) -> Result<String, Failure> {
    let attempts = |policy: &v1::Policy| -> Result<String, Failure> {
        let worst = worst_case_attempts(&render::domain(policy)?.definition.pipeline);
        Ok(worst.map_or_else(|| "without limit".to_owned(), |worst| worst.to_string()))
    };
    let after = attempts(policy)?;
    Ok(match previous.map(attempts).transpose()? {
        Some(before) if before != after => format!("; worst-case attempts of one call {before} -> {after}"),
        Some(_) | None => format!("; worst-case attempts of one call {after}"),
    })
}

fn count(policies: usize) -> String {
    if policies == 1 { "1 policy differs".to_owned() } else { format!("{policies} policies differ") }
}

fn command(files: &FileArgs, different: &[(&v1::Policy, Option<&v1::Policy>)]) -> String {
    let mut text = "fusebox apply".to_owned();
    for file in &files.files {
        text.push_str(&format!(" -f {}", file.display()));
    }
    if files.recursive {
        text.push_str(" -R");
    }
    for (policy, previous) in different {
        if let Some(previous) = previous {
            text.push_str(&format!(" --if-match '{}={}'", render::id(&policy.name), previous.etag));
        }
    }
    text
}

fn incomplete() -> Failure {
    Failure::new(Class::Failed, "the server's answer is incomplete")
        .fix("it is probably of another version: compare `fusebox version --server`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(id: &str, revision: u64) -> v1::Policy {
        v1::Policy { name: format!("namespaces/default/policies/{id}"), revision, ..v1::Policy::default() }
    }

    #[test]
    fn a_write_tells_old_and_new_revision() {
        let result = |action: Action, before: Option<u64>, after| v1::AppliedPolicy {
            action: action.into(),
            policy: Some(policy("service-b", after)),
            previous: before.map(|revision| policy("service-b", revision)),
        };
        let configured = result(Action::Configured, Some(41), 42);
        assert_eq!(line(&configured, false), "policy/service-b configured (rev 41 → 42)");
        assert_eq!(line(&configured, true), "policy/service-b would be configured (now rev 41)");
        assert_eq!(line(&result(Action::Created, None, 1), false), "policy/service-b created (rev 1)");
        assert_eq!(line(&result(Action::Unchanged, Some(7), 7), false), "policy/service-b unchanged (rev 7)");
    }

    #[test]
    fn the_impact_counts_replicas_of_the_callers_in_its_namespace() {
        let replica = |namespace: &str, service: &str| v1::Instance {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            ..v1::Instance::default()
        };
        let instances = [replica("default", "a"), replica("default", "b"), replica("other", "a")];
        assert_eq!(impact(&policy("p", 0), &instances), "policy/p reaches 2 connected replicas of a, b");
        let selector = v1::Selector { caller: "a".to_owned(), ..v1::Selector::default() };
        let spec = v1::PolicySpec { r#match: Some(selector), ..v1::PolicySpec::default() };
        let narrow = v1::Policy { spec: Some(spec), ..policy("p", 0) };
        assert_eq!(impact(&narrow, &instances), "policy/p reaches 1 connected replica of a");
    }

    #[test]
    fn an_etag_needs_its_policy_when_there_are_several() {
        let mut one = [policy("a", 0)];
        guard(&mut one, &["x=1".to_owned()]).unwrap();
        assert_eq!(one[0].etag, "x=1");
        let mut two = [policy("a", 0), policy("b", 0)];
        guard(&mut two, &["b=2".to_owned()]).unwrap();
        assert_eq!((two[0].etag.as_str(), two[1].etag.as_str()), ("", "2"));
        assert_eq!(guard(&mut two, &["2".to_owned()]).unwrap_err().class, Class::Usage);
    }
}
