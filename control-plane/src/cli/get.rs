//! `get`: lists, and with `-w` what changes in them.

use std::collections::BTreeMap;

use clap::Args;
use fusebox_proto::v1;
use futures_util::{Stream, StreamExt as _};
use serde_json::json;
use tonic::Status;

use super::{
    Session,
    failure::{Class, Failure},
    fetch,
    output::{self, Format, OutputArgs},
    recover,
    render::{self, Row},
    resource::{Kind, Wanted},
    selection::SelectionArgs,
};

/// Options of `get`.
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// policies, breakers, instances, services or rollouts, then names if not all are wanted; or TYPE/NAME
    #[arg(required = true, value_name = "TYPE [NAME]")]
    what: Vec<String>,
    /// Policies of every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Go on and print each change
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `get`.
pub(super) async fn get(session: &Session, args: GetArgs) -> Result<(), Failure> {
    let wanted = Wanted::parse(&args.what)?;
    if args.watch && args.output.format == Format::Yaml {
        return Err(Failure::new(Class::Usage, "changes cannot be printed as YAML").fix("use -o json"));
    }
    if !args.selection.is_empty() && !wanted.names.is_empty() {
        return Err(Failure::new(Class::Usage, "either names or a selection: both were given"));
    }
    let filter = args.selection.filter(wanted.kind)?;
    let server = session.server().await?;
    let output = args.output;
    match wanted.kind {
        Kind::Policies => {
            let namespace = if args.all_namespaces { "-" } else { session.namespace() };
            if args.watch {
                let parent = format!("namespaces/{namespace}");
                let request = v1::WatchPoliciesRequest { parent, filter, ..Default::default() };
                let stream = server.policies().watch_policies(request).await.map_err(Failure::to("watch policies"))?;
                let stream = stream.into_inner().map(|item| item.map(policy_change));
                let admits = |policy: &v1::Policy| {
                    wanted.names.is_empty()
                        || wanted.names.iter().any(|name| *name == policy.id() || *name == policy.name)
                };
                return follow(stream, admits, |one| &one.name, output).await;
            }
            match wanted.names.as_slice() {
                [] => show(&fetch::policies(&server, namespace, &filter).await?, output, "policies"),
                [name] => output::print(&render::one(&fetch::policy(&server, namespace, name).await?, output)?),
                names => {
                    let mut found = Vec::new();
                    for name in names {
                        found.push(fetch::policy(&server, namespace, name).await?);
                    }
                    show(&found, output, "policies")
                }
            }
        }
        Kind::Breakers => {
            let namespace = if args.all_namespaces { None } else { session.given_namespace() };
            if args.watch {
                let request = v1::WatchBreakersRequest {
                    namespace: namespace.unwrap_or_default().to_owned(),
                    filter,
                    ..Default::default()
                };
                let stream = server.breakers().watch_breakers(request).await.map_err(Failure::to("watch breakers"))?;
                let stream = stream.into_inner().map(|item| item.map(breaker_change));
                let admits = |breaker: &v1::Breaker| {
                    wanted.names.is_empty() || wanted.names.iter().any(|name| fetch::is_breaker(breaker, name))
                };
                return follow(stream, admits, |one| &one.name, output).await;
            }
            let all = fetch::breakers(&server, namespace, &filter).await?;
            show(&pick(all, &wanted.names, fetch::breakers_named)?, output, "breakers")
        }
        Kind::Instances => {
            let namespace = if args.all_namespaces { None } else { session.given_namespace() };
            if args.watch {
                let request = v1::WatchFleetRequest { filter, ..Default::default() };
                let stream = server.fleet().watch_fleet(request).await.map_err(Failure::to("watch instances"))?;
                let stream = stream.into_inner().map(|item| item.map(instance_change));
                let admits = |one: &v1::Instance| {
                    namespace.is_none_or(|wanted| one.namespace == wanted)
                        && (wanted.names.is_empty() || wanted.names.iter().any(|name| fetch::is_instance(one, name)))
                };
                return follow(stream, admits, |one| &one.name, output).await;
            }
            recover::warn_of_regression(&server).await?;
            let all = fetch::instances(&server, namespace, &filter).await?;
            let found = pick(all, &wanted.names, fetch::instances_named)?;
            match (wanted.names.len(), found.as_slice()) {
                (1, [only]) => output::print(&render::one(only, output)?),
                _ => show(&found, output, "instances"),
            }
        }
        Kind::Rollouts => {
            let namespace = if args.all_namespaces { "-" } else { session.namespace() };
            if args.watch {
                let request = v1::WatchRolloutsRequest { parent: format!("namespaces/{namespace}"), filter };
                let stream = server.rollouts().watch_rollouts(request).await.map_err(Failure::to("watch rollouts"))?;
                let stream = stream.into_inner().map(|item| item.map(rollout_change));
                let admits = |one: &v1::Rollout| {
                    wanted.names.is_empty() || wanted.names.iter().any(|name| fetch::is_rollout(one, name))
                };
                return follow(stream, admits, |one| &one.name, output).await;
            }
            let mut found = Vec::new();
            for name in &wanted.names {
                found.extend(fetch::rollouts_named(&server, session.namespace(), name).await?);
            }
            if wanted.names.is_empty() {
                found = fetch::rollouts(&server, namespace, None, &filter).await?;
            }
            show(&found, output, "rollouts")
        }
        Kind::Services => {
            if args.watch {
                return Err(Failure::new(Class::Usage, "services are sums over replicas: they cannot be watched")
                    .fix("watch the replicas: fusebox get instances -w"));
            }
            let all = fetch::services(&server, &filter).await?;
            let found = pick(all, &wanted.names, fetch::services_named)?;
            match (wanted.names.len(), found.as_slice()) {
                (1, [only]) => output::print(&render::one(only, output)?),
                _ => show(&found, output, "services"),
            }
        }
    }
}

