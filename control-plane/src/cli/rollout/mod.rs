//! `rollout`: a new revision to a part of the fleet first, then further, or back.

mod stage;
mod start;

use std::time::Duration;

use clap::{Args, Subcommand};
use fusebox_proto::v1::{self, RolloutState};
use tokio::time::{Instant, timeout_at};

pub use self::{stage::PaceArgs, start::StartArgs};
pub(super) use self::{
    stage::parse as parse_stage,
    start::{create, line, next_step, wait},
};
use super::{
    Session,
    apply::in_namespace,
    connect::{self, Server},
    failure::{Class, Failure},
    fetch, get,
    output::{self, Format, OutputArgs},
    render::{self, Row as _},
    resource::{Kind, Wanted},
    span,
};

/// What can be done with rollouts.
#[derive(Clone, Debug, Subcommand)]
pub enum RolloutCommand {
    /// Send a new revision of one policy to some replicas first
    #[command(
        after_help = "Stages come in the order of --stage; those of the other options in this one: instances, each zone, labels, each \
                      percentage. Then come all.\n\n\
                      Example:\n  fusebox rollout start -f policy.yaml --to-instance a-1 -m 'longer timeout'\n  \
                      fusebox rollout start -f policy.yaml --to-percent 10,50 --bake 10m --auto --abort-on-failure -m 'INC-7'\n  \
                      fusebox rollout start -f policy.yaml --stage zone=eu-1 --stage 25% -m 'longer timeout'"
    )]
    Start(StartArgs),
    /// Show the newest rollout of a policy: stage, replicas, gates, and what to do next
    #[command(after_help = "Example:\n  fusebox rollout status policy/service-b\n  \
                            fusebox rollout status policy/service-b -w --timeout 30m")]
    Status(StatusArgs),
    /// Go on to the next stage; after the last one, to everybody
    #[command(after_help = "Example:\n  fusebox rollout promote policy/service-b\n  \
                            fusebox rollout promote policy/service-b --force -m 'no traffic at night'")]
    Promote(PromoteArgs),
    /// Stop promotion; who has the candidate keeps it
    #[command(after_help = "Example:\n  fusebox rollout pause policy/service-b -m 'wait for the release of B'")]
    Pause(SteerArgs),
    /// Go on after a pause; the stage is watched anew
    #[command(after_help = "Example:\n  fusebox rollout resume policy/service-b -m 'B is out'")]
    Resume(SteerArgs),
    /// Give up: who has the candidate is sent what is in force, as a new revision
    #[command(after_help = "Example:\n  fusebox rollout abort policy/service-b -m 'a-1 times out'")]
    Abort(AbortArgs),
    /// List rollouts; the same as `get rollouts`
    #[command(after_help = "Example:\n  fusebox rollout list\n  fusebox rollout list policy/service-b -o wide")]
    List(RolloutListArgs),
}

/// Options of `rollout status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// policy NAME, or policy/NAME
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// Go on and show each change until it has ended: exit code 0 promoted, 1 aborted, 8 not in time
    #[arg(short, long)]
    watch: bool,
    /// How long to watch; without it, until it has ended
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", requires = "watch")]
    timeout: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `rollout promote`.
#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    /// policy NAME, or policy/NAME
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// Whatever the gates say, and out of a pause
    #[arg(long, requires = "message")]
    force: bool,
    /// Why, for the record
    #[arg(short, long)]
    message: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `rollout pause` and `rollout resume`.
