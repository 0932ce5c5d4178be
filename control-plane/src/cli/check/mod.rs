//! `check`: is everything as it should be, seen from here? One line per item, what to do for each that is not well.

mod server;

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use clap::{Args, ValueEnum};
use fusebox_proto::v1;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;

use super::{
    Session,
    connect::Server,
    failure::{Class, Failure},
    fetch, output, recover, span,
};
use crate::access::certificate::Certificate;

/// When to see to a new certificate: somebody may have to be asked for it.
const TWO_WEEKS: Duration = Duration::from_secs(14 * 24 * 3600);
/// When it is too late to wait.
const LAST_DAY: Duration = Duration::from_secs(24 * 3600);
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
    // A certificate that has expired is why the server does not take the connection: told even then.
    let own = session.settings.cert.as_deref().map(client_certificate);
    let server = match session.server().await {
        Ok(server) => server,
        Err(failure) => {
            let fix = if failure.what.contains("Expired") {
                "renew the certificate: of the server, the files of --tls-cert and --tls-key, which it reads again by itself"
            } else {
                "start it with `fusebox serve`, or name another with --address"
            };
            return [failed("reachable", failure.what, fix)].into_iter().chain(own).collect();
        }
    };
    let mut items = vec![ok("reachable", format!("answers in {}", span::short(begun.elapsed())))];
    items.extend(own);
    let asked = SystemTime::now();
    match recover::info(&server).await {
        Ok(info) => items.extend(server::items(&info, asked)),
        Err(failure) => items.push(failed("server", failure.what, "look into its log")),
    }
    items.push(caller(&server).await);
    items.push(fleet(&server).await);
    items
}

/// How long a certificate still counts: soon to be renewed, or too late.
fn certificate(name: &'static str, expires: SystemTime, fix: &'static str) -> Item {
    let until = humantime::format_rfc3339_seconds(expires);
    match expires.duration_since(SystemTime::now()) {
        Err(_) => failed(name, format!("expired on {until}"), fix),
        Ok(left) if left < LAST_DAY => failed(name, format!("expires in {}, on {until}", span::short(left)), fix),
        Ok(left) if left < TWO_WEEKS => warning(name, format!("expires in {}, on {until}", span::short(left)), fix),
        Ok(left) => ok(name, format!("counts for {} more, until {until}", span::short(left))),
    }
}

/// The certificate that this program shows.
fn client_certificate(path: &Path) -> Item {
    const NAME: &str = "client certificate";
    let read = CertificateDer::from_pem_file(path).map_err(|error| error.to_string());
    match read.and_then(|der| Certificate::read(&der).map_err(|error| error.to_string())) {
        Ok(found) => {
            certificate(NAME, found.expires, "get a new one, and put it where --cert and --key, or the context, say")
        }
        Err(why) => failed(NAME, format!("{}: {why}", path.display()), "give a certificate in PEM with --cert"),
    }
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