fn pick<T>(all: Vec<T>, names: &[String], named: fn(&[T], &str) -> Result<Vec<T>, Failure>) -> Result<Vec<T>, Failure> {
    if names.is_empty() {
        return Ok(all);
    }
    let mut found = Vec::new();
    for name in names {
        found.extend(named(&all, name)?);
    }
    Ok(found)
}

/// Prints a list; for people, that it is empty is said on stderr.
pub(super) fn show<T: Row>(items: &[T], output: OutputArgs, plural: &str) -> Result<(), Failure> {
    let is_table = matches!(output.format, Format::Table | Format::Wide);
    if items.is_empty() && is_table && !output.quiet {
        output::say(&format!("no {plural} found"));
    }
    output::print(&render::many(items, output)?)
}

/// One step of a watch, of whichever kind.
enum Change<T> {
    Present(T),
    Gone(String),
    /// Everything present has been told.
    Synced,
    /// Nothing that this program knows.
    Unknown,
}

fn policy_change(item: v1::WatchPoliciesResponse) -> Change<v1::Policy> {
    use v1::watch_policies_response::Event;
    match item.event {
        Some(Event::Upserted(policy)) => Change::Present(policy),
        Some(Event::Deleted(name)) => Change::Gone(name),
        Some(Event::Bookmark(_)) => Change::Synced,
        None => Change::Unknown,
    }
}

fn breaker_change(item: v1::WatchBreakersResponse) -> Change<v1::Breaker> {
    use v1::watch_breakers_response::Event;
    match item.event {
        Some(Event::Upserted(breaker)) => Change::Present(breaker),
        Some(Event::Deleted(name)) => Change::Gone(name),
        Some(Event::Synced(_)) => Change::Synced,
        None => Change::Unknown,
    }
}

fn instance_change(item: v1::WatchFleetResponse) -> Change<v1::Instance> {
    use v1::watch_fleet_response::Event;
    match item.event {
        Some(Event::Upserted(instance)) => Change::Present(instance),
        Some(Event::Deleted(name)) => Change::Gone(name),
        Some(Event::Synced(_)) => Change::Synced,
        None => Change::Unknown,
    }
}

