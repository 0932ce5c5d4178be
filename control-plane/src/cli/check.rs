//! `check`: is everything as it should be, seen from here? One line per item, what to do for each that is not well.

use std::time::{Duration, Instant, SystemTime};

use clap::{Args, ValueEnum};
use fusebox_proto::v1;
use serde_json::json;

use super::{
    Session,
    connect::Server,
    failure::{Class, Failure},
    fetch, output, recover, span,
};

/// How far clocks may be apart: overrides end by the server's.
const CLOCKS: Duration = Duration::from_secs(5);

/// When to see to a new credential.
const SOON: Duration = Duration::from_secs(3 * 24 * 3600);

/// Form of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// Every item.
    #[default]
    Table,
    /// What is not well only.
    Short,
    /// For programs.
    Json,
}

/// Options of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Form of the output: table, short or json
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORM", hide_possible_values = true)]
    output: CheckFormat,
    /// Print only the names of what is not as it should be
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
}

/// How an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

struct Item {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    fix: Option<&'static str>,
}

fn ok(name: &'static str, detail: String) -> Item {
    Item { name, verdict: Verdict::Ok, detail, fix: None }
}

fn warning(name: &'static str, detail: String, fix: &'static str) -> Item {
    Item { name, verdict: Verdict::Warning, detail, fix: Some(fix) }
}

fn failed(name: &'static str, detail: String, fix: &'static str) -> Item {
    Item { name, verdict: Verdict::Failed, detail, fix: Some(fix) }
}

/// Runs `check`.
pub(super) async fn check(session: &Session, args: CheckArgs) -> Result<(), Failure> {
    let items = items(session).await;
    let text = |all: bool| {
        let shown = items.iter().filter(|item| all || item.verdict != Verdict::Ok);
        let line = |item: &Item| {
            let fix = item.fix.map(|fix| format!("\n         {fix}")).unwrap_or_default();
            format!("{:7}  {}: {}{fix}", item.verdict.name(), item.name, item.detail)
        };
        shown.map(line).collect::<Vec<_>>().join("\n")
    };
    match args.output {
        CheckFormat::Table if args.quiet => {
            let names = items.iter().filter(|item| item.verdict != Verdict::Ok).map(|item| item.name);
            output::print(&names.collect::<Vec<_>>().join("\n"))?;
        }
        CheckFormat::Table => output::print(&text(true))?,
        CheckFormat::Short => output::print(&text(false))?,
        CheckFormat::Json => {
            let value = |item: &Item| json!({ "name": item.name, "verdict": item.verdict.name(), "detail": item.detail, "fix": item.fix });
            output::print(&output::pretty(&output::list(items.iter().map(value).collect())))?;
        }
    }
    let bad = items.iter().filter(|item| item.verdict == Verdict::Failed).count();
    if bad == 0 { Ok(()) } else { Err(Failure::new(Class::Failed, format!("{bad} of {} checks failed", items.len()))) }
}

async fn items(session: &Session) -> Vec<Item> {
    let begun = Instant::now();
    let server = match session.server().await {
        Ok(server) => server,
        Err(failure) => {
            return vec![failed(
                "reachable",
                failure.what,
                "start it with `fusebox serve`, or name another with --address",
            )];
        }
    };
    let mut items = vec![ok("reachable", format!("answers in {}", span::short(begun.elapsed())))];
    let asked = SystemTime::now();
    match recover::info(&server).await {
        Ok(info) => items.extend(of_server(&info, asked)),
        Err(failure) => items.push(failed("server", failure.what, "look into its log")),
    }
    items.push(caller(&server).await);
    items.push(fleet(&server).await);
    items
}

fn of_server(info: &v1::ServerInfo, asked: SystemTime) -> Vec<Item> {
    let own = env!("CARGO_PKG_VERSION");
    let mut items = Vec::new();
    items.push(if info.version == own {
        ok("version", format!("both are {own}"))
    } else {
        let detail = format!("this program is {own}, the server {}", info.version);
        warning("version", detail, "use the program of the server's version")
    });
    if let Some(time) = span::point(info.time.as_ref()) {
        let apart = time.duration_since(asked).unwrap_or_else(|behind| behind.duration());
        items.push(if apart <= CLOCKS {
            ok("clocks", format!("{} apart", span::short(apart)))
        } else {
            let detail = format!("the server's clock is {} away from the one here", span::short(apart));
            warning("clocks", detail, "synchronise both: overrides and tokens end by the server's clock")
        });
    }
    items.push(match recover::regression(info) {
        None => ok("store", format!("{} at rev {}, term {}", info.store_id, info.revision, info.term)),
        Some(told) => failed("store", told, "`fusebox recover` tells what to do"),
    });
    if info.alarms.is_empty() {
        items.push(ok("database", "no alarm".to_owned()));
    }
    for alarm in &info.alarms {
        let detail = format!("{}, for {}", alarm.message, span::ago(alarm.since.as_ref()));
        items.push(failed("database", detail, "control-plane/docs/operate.md tells what to do"));
    }
    items
}

/// Whom the server takes this program for, and for how long.
async fn caller(server: &Server) -> Item {
    const NAME: &str = "access";
    let known = match server.admin().who_am_i(v1::WhoAmIRequest {}).await {
        Ok(known) => known.into_inner(),
        Err(status) => {
            return failed(NAME, Failure::to("ask who this is")(status).what, "`fusebox whoami` tells more");
        }
    };
    let left =
        span::point(known.expire_time.as_ref()).map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    match left {
        _ if known.method == "none" => ok(NAME, "the server asks nobody who they are".to_owned()),
        Some(left) if left < SOON => {
            let detail = format!("known as {}, for {} more", known.name, span::short(left));
            warning(NAME, detail, "get another credential: `fusebox token create`")
        }
        Some(_) | None => ok(NAME, format!("known as {} by {}", known.name, known.method)),
    }
}

/// Whether every replica runs what it should.
async fn fleet(server: &Server) -> Item {
    const NAME: &str = "replicas";
    const LOOK: &str = "`fusebox get instances -o wide` shows them";
    let all = match fetch::instances(server, None, "").await {
        Ok(all) => all,
        Err(failure) => return failed(NAME, failure.what, "look into the server's log"),
    };
    let rejecting = all.iter().filter(|one| !one.rejected.is_empty()).count();
    let behind = all.iter().filter(|one| one.applied_revision != one.wanted_revision).count();
    if rejecting > 0 {
        return failed(NAME, format!("{rejecting} of {} refused a policy", all.len()), LOOK);
    }
    if behind > 0 {
        return warning(NAME, format!("{behind} of {} run another revision than they should", all.len()), LOOK);
    }
    ok(NAME, format!("{} connected, all run what they should", all.len()))
}
