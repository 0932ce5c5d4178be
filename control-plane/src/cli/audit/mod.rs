//! `audit`: who changed what. Lists it, checks that nobody changed the log itself, and writes it to a file that can be checked elsewhere.

mod export;
mod file;
mod verify;

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use fusebox_proto::v1::{self, AuditEvent};

pub use self::{export::AuditExportArgs, verify::AuditVerifyArgs};
use super::{
    Session,
    connect::Server,
    failure::Failure,
    fetch, get,
    output::OutputArgs,
    resource::{Kind, Wanted},
};

/// Few round trips; the server makes pages of large events smaller.
const PAGE: i32 = 500;

/// Options of `audit`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    /// Only what this actor did; "fleet" for what the fleet decided by itself
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this action, or all of a kind: policy.update, policy, override, fleet.verdict
    #[arg(long)]
    action: Option<String>,
    /// Only this object or those below it: policy/service-b, or a resource name such as namespaces/default
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// Only what is younger than this
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    since: Option<Duration>,
    /// Only what is older than this
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    until: Option<Duration>,
    /// Only what this filter admits, like 'reason = "*drill*" AND authentication = token'; an unknown field is answered with the known ones
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    /// At most this many, the newest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// What can be done with the whole log.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no record was changed, removed or added by another hand; names the first that is wrong
    #[command(after_help = "Example:\n  fusebox audit verify\n  fusebox audit verify -f audit.jsonl\n  \
                            fusebox audit verify --link 812:83825da33d6197efeaa6a06bd6942764f78164efd06af18e121beb7fb76129eb")]
    Verify(AuditVerifyArgs),
    /// Write the whole log to a file, one JSON object per line, oldest first
    #[command(after_help = "Example:\n  fusebox audit export -o audit.jsonl\n  fusebox audit verify -f audit.jsonl")]
    Export(AuditExportArgs),
}

/// Runs `audit`.
pub(super) async fn audit(session: &Session, args: AuditArgs) -> Result<(), Failure> {
    match args.command {
        Some(AuditCommand::Verify(args)) => return verify::verify(session, args).await,
        Some(AuditCommand::Export(args)) => return export::export(session, args).await,
        None => {}
    }
    let ago = |span: Option<Duration>| {
        span.map(|span| SystemTime::now().checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH).into())
    };
    let request = v1::ListAuditEventsRequest {
        actor: args.actor.unwrap_or_default(),
        action: args.action.unwrap_or_default(),
        object: args.object.map(|typed| object(session, typed)).unwrap_or_default(),
        start_time: ago(args.since),
        end_time: ago(args.until),
        page_size: PAGE,
        filter: args.filter,
        ..v1::ListAuditEventsRequest::default()
    };
    let server = session.server().await?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut events: Vec<AuditEvent> = Vec::new();
    pages(&server, request, |page| {
        events.extend(page.events);
        Ok(events.len() < limit)
    })
    .await?;
    events.truncate(limit);
    get::show(&events, args.output, "audit events")
}

/// A resource name as it is, and `policy/b` as the policy that it means elsewhere.
fn object(session: &Session, typed: String) -> String {
    match Wanted::parse(std::slice::from_ref(&typed)) {
        Ok(Wanted { kind: Kind::Policies, names }) if names.len() == 1 => {
            names.first().map_or(typed, |name| fetch::policy_name(session.namespace(), name))
        }
        Ok(_) | Err(_) => typed,
    }
}

/// Reads page after page, until there is no more or `take` has enough.
async fn pages(
    server: &Server,
    mut request: v1::ListAuditEventsRequest,
    mut take: impl FnMut(v1::ListAuditEventsResponse) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    loop {
        let page =
            server.audit().list_audit_events(request.clone()).await.map_err(Failure::to("read the audit log"))?;
        let page = page.into_inner();
        request.page_token.clone_from(&page.next_page_token);
        if !take(page)? || request.page_token.is_empty() {
            return Ok(());
        }
    }
}
