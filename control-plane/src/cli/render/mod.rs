//! How each kind of thing looks in each form. Pure: from wire messages to text and JSON.
//!
//! The JSON forms are what users script against: keys are only ever added.

mod audit;
mod breaker;
mod instance;
mod over;
mod policy;
mod revision;
mod rollout;
mod service;
mod token;
mod transition;

pub(crate) use breaker::{evidence, fleet_word, fleet_words, instance as instance_breaker, local_word};
pub(crate) use instance::{share, state as instance_state, wanted};
pub(crate) use policy::{coloured, domain, id, label, namespace_of, unified};
pub(crate) use revision::action as revision_action;
pub(crate) use rollout::{
    in_progress as rollout_in_progress, news as rollout_news, selector, stages, state as rollout_state,
    status as rollout_status,
};
use serde_json::Value;
pub(crate) use service::counts;
pub(crate) use token::{role, role_word, token};

use super::{
    failure::Failure,
    output::{self, Format, OutputArgs},
};

/// Something that lists show.
pub(crate) trait Row {
    /// Headers of the table.
    const COLUMNS: &'static [&'static str];
    /// Headers that `-o wide` adds.
    const WIDE: &'static [&'static str];

    /// Cells of the table.
    fn cells(&self) -> Vec<String>;
    /// Cells that `-o wide` adds.
    fn wide_cells(&self) -> Vec<String>;
    /// What a watch for people prints a new line for, where that is not every change: numbers that move with every call would fill a log.
    fn news(&self) -> Option<Vec<String>> {
        None
    }
    /// Its name, as `-q` prints it and NAME arguments take it.
    fn id(&self) -> String;
    /// TYPE/NAME, as `-o name` prints it.
    fn reference(&self) -> String;
    /// Its JSON form.
    fn value(&self) -> Result<Value, Failure>;

    /// Its YAML form.
    fn yaml(&self) -> Result<String, Failure> {
        output::yaml(&self.value()?)
    }

    /// The YAML form of several.
    fn yaml_list(items: &[Self]) -> Result<String, Failure>
    where
        Self: Sized,
    {
        output::yaml(&output::list(values(items)?))
    }
}

fn values<T: Row>(items: &[T]) -> Result<Vec<Value>, Failure> {
    items.iter().map(Row::value).collect()
}

/// The headers of a table.
pub(crate) fn headers<T: Row>(format: Format) -> Vec<&'static str> {
    let mut headers = T::COLUMNS.to_vec();
    if format == Format::Wide {
        headers.extend(T::WIDE);
    }
    headers
}

/// The cells of one line of a table.
pub(crate) fn cells<T: Row>(item: &T, format: Format) -> Vec<String> {
    let mut cells = item.cells();
    if format == Format::Wide {
        cells.extend(item.wide_cells());
    }
    cells
}

/// Several things in the asked form; the empty table is the empty text.
pub(crate) fn many<T: Row>(items: &[T], output: OutputArgs) -> Result<String, Failure> {
    let lines = |line: fn(&T) -> String| items.iter().map(line).collect::<Vec<_>>().join("\n");
    if output.quiet {
        return Ok(lines(Row::id));
    }
    Ok(match output.format {
        Format::Table | Format::Wide if items.is_empty() => String::new(),
        Format::Table | Format::Wide => {
            let headers = headers::<T>(output.format);
            let rows: Vec<_> = items.iter().map(|item| cells(item, output.format)).collect();
            output::columns((!output.no_headers).then_some(headers.as_slice()), &rows, &[]).0
        }
        Format::Json => output::pretty(&output::list(values(items)?)),
        Format::Jsonl => values(items)?.iter().map(output::compact).collect::<Vec<_>>().join("\n"),
        Format::Yaml => T::yaml_list(items)?,
        Format::Name => lines(Row::reference),
    })
}

/// One thing that was asked for by its name.
pub(crate) fn one<T: Row>(item: &T, output: OutputArgs) -> Result<String, Failure> {
    match (output.quiet, output.format) {
        (false, Format::Json) => Ok(output::pretty(&item.value()?)),
        (false, Format::Yaml) => item.yaml(),
        _ => many(std::slice::from_ref(item), output),
    }
}

/// Prints what became of one thing: `text` for people, and for programs the thing itself.
pub(crate) fn print_one<T: Row>(item: &T, output: OutputArgs, text: &str) -> Result<(), Failure> {
    match (output.quiet, output.format) {
        (false, Format::Table | Format::Wide) => super::output::print(text),
        _ => super::output::print(&one(item, output)?),
    }
}

/// A dash for what is not there, as tables show it.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Null for what is not there, as JSON shows it.
pub(crate) fn or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
