//! `rollout start`, and what `apply --stage` shares with it.

use std::time::Duration;

use clap::Args;
use fusebox_proto::v1::{self, RolloutState, rollout_stage::Selector};
use tokio::time::{Instant, timeout_at};

use super::stage::{self, PaceArgs};
use crate::cli::{
    Session,
    apply::in_namespace,
    connect::{self, Server},
    failure::{Class, Failure},
    fetch,
    manifests::{FileArgs, Manifests},
    output::{self, Format, OutputArgs},
    render, span,
};

/// Options of `rollout start`.
#[derive(Clone, Debug, Args)]
#[group(id = "stages", required = true, multiple = true, args = ["stage", "to_instance", "to_zone", "to_label", "to_percent"])]
pub struct StartArgs {
    #[command(flatten)]
    files: FileArgs,
    /// A stage: N%, zone=ZONE, instance=NAME,... or label=KEY=VALUE,...; may be repeated, in the order of the stages
    #[arg(long, value_parser = stage::parse, conflicts_with_all = ["to_instance", "to_zone", "to_label", "to_percent"])]
    stage: Vec<Selector>,
    /// A stage: the replicas of these names
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    to_instance: Vec<String>,
    /// A stage: the replicas of this zone; more zones make more stages
    #[arg(long, value_name = "ZONE", value_delimiter = ',')]
    to_zone: Vec<String>,
    /// A stage: the replicas that have these labels, all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = stage::label)]
    to_label: Vec<(String, String)>,
    /// A stage: so many of a hundred replicas, the same ones for the whole rollout; more percentages make more stages
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=99))]
    to_percent: Vec<u32>,
    #[command(flatten)]
    pace: PaceArgs,
    /// Only if the stored policy still has this etag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Check only; start nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(short, long)]
    message: String,
    #[command(flatten)]
    output: OutputArgs,
}

fn stages(args: &StartArgs) -> Vec<Selector> {
    let instances = (!args.to_instance.is_empty())
        .then(|| Selector::Instances(v1::InstanceSelector { instances: args.to_instance.clone() }));
    let zones = args.to_zone.iter().map(|zone| Selector::Zone(zone.clone()));
    let labels = (!args.to_label.is_empty())
        .then(|| Selector::Labels(v1::LabelSelector { labels: args.to_label.iter().cloned().collect() }));
    let percents = args.to_percent.iter().map(|percent| Selector::Percent(*percent));
    args.stage.iter().cloned().chain(instances).chain(zones).chain(labels).chain(percents).collect()
}

/// Runs `rollout start`.
pub(super) async fn start(session: &Session, args: StartArgs) -> Result<(), Failure> {
    let manifests = Manifests::read(&args.files, session.given_namespace())?;
    let mut policies = manifests.to_wire();
    for policy in &mut policies {
        policy.etag = args.if_match.clone().unwrap_or_default();
    }
    let spec = args.pace.spec(stages(&args));
    let server = session.server().await?;
    let started = create(&server, &manifests, policies, spec, args.message, args.dry_run).await?;
    render::print_one(&started, args.output, &line(&started, args.dry_run))?;
    if !args.dry_run && args.output.format == Format::Table && !args.output.quiet {
        next_step(&started);
    }
    Ok(())
}

/// Begins the rollout of the one policy of some files.
///
/// # Errors
/// Several policies; what the server says, with the place in the file.
pub(in crate::cli) async fn create(
    server: &Server,
    manifests: &Manifests,
    mut policies: Vec<v1::Policy>,
    spec: v1::RolloutSpec,
    message: String,
    dry_run: bool,
) -> Result<v1::Rollout, Failure> {
    let (Some(policy), true) = (policies.pop(), policies.is_empty()) else {
        return Err(Failure::new(Class::Usage, "the files hold several policies; a rollout is of one")
            .fix("begin a rollout for each, or apply them without stages"));
    };
    let label = render::label(&policy.name);
    let request = v1::CreateRolloutRequest {
        policy: Some(policy),
        spec: Some(spec),
        message,
        validate_only: dry_run,
        request_id: connect::request_id(),
    };
    let answer = connect::write(async || server.rollouts().create_rollout(request.clone()).await).await;
    let started = answer.map_err(Failure::to(format!("start a rollout of {label}"))).map_err(|failure| {
        // What is wrong with the options has no place in the file.
        let of_options = failure.fields.iter().any(|field| field.path.starts_with("rollout"));
        if of_options { failure } else { manifests.place(failure) }
    })?;
    let started = started.into_inner();
    if dry_run {
        return Ok(started);
    }
    // How many it reaches is known only now that it has begun.
    Ok(fetch::rollout_named(server, &started.name).await.unwrap_or(started))
}

