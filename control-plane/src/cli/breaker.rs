//! `breaker`: the levers. Forcing needs a reason and an end; both are told back.

use std::time::Duration;

use clap::{Args, Subcommand};
use fusebox_proto::v1::{self, BreakerKey, FleetState, Override};

use super::{
    Session, connect,
    describe::{self, DescribeNamedArgs},
    failure::{Class, Failure},
    fetch, get,
    output::{self, Format, OutputArgs},
    render,
    resource::Kind,
    span,
};

/// What can be done with breakers.
#[derive(Clone, Debug, Subcommand)]
pub enum BreakerCommand {
    /// List breakers; the same as `get breakers`
    #[command(after_help = "Example:\n  fusebox breaker list -o wide")]
    List(ListArgs),
    /// Show everything about the breakers of a target; the same as `describe breaker`
    #[command(after_help = "Example:\n  fusebox breaker show service-b\n  fusebox breaker show service-b -o json")]
    Show(DescribeNamedArgs),
    /// List the overrides in force
    #[command(after_help = "Example:\n  fusebox breaker overrides")]
    Overrides(OutputArgs),
    /// Refuse all calls to a target, whatever the automation says
    #[command(
        after_help = "Example:\n  fusebox breaker force-open service-b --for 15m --reason 'maintenance of B'\n  \
                            fusebox breaker force-open service-b --service service-a --for 1h --reason 'INC-7' --dry-run"
    )]
    ForceOpen(ForceArgs),
    /// Let all calls to a target pass, whatever the automation says
    #[command(
        visible_alias = "force-close",
        after_help = "Example:\n  fusebox breaker force-closed service-b --for 10m --reason 'false alarm'"
    )]
    ForceClosed(ForceArgs),
    /// Let all calls to a target pass and count none: its breakers stand still, and take part in no decision of the fleet
    ///
    /// Under force-closed each replica goes on counting the calls that its own breaker would have let pass, and a breaker that has tripped
    /// meanwhile is open when the override ends. A disabled one goes on where it was. A replica whose SDK is too old to know this is not
    /// told of it and goes on as before; the answer names it.
    #[command(
        after_help = "Example:\n  fusebox breaker disable service-b --for 30m --reason 'load test, B is meant to fail'\n  \
                            fusebox breaker release service-b --reason 'load test is over'"
    )]
    Disable(ForceArgs),
    /// End an override: the automation decides again
    #[command(after_help = "Example:\n  fusebox breaker release service-b --reason 'maintenance is over'")]
    Release(ReleaseArgs),
}

/// Options of `breaker list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only this target
    target: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which breakers; what is left out matches everything.
#[derive(Clone, Debug, Args)]
struct Selector {
    /// The service that is called
    target: String,
    /// Only calls from this service
    #[arg(long, value_name = "CALLER", default_value = "", hide_default_value = true)]
    service: String,
    /// Only breakers of this policy
    #[arg(long, default_value = "", hide_default_value = true)]
    policy: String,
    /// Only the strategy of this name in the policy's pipeline
    #[arg(long, default_value = "", hide_default_value = true)]
    strategy: String,
    /// Only this zone
    #[arg(long, default_value = "", hide_default_value = true)]
    zone: String,
}

/// Options of `breaker force-open`, `force-closed` and `disable`.
#[derive(Clone, Debug, Args)]
pub struct ForceArgs {
    #[command(flatten)]
    selector: Selector,
    /// How long, at most 7 days: an override always ends by itself
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "TIME")]
    duration: Duration,
    /// Why; kept with the override
    #[arg(long)]
    reason: String,
    /// Only if the override with this very selector still has this etag (`get overrides -o json` shows it); 0: only if there is none
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only tell which replicas it would concern
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `breaker release`.
#[derive(Clone, Debug, Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    selector: Selector,
    /// Why; kept in the log
    #[arg(long)]
    reason: String,
    /// Only if the override still has this etag (`get overrides -o json` shows it)
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only tell which overrides it would end
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Selector {
    fn key(self, session: &Session) -> BreakerKey {
        let target = self.target.strip_prefix("breaker/").map_or(self.target.clone(), str::to_owned);
        BreakerKey {
            namespace: session.given_namespace().unwrap_or_default().to_owned(),
            caller: self.service,
            policy: self.policy,
            strategy: self.strategy,
            target,
            zone: self.zone,
        }
    }
}

