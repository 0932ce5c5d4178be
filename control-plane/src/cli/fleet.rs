//! `fleet` and `top`: who is connected and what they run, and what they do to calls at present.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use clap::Args;
use fusebox_proto::v1::{self, FleetState, Instance};
use serde_json::{Value, json};

use super::{
    Session,
    connect::Server,
    failure::Failure,
    fetch,
    output::{self, Format, OutputArgs},
    recover,
    render::{self, Row as _},
    resource::Kind,
    selection::SelectionArgs,
    span,
};

/// Options of `fleet`.
#[derive(Clone, Debug, Args)]
pub struct FleetArgs {
    /// Only this service
    service: Option<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// How often the table is drawn anew
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    interval: Duration,
    /// Print once and end, as where the output is no terminal
    #[arg(long)]
    once: bool,
    /// At most this many breakers
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `fleet`.
pub(super) async fn fleet(session: &Session, args: FleetArgs) -> Result<(), Failure> {
    let mut filter = args.selection.filter(Kind::Instances)?;
    let server = session.server().await?;
    if let Some(service) = &args.service {
        fetch::services_named(&fetch::services(&server, "").await?, service)?;
        let own = format!("service = \"{service}\"");
        filter = if filter.is_empty() { own } else { format!("{own} AND ({filter})") };
    }
    recover::warn_of_regression(&server).await?;
    let instances = fetch::instances(&server, session.given_namespace(), &filter).await?;
    if args.output.quiet || args.output.format == Format::Name {
        return output::print(&render::many(&instances, args.output)?);
    }
    let mut services: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
    for instance in &instances {
        services.entry(&instance.service).or_default().push(instance);
    }
    let values = services.iter().map(|(service, own)| value(service, own)).collect::<Result<_, _>>()?;
    if instances.is_empty() && matches!(args.output.format, Format::Table | Format::Wide) {
        output::say("no instances found");
    }
    let text: Vec<_> = services.iter().map(|(service, own)| section(service, own, args.output)).collect();
    output::print_value(args.output.format, &output::list(values), &text.join("\n\n"))
}

fn value(service: &str, instances: &[&Instance]) -> Result<Value, Failure> {
    let lag = |one: &Instance| one.wanted_revision.saturating_sub(one.applied_revision);
    let own: Result<Vec<Value>, Failure> = instances
        .iter()
        .map(|one| {
            let mut value = one.value()?;
            value["lag"] = lag(one).into();
            Ok(value)
        })
        .collect();
    Ok(json!({ "service": service, "instances": own? }))
}

fn section(service: &str, instances: &[&Instance], output: OutputArgs) -> String {
    let rows: Vec<_> = instances
        .iter()
        .map(|one| {
            let rejected: Vec<_> =
                one.rejected.iter().map(|own| format!("{}@{}: {}", own.policy, own.revision, own.reason)).collect();
            let lag = one.wanted_revision.saturating_sub(one.applied_revision);
            vec![
                one.instance.clone(),
                render::or_dash(&one.zone),
                render::or_dash(&one.sdk_version),
                one.applied_revision.to_string(),
                if lag == 0 { "-".to_owned() } else { format!("{lag} revisions") },
                render::or_dash(&one.policy_source),
                render::instance_state(one).to_owned(),
                span::cell(one.last_seen.as_ref()),
                render::or_dash(&rejected.join("; ")),
            ]
        })
        .collect();
    let header = ["INSTANCE", "ZONE", "SDK", "REV", "LAG", "SOURCE", "STATE", "SEEN", "REJECTED"];
    let current = instances.iter().filter(|one| render::instance_state(one) == "current").count();
    let title = format!("{service}: {current} of {} replicas run what they should", instances.len());
    format!("{title}\n{}", output::columns((!output.no_headers).then_some(&header), &rows, &[]).0)
}

/// Runs `top`.
pub(super) async fn top(session: &Session, args: TopArgs) -> Result<(), Failure> {
    let server = session.server().await?;
    let is_table = !args.output.quiet && matches!(args.output.format, Format::Table | Format::Wide);
    if args.once || !is_table || !std::io::stdout().is_terminal() {
        return screen(session, &server, &args).await?.print(args.output);
    }
    let mut ticks = tokio::time::interval(args.interval.max(Duration::from_millis(200)));
    loop {
        ticks.tick().await;
        let text = screen(session, &server, &args).await?.text(args.output)?;
        // To the top left, then away with what was below.
        output::print(&format!("\u{1b}[H\u{1b}[2J{text}"))?;
    }
}

/// What `top` shows.
struct Screen {
    revision: u64,
    services: Vec<v1::Service>,
    /// The first ones.
    breakers: Vec<v1::Breaker>,
    all: usize,
    restricted: usize,
}

async fn screen(session: &Session, server: &Server, args: &TopArgs) -> Result<Screen, Failure> {
    let services = fetch::services(server, "").await?;
    let mut breakers = fetch::breakers(server, session.given_namespace(), "").await?;
    let info = server.fleet().get_server_info(v1::GetServerInfoRequest {}).await;
    let info = info.map_err(Failure::to("ask for the server's revision"))?.into_inner();
    // What keeps calls away from their target comes first, then what has failed most.
    let rank = |one: &v1::Breaker| {
        let failures: u64 = one.instances.iter().map(|own| own.window_failures).sum();
        (one.fleet_state() != FleetState::Released, failures)
    };
    breakers.sort_by_key(|one| std::cmp::Reverse(rank(one)));
    let restricted = breakers.iter().filter(|one| one.fleet_state() != FleetState::Released).count();
    let all = breakers.len();
    breakers.truncate(args.limit);
    Ok(Screen { revision: info.revision, services, breakers, all, restricted })
}

impl Screen {
    fn text(&self, output: OutputArgs) -> Result<String, Failure> {
        let replicas: u32 = self.services.iter().map(|one| one.instances).sum();
        let mut text = format!(
            "rev {}, {replicas} replicas of {} services, {} breakers, {} restricted",
            self.revision,
            self.services.len(),
            self.all,
            self.restricted
        );
        for part in [render::many(&self.services, output)?, render::many(&self.breakers, output)?] {
            if !part.is_empty() {
                text.push_str(&format!("\n\n{part}"));
            }
        }
        let hidden = self.all.saturating_sub(self.breakers.len());
        if hidden > 0 {
            text.push_str(&format!("\nand {hidden} more"));
        }
        Ok(text)
    }

    fn print(&self, output: OutputArgs) -> Result<(), Failure> {
        if output.quiet || output.format == Format::Name {
            return output::print(&render::many(&self.breakers, output)?);
        }
        let value = json!({
            "revision": self.revision,
            "services": self.services.iter().map(render::Row::value).collect::<Result<Vec<_>, _>>()?,
            "breakers": self.breakers.iter().map(render::Row::value).collect::<Result<Vec<_>, _>>()?,
            "breakers_total": self.all,
            "restricted": self.restricted,
        });
        output::print_value(output.format, &value, &self.text(output)?)
    }
}