fn rollout_change(item: v1::WatchRolloutsResponse) -> Change<v1::Rollout> {
    use v1::watch_rollouts_response::Event;
    match item.event {
        Some(Event::Upserted(rollout)) => Change::Present(rollout),
        Some(Event::Deleted(name)) => Change::Gone(name),
        Some(Event::Synced(_)) => Change::Synced,
        None => Change::Unknown,
    }
}

/// Prints what is there, then each change, until the stream ends.
async fn follow<T: Row>(
    stream: impl Stream<Item = Result<Change<T>, Status>>,
    admits: impl Fn(&T) -> bool,
    name_of: fn(&T) -> &str,
    output: OutputArgs,
) -> Result<(), Failure> {
    let mut stream = std::pin::pin!(stream);
    let mut printer = Printer::new(output);
    // Names that were shown: a deletion carries nothing else to filter by.
    let mut shown = BTreeMap::new();
    while let Some(item) = stream.next().await {
        match item.map_err(Failure::to("go on watching"))? {
            Change::Present(item) if admits(&item) => {
                let news = if printer.is_for_people() { item.news() } else { None };
                let before = shown.insert(name_of(&item).to_owned(), (item.reference(), news.clone()));
                if news.is_none() || before.is_none_or(|(_, before)| before != news) {
                    printer.present(item)?;
                }
            }
            Change::Gone(name) => {
                if let Some((reference, _)) = shown.remove(&name) {
                    printer.gone(&name, &reference)?;
                }
            }
            Change::Synced => printer.synced()?,
            Change::Present(_) | Change::Unknown => {}
        }
    }
    Err(Failure::new(Class::Unavailable, "the control plane ended the stream").fix("run the command again"))
}

/// Prints a growing table, or one line of JSON per change.
struct Printer<T> {
    output: OutputArgs,
    /// The first rows, kept back so that the columns fit them all; none once they have been printed.
    first: Option<Vec<T>>,
    widths: Vec<u16>,
}

impl<T: Row> Printer<T> {
    const fn new(output: OutputArgs) -> Self {
        Self { output, first: Some(Vec::new()), widths: Vec::new() }
    }

    const fn is_for_people(&self) -> bool {
        self.output.quiet || !matches!(self.output.format, Format::Json | Format::Jsonl | Format::Yaml)
    }

    fn present(&mut self, item: T) -> Result<(), Failure> {
        if self.output.quiet {
            return output::print(&item.id());
        }
        match (self.output.format, &mut self.first) {
            (Format::Json | Format::Jsonl | Format::Yaml, _) => {
                output::print(&output::compact(&json!({ "event": "upserted", "item": item.value()? })))
            }
            (Format::Name, _) => output::print(&item.reference()),
            (Format::Table | Format::Wide, Some(first)) => {
                first.push(item);
                Ok(())
            }
            (Format::Table | Format::Wide, None) => {
                let (text, widths) = output::columns(None, &[render::cells(&item, self.output.format)], &self.widths);
                self.widths = widths;
                output::print(&text)
            }
        }
    }

    fn gone(&mut self, name: &str, reference: &str) -> Result<(), Failure> {
        match self.output.format {
            Format::Json | Format::Jsonl | Format::Yaml => {
                output::print(&output::compact(&json!({ "event": "deleted", "name": name })))
            }
            Format::Table | Format::Wide | Format::Name => {
                output::say(&format!("{reference} is gone"));
                Ok(())
            }
        }
    }

    fn synced(&mut self) -> Result<(), Failure> {
        let Some(first) = self.first.take() else { return Ok(()) };
        match self.output.format {
            Format::Json | Format::Jsonl | Format::Yaml => output::print(&json!({ "event": "synced" }).to_string()),
            Format::Table | Format::Wide if !self.output.quiet => {
                let headers = render::headers::<T>(self.output.format);
                let rows: Vec<_> = first.iter().map(|item| render::cells(item, self.output.format)).collect();
                let header = (!self.output.no_headers).then_some(headers.as_slice());
                let (text, widths) = output::columns(header, &rows, &[]);
                self.widths = widths;
                output::print(&text)
            }
            Format::Table | Format::Wide | Format::Name => Ok(()),
        }
    }
}