/// Runs `breaker`.
pub(super) async fn breaker(session: &Session, command: BreakerCommand) -> Result<(), Failure> {
    match command {
        BreakerCommand::List(args) => {
            let server = session.server().await?;
            let all = fetch::breakers(&server, session.given_namespace(), "").await?;
            let found = match &args.target {
                Some(target) => fetch::breakers_named(&all, target)?,
                None => all,
            };
            get::show(&found, args.output, "breakers")
        }
        BreakerCommand::Show(args) => describe::named(session, Kind::Breakers, args).await,
        BreakerCommand::Overrides(output) => {
            let server = session.server().await?;
            get::show(&fetch::overrides(&server, "").await?, output, "overrides")
        }
        BreakerCommand::ForceOpen(args) => force(session, args, FleetState::ForcedOpen).await,
        BreakerCommand::ForceClosed(args) => force(session, args, FleetState::ForcedClosed).await,
        BreakerCommand::Disable(args) => force(session, args, FleetState::Disabled).await,
        BreakerCommand::Release(args) => release(session, args).await,
    }
}

async fn force(session: &Session, args: ForceArgs, state: FleetState) -> Result<(), Failure> {
    let selector = args.selector.key(session);
    let duration = prost_types::Duration::try_from(args.duration)
        .map_err(|_| Failure::new(Class::Usage, "--for is too long: at most 7d"))?;
    let target = selector.target.clone();
    let request = v1::ForceBreakerRequest {
        selector: Some(selector),
        state: state.into(),
        reason: args.reason,
        duration: Some(duration),
        validate_only: args.dry_run,
        request_id: connect::request_id(),
        etag: args.if_match.unwrap_or_default(),
    };
    let server = session.server().await?;
    let word = connect::write(async || server.breakers().force_breaker(request.clone()).await)
        .await
        .map_err(Failure::to(format!("force the breakers for {target}")))?
        .into_inner();
    let text = sentence(&word, args.dry_run);
    render::print_one(&word, args.output, &text)?;
    if !args.dry_run && args.output.format == Format::Table {
        let condition = match state {
            FleetState::ForcedOpen => "open",
            FleetState::Disabled => "disabled",
            FleetState::ForcedClosed
            | FleetState::Released
            | FleetState::Open
            | FleetState::HalfOpen
            | FleetState::Ramp
            | FleetState::Unspecified => "closed",
        };
        output::say(&format!(
            "watch it land: fusebox wait breaker/{target} --for {condition}; \
             end it early: fusebox breaker release {target} --reason ..."
        ));
    }
    Ok(())
}

/// `breaker/service-b forced open for 15m (override 3): 2 of 3 replicas have confirmed, a-3 has not yet`.
fn sentence(word: &Override, dry_run: bool) -> String {
    let key = word.selector.clone().unwrap_or_default();
    let state = done(word);
    let mut parts = Vec::new();
    for (name, value) in [
        ("namespace", &key.namespace),
        ("caller", &key.caller),
        ("policy", &key.policy),
        ("strategy", &key.strategy),
        ("zone", &key.zone),
    ] {
        if !value.is_empty() {
            parts.push(format!("{name} {value}"));
        }
    }
    let scope = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    let length = span::cell(word.remaining.as_ref());
    let all = word.acknowledged as usize + word.unacknowledged.len();
    if dry_run {
        let names = if word.unacknowledged.is_empty() {
            String::new()
        } else {
            format!(": {}", word.unacknowledged.join(", "))
        };
        return format!(
            "breaker/{}{scope} would be {state} for {length}; {all} connected replicas hold a matching breaker{names}{}",
            key.target,
            unsupported(word, "would go on as before")
        );
    }
    let confirmed = match all {
        0 => "no connected replica holds a matching breaker yet".to_owned(),
        all => format!("{} of {all} replicas have confirmed", word.acknowledged),
    };
    let unsupported = unsupported(word, "go on as before");
    format!("breaker/{}{scope} {state} for {length} (override {}); {confirmed}{unsupported}", key.target, word.id)
}

