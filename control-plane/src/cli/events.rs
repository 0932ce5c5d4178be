//! `events`: transitions of breakers, past and as they happen.

use std::time::{Duration, SystemTime};

use clap::Args;
use fusebox_proto::v1::{self, BreakerTransition};

use super::{
    Session,
    connect::Server,
    failure::{Class, Failure},
    fetch::{self, Transitions},
    get,
    output::{self, Format, OutputArgs},
    render::{self, Row as _},
};

/// Options of `events`.
#[derive(Clone, Debug, Args)]
pub struct EventsArgs {
    /// Go on and print events as they happen
    #[arg(short, long)]
    follow: bool,
    /// Only events of this target
    #[arg(long)]
    target: Option<String>,
    /// Only events of this calling service
    #[arg(long, value_name = "CALLER")]
    service: Option<String>,
    /// Only events that are younger than this
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    since: Option<Duration>,
    /// At most this many past events, the newest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000), value_name = "N")]
    limit: u32,
    /// With --follow: begin after the event of this id, as -o json tells it, instead of with --limit past ones
    #[arg(long, requires = "follow", default_value_t = 0, hide_default_value = true, value_name = "ID")]
    after: u64,
    /// Only those that this filter admits, like 'fleet = true AND to = open'; an unknown field is answered with the known ones
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `events`.
pub(super) async fn events(session: &Session, args: EventsArgs) -> Result<(), Failure> {
    if args.follow && args.output.format == Format::Yaml {
        return Err(Failure::new(Class::Usage, "a stream cannot be printed as YAML").fix("use -o json"));
    }
    let wanted = Transitions {
        target: args.target.unwrap_or_default(),
        caller: args.service.unwrap_or_default(),
        namespace: session.given_namespace().map(str::to_owned),
        policy: None,
        since: args.since.map(|since| SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH)),
        filter: args.filter,
        limit: args.limit as usize,
    };
    let server = session.server().await?;
    if args.follow {
        follow(&server, &wanted, args.limit, args.after, args.output).await
    } else {
        get::show(&fetch::transitions(&server, &wanted).await?, args.output, "events")
    }
}

async fn follow(
    server: &Server,
    wanted: &Transitions,
    past: u32,
    after: u64,
    output: OutputArgs,
) -> Result<(), Failure> {
    let request = v1::WatchBreakerTransitionsRequest {
        target: wanted.target.clone(),
        caller: wanted.caller.clone(),
        past,
        filter: wanted.filter.clone(),
        after_id: after,
    };
    let mut stream = server
        .breakers()
        .watch_breaker_transitions(request)
        .await
        .map_err(Failure::to("follow the events"))?
        .into_inner();
    let mut lines = Lines::new(output);
    while let Some(event) = stream.message().await.map_err(Failure::to("go on following the events"))? {
        if wanted.admits(&event) {
            output::print(&lines.next(&event)?)?;
        }
    }
    Err(Failure::new(Class::Unavailable, "the control plane ended the stream").fix("run the command again"))
}

/// Rows of one table, printed one at a time.
struct Lines {
    output: OutputArgs,
    widths: Vec<u16>,
    is_first: bool,
}

/// Widths that most names fit in, so that the first rows do not jump.
const LEAST: [u16; 8] = [24, 12, 12, 12, 9, 9, 20, 0];

impl Lines {
    fn new(output: OutputArgs) -> Self {
        Self { output, widths: LEAST.to_vec(), is_first: true }
    }

    fn next(&mut self, event: &BreakerTransition) -> Result<String, Failure> {
        match self.output.format {
            _ if self.output.quiet => Ok(event.id()),
            Format::Json | Format::Jsonl | Format::Yaml => Ok(output::compact(&event.value()?)),
            Format::Name => Ok(event.reference()),
            Format::Table | Format::Wide => {
                let headers = render::headers::<BreakerTransition>(self.output.format);
                let wants_header = self.is_first && !self.output.no_headers;
                self.is_first = false;
                let rows = [render::cells(event, self.output.format)];
                let (text, widths) = output::columns(wants_header.then_some(headers.as_slice()), &rows, &self.widths);
                self.widths = widths;
                Ok(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followed_event_is_one_line_of_json() {
        let output = OutputArgs { format: Format::Json, ..OutputArgs::default() };
        let event = BreakerTransition { id: 7, from: "closed".to_owned(), to: "open".to_owned(), ..Default::default() };
        let line = Lines::new(output).next(&event).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!((&value["id"], &value["to"], &value["scope"]), (&7.into(), &"open".into(), &"fleet".into()));
    }

    #[test]
    fn only_the_first_followed_event_has_a_header() {
        let mut lines = Lines::new(OutputArgs::default());
        let event = BreakerTransition { instance: "a-1".to_owned(), ..Default::default() };
        let (first, second) = (lines.next(&event).unwrap(), lines.next(&event).unwrap());
        assert_eq!((first.lines().count(), second.lines().count()), (2, 1));
        assert_eq!(first.lines().nth(1), Some(second.as_str()));
    }
}