/// What has begun, in a line.
pub(in crate::cli) fn line(begun: &v1::Rollout, dry_run: bool) -> String {
    let label = render::label(&begun.policy);
    if dry_run {
        return format!(
            "{label} would be rolled out as rev {}{}",
            begun.candidate_revision,
            in_namespace(&begun.policy)
        );
    }
    let progress = begun.progress.clone().unwrap_or_default();
    let first = begun.spec.as_ref().and_then(|spec| spec.stages.first());
    format!(
        "{label} rollout of rev {} started ({}): stage 1 of {}, {}; {} of {} connected replicas selected",
        begun.candidate_revision,
        in_force(begun),
        render::stages(begun).len(),
        first.map(render::selector).unwrap_or_default(),
        progress.selected.len(),
        progress.connected,
    )
}

/// Says how to go on.
pub(in crate::cli) fn next_step(begun: &v1::Rollout) {
    if begun.progress.as_ref().is_none_or(|progress| progress.selected.is_empty()) {
        output::say("no connected replica is selected yet: nothing is tried, and nothing is promoted, until one is");
    }
    let label = render::label(&begun.policy);
    output::say(&format!("watch it: fusebox rollout status {label} -w{}", in_namespace(&begun.policy)));
}

fn in_force(rollout: &v1::Rollout) -> String {
    match rollout.stable_revision {
        0 => "nothing was in force".to_owned(),
        stable => format!("rev {stable} is in force"),
    }
}

/// Waits until every replica of the present stage runs the candidate; with `to_the_end`, until it is in force for all.
///
/// # Errors
/// A replica that refuses it, a rollout that was paused or aborted, or the time is over.
pub(in crate::cli) async fn wait(
    server: &Server,
    begun: &v1::Rollout,
    limit: Duration,
    to_the_end: bool,
) -> Result<(), Failure> {
    let label = render::label(&begun.policy);
    let what = || format!("watch the rollout of {label}");
    let request = v1::WatchRolloutRequest { name: begun.name.clone() };
    let mut events = server.rollouts().watch_rollout(request).await.map_err(Failure::to(what()))?.into_inner();
    let end = Instant::now() + limit;
    let mut missing = "nothing is known of its replicas yet".to_owned();
    loop {
        let Ok(event) = timeout_at(end, events.message()).await else {
            let what = format!("gave up after {}: {missing}", span::short(limit));
            let fix = format!("the rollout goes on: fusebox rollout status {label}{}", in_namespace(&begun.policy));
            return Err(Failure::new(Class::TimedOut, what).fix(fix));
        };
        let Some(event) = event.map_err(Failure::to(what()))? else {
            return Err(Failure::new(Class::Unavailable, "the server ended the stream"));
        };
        match event.rollout.as_ref().map(|rollout| progress(rollout, to_the_end)) {
            Some(Ok(note)) => {
                output::say(&note);
                return Ok(());
            }
            Some(Err(Hold::Waiting(why))) => missing = why,
            Some(Err(Hold::Failed(failure))) => return Err(failure),
            None => {}
        }
    }
}

/// Why a wait is not over.
enum Hold {
    Waiting(String),
    Failed(Failure),
}

fn progress(rollout: &v1::Rollout, to_the_end: bool) -> Result<String, Hold> {
    let label = render::label(&rollout.policy);
    let stopped = |how: &str| {
        let what = format!("the rollout of {label} was {how}: {}", rollout.reason);
        let fix = format!("see why: fusebox rollout status {label}{}", in_namespace(&rollout.policy));
        Err(Hold::Failed(Failure::new(Class::Failed, what).fix(fix)))
    };
    match rollout.state() {
        RolloutState::Promoted => return Ok(format!("{label} rev {} is in force for all", rollout.candidate_revision)),
        RolloutState::Aborted => return stopped("aborted"),
        RolloutState::Paused => return stopped("paused"),
        RolloutState::Running | RolloutState::AwaitingPromotion | RolloutState::Unspecified => {}
    }
    let known = rollout.progress.clone().unwrap_or_default();
    if let Some(refused) = known.rejected.first() {
        let what = format!("{} refused {label}: {}", refused.instance, refused.reason);
        return Err(Hold::Failed(
            Failure::new(Class::Failed, what).fix(format!("fusebox rollout abort {label} -m '...'")),
        ));
    }
    let (run, selected) = (known.acknowledged.len(), known.selected.len());
    let stage = format!("stage {} of {}", rollout.stage, render::stages(rollout).len());
    if to_the_end || run < selected || selected == 0 {
        return Err(Hold::Waiting(format!("{label} is in {stage}, run by {run} of {selected} selected replicas")));
    }
    Ok(format!("{label} rev {} runs on all {selected} selected replicas of {stage}", rollout.candidate_revision))
}