/// What an override does, as a participle.
fn done(word: &Override) -> &'static str {
    match word.state() {
        FleetState::ForcedOpen => "forced open",
        FleetState::ForcedClosed => "forced closed",
        FleetState::Disabled => "disabled",
        FleetState::Released | FleetState::Open | FleetState::HalfOpen | FleetState::Ramp | FleetState::Unspecified => {
            "overridden"
        }
    }
}

/// The replicas that can't be told of it.
fn unsupported(word: &Override, consequence: &str) -> String {
    match word.unsupported.as_slice() {
        [] => String::new(),
        names => format!("; the SDK of these is too old to know it, they {consequence}: {}", names.join(", ")),
    }
}

async fn release(session: &Session, args: ReleaseArgs) -> Result<(), Failure> {
    let selector = args.selector.key(session);
    let target = selector.target.clone();
    let request = v1::ReleaseBreakerRequest {
        selector: Some(selector),
        reason: args.reason,
        request_id: connect::request_id(),
        validate_only: args.dry_run,
        etag: args.if_match.unwrap_or_default(),
    };
    let server = session.server().await?;
    let answer =
        connect::write(async || server.breakers().release_breaker(request.clone()).await).await.map_err(|status| {
            let failure = Failure::to(format!("release the breakers for {target}"))(status);
            if failure.class == Class::NotFound {
                failure.fix("an override ends by the parts it was made with: `fusebox breaker overrides` lists them")
            } else {
                failure
            }
        })?;
    let released = answer.into_inner().released;
    if args.output.quiet || !matches!(args.output.format, Format::Table | Format::Wide) {
        return output::print(&render::many(&released, args.output)?);
    }
    let ended = if args.dry_run { "would be released" } else { "released" };
    for word in &released {
        let was = done(word);
        let left = span::cell(word.remaining.as_ref());
        output::print(&format!("breaker/{target} {ended} (override {}: {was}, {left} were left)", word.id))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_told_with_its_scope_end_and_confirmations() {
        let word = Override {
            selector: Some(BreakerKey {
                target: "service-b".to_owned(),
                caller: "service-a".to_owned(),
                ..BreakerKey::default()
            }),
            state: FleetState::ForcedOpen.into(),
            remaining: Some(prost_types::Duration { seconds: 900, nanos: 0 }),
            id: 3,
            acknowledged: 2,
            unacknowledged: vec!["a-3".to_owned()],
            ..Override::default()
        };
        assert_eq!(
            sentence(&word, false),
            "breaker/service-b (caller service-a) forced open for 15m (override 3); 2 of 3 replicas have confirmed"
        );
        assert!(sentence(&word, true).contains("would be forced open for 15m; 3 connected replicas"));
    }

    #[test]
    fn replicas_that_can_not_do_what_is_asked_are_named() {
        let word = Override {
            selector: Some(BreakerKey { target: "service-b".to_owned(), ..BreakerKey::default() }),
            state: FleetState::Disabled.into(),
            remaining: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            id: 4,
            acknowledged: 2,
            unacknowledged: vec!["a-3".to_owned()],
            unsupported: vec!["a-3".to_owned()],
            ..Override::default()
        };
        assert_eq!(
            sentence(&word, false),
            "breaker/service-b disabled for 1m (override 4); 2 of 3 replicas have confirmed; \
             the SDK of these is too old to know it, they go on as before: a-3"
        );
    }
}
