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
    if args.once || !std::io::stdout().is_terminal() {
        return output::print(&screen(session, &server, args.limit).await?);
    }
    let mut ticks = tokio::time::interval(args.interval.max(Duration::from_millis(200)));
    loop {
        ticks.tick().await;
        let text = screen(session, &server, args.limit).await?;
        // To the top left, then away with what was below.
        output::print(&format!("\u{1b}[H\u{1b}[2J{text}"))?;
    }
}

async fn screen(session: &Session, server: &Server, limit: usize) -> Result<String, Failure> {
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
    let hidden = breakers.len().saturating_sub(limit);
    breakers.truncate(limit);
    let replicas: u32 = services.iter().map(|one| one.instances).sum();
    let table = OutputArgs::default();
    let mut text = format!(
        "rev {}, {replicas} replicas of {} services, {} breakers, {restricted} restricted",
        info.revision,
        services.len(),
        breakers.len() + hidden
    );
    for part in [render::many(&services, table)?, render::many(&breakers, table)?] {
        if !part.is_empty() {
            text.push_str(&format!("\n\n{part}"));
        }
    }
    if hidden > 0 {
        text.push_str(&format!("\nand {hidden} more"));
    }
    Ok(text)
}