#[derive(Clone, Debug, Args)]
pub struct SteerArgs {
    /// policy NAME, or policy/NAME
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// Why, for the record
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `rollout abort`.
#[derive(Clone, Debug, Args)]
pub struct AbortArgs {
    /// policy NAME, or policy/NAME
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// Why, for the history
    #[arg(short, long)]
    message: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `rollout list`.
#[derive(Clone, Debug, Args)]
pub struct RolloutListArgs {
    /// policy NAME, or policy/NAME; without it, those of all policies
    #[arg(value_name = "policy NAME")]
    what: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `rollout`.
pub(super) async fn rollout(session: &Session, command: RolloutCommand) -> Result<(), Failure> {
    match command {
        RolloutCommand::Start(args) => start::start(session, args).await,
        RolloutCommand::Status(args) => status(session, args).await,
        RolloutCommand::Promote(args) => promote(session, args).await,
        RolloutCommand::Pause(args) => {
            let SteerArgs { what, message: reason, output } = args;
            let (server, found) = find(session, &what).await?;
            let request_id = connect::request_id();
            let request =
                v1::PauseRolloutRequest { name: found.name.clone(), reason, request_id, validate_only: false };
            let answer = connect::write(async || server.rollouts().pause_rollout(request.clone()).await).await;
            changed(answer.map_err(Failure::to(doing("pause", &found)))?.into_inner(), "paused", output)
        }
        RolloutCommand::Resume(args) => {
            let SteerArgs { what, message: reason, output } = args;
            let (server, found) = find(session, &what).await?;
            let request_id = connect::request_id();
            let request =
                v1::ResumeRolloutRequest { name: found.name.clone(), reason, request_id, validate_only: false };
            let answer = connect::write(async || server.rollouts().resume_rollout(request.clone()).await).await;
            changed(answer.map_err(Failure::to(doing("resume", &found)))?.into_inner(), "goes on", output)
        }
        RolloutCommand::Abort(args) => {
            let AbortArgs { what, message: reason, output } = args;
            let (server, found) = find(session, &what).await?;
            let request_id = connect::request_id();
            let request =
                v1::AbortRolloutRequest { name: found.name.clone(), reason, request_id, validate_only: false };
            let answer = connect::write(async || server.rollouts().abort_rollout(request.clone()).await).await;
            changed(answer.map_err(Failure::to(doing("abort", &found)))?.into_inner(), "aborted", output)
        }
        RolloutCommand::List(RolloutListArgs { what, output }) => {
            let policy = if what.is_empty() { None } else { Some(Wanted::one(&what, &[Kind::Policies])?.1) };
            let server = session.server().await?;
            let namespace = session.namespace();
            let found = match &policy {
                Some(policy) => fetch::rollouts_named(&server, namespace, policy).await?,
                None => fetch::rollouts(&server, namespace, None, "").await?,
            };
            get::show(&found, output, "rollouts")
        }
    }
}

fn doing(verb: &str, rollout: &v1::Rollout) -> String {
    format!("{verb} the rollout of {}", render::label(&rollout.policy))
}

/// The newest rollout of a policy.
async fn find(session: &Session, what: &[String]) -> Result<(Server, v1::Rollout), Failure> {
    let (_, typed) = Wanted::one(what, &[Kind::Policies])?;
    let server = session.server().await?;
    let found = fetch::rollout(&server, session.namespace(), &typed).await?;
    Ok((server, found))
}

async fn promote(session: &Session, args: PromoteArgs) -> Result<(), Failure> {
    let PromoteArgs { what, force, message, output } = args;
    let (server, found) = find(session, &what).await?;
    let request_id = connect::request_id();
    let reason = message.unwrap_or_default();
    let request =
        v1::PromoteRolloutRequest { name: found.name.clone(), force, reason, request_id, validate_only: false };
    let answer = connect::write(async || server.rollouts().promote_rollout(request.clone()).await).await;
    changed(answer.map_err(Failure::to(doing("promote", &found)))?.into_inner(), "promoted", output)
}

/// Tells what a step has made of a rollout, and what comes next.
fn changed(rollout: v1::Rollout, verb: &str, output: OutputArgs) -> Result<(), Failure> {
    let label = render::label(&rollout.policy);
    let head = format!("{label} rollout of rev {} {verb}", rollout.candidate_revision);
    let stages = render::stages(&rollout);
    let (text, next) = match rollout.state() {
        RolloutState::Promoted => {
            (format!("{head}: it is in force for all"), format!("watch it land: fusebox wait {label} --for applied"))
        }
        RolloutState::Aborted => {
            let back = match rollout.stable_revision {
                0 => "nothing is in force".to_owned(),
                stable => format!("rev {stable} is in force for all"),
            };
            (format!("{head}: {back}"), format!("watch it land: fusebox wait {label} --for applied"))
        }
        RolloutState::Unspecified | RolloutState::Running | RolloutState::AwaitingPromotion | RolloutState::Paused => {
            let stage = rollout.stage as usize;
            let name = stages.get(stage.saturating_sub(1)).cloned().unwrap_or_default();
            (
                format!("{head}: stage {stage} of {}, {name}", stages.len()),
                format!("watch it: fusebox rollout status {label} -w"),
            )
        }
    };
    render::print_one(&rollout, output, &text)?;
    if output.format == Format::Table && !output.quiet {
        output::say(&format!("{next}{}", in_namespace(&rollout.policy)));
    }
    Ok(())
}

async fn status(session: &Session, args: StatusArgs) -> Result<(), Failure> {
    if args.watch && args.output.format == Format::Yaml {
        return Err(Failure::new(Class::Usage, "changes cannot be printed as YAML").fix("use -o json"));
    }
    let (server, found) = find(session, &args.what).await?;
    if !args.watch {
        return render::print_one(&found, args.output, &render::rollout_status(&found));
    }
    let end = args.timeout.map(|limit| Instant::now() + limit);
    let watching = follow(&server, &found, args.output);
    let last = match end {
        None => watching.await?,
        Some(end) => match timeout_at(end, watching).await {
            Ok(last) => last?,
            Err(_) => {
                let limit = span::short(args.timeout.unwrap_or_default());
                let what =
                    format!("gave up after {limit}: the rollout of {} has not ended", render::label(&found.policy));
                return Err(Failure::new(Class::TimedOut, what).fix("--timeout allows more time"));
            }
        },
    };
    if last.state() == RolloutState::Aborted {
        let what = format!("the rollout of {} was aborted: {}", render::label(&last.policy), last.reason);
        return Err(Failure::new(Class::Failed, what));
    }
    Ok(())
}

/// Shows each change; answers with how it ended.
async fn follow(server: &Server, found: &v1::Rollout, output: OutputArgs) -> Result<v1::Rollout, Failure> {
    let request = v1::WatchRolloutRequest { name: found.name.clone() };
    let what = || format!("watch the rollout of {}", render::label(&found.policy));
    let answer = server.rollouts().watch_rollout(request).await.map_err(Failure::to(what()))?;
    let mut events = answer.into_inner();
    let mut shown = None;
    let mut last = None;
    while let Some(event) = events.message().await.map_err(Failure::to(what()))? {
        let Some(rollout) = event.rollout else { continue };
        match output.format {
            Format::Json | Format::Jsonl => output::print(&output::compact(&rollout.value()?))?,
            Format::Table | Format::Wide if output::is_screen() => {
                output::print(&format!("\x1b[H\x1b[2J{}", render::rollout_status(&rollout)))?;
            }
            Format::Table | Format::Wide | Format::Yaml | Format::Name => {
                // Numbers that move with every call would fill a log.
                let news = render::rollout_news(&rollout);
                if shown.as_ref() != Some(&news) {
                    let gap = if shown.is_some() { "\n" } else { "" };
                    output::print(&format!("{gap}{}", render::rollout_status(&rollout)))?;
                    shown = Some(news);
                }
            }
        }
        last = Some(rollout);
    }
    last.ok_or_else(|| Failure::new(Class::Unavailable, "the server ended the stream"))
}
