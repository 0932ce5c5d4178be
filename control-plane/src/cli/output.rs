//! Where text goes and in which form: data on stdout, everything said to a person on stderr.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use comfy_table::{ColumnConstraint, Table, Width, presets};
use fusebox_proto::manifest::printable;
use serde_json::{Value, json};

use super::failure::Failure;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON; lists as {"items":[...],"nextPageToken":""}, streams as one object per line. Of policies it is what `apply` takes.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// YAML; of policies it is what `apply` takes.
    Yaml,
    /// One TYPE/NAME per line.
    Name,
}

/// The options of every command that prints data.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutputArgs {
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORM", hide_possible_values = true)]
    #[arg(help = "Form of the output: table, wide, json, jsonl, yaml or name")]
    pub format: Format,
    /// Print names only
    #[arg(short, long, conflicts_with = "format")]
    pub quiet: bool,
    /// Leave out the table's header line
    #[arg(long)]
    pub no_headers: bool,
}

impl OutputArgs {
    /// Prints `value` as JSON or YAML, or `text` for people, or names: `ids` with `-q`, `references` with `-o name`.
    pub(crate) fn print(self, value: &Value, text: &str, ids: &[String], references: &[String]) -> Result<(), Failure> {
        match (self.quiet, self.format) {
            (true, _) => print(&ids.join("\n")),
            (false, Format::Name) => print(&references.join("\n")),
            (false, format) => print_value(format, value, text),
        }
    }

    /// The header of a table, if it is wanted.
    pub(crate) fn header<'a>(self, header: &'a [&'a str]) -> Option<&'a [&'a str]> {
        (!self.no_headers).then_some(header)
    }
}

/// Writes data to stdout, with one line end.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", text.strip_suffix('\n').unwrap_or(text))?;
    out.flush()?;
    Ok(())
}

/// Tells a person something, on stderr. That nobody reads it is no failure.
pub(crate) fn say(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Whether a person sits at stdin and can be asked.
pub(crate) fn is_interactive() -> bool {
    use io::IsTerminal as _;
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether a person looks at stdout, which can be drawn anew.
pub(crate) fn is_screen() -> bool {
    use io::IsTerminal as _;
    io::stdout().is_terminal()
}

/// Columns without borders, as wide as their content and never narrower than `least`. Returns the widths too.
pub(crate) fn columns(header: Option<&[&str]>, rows: &[Vec<String>], least: &[u16]) -> (String, Vec<u16>) {
    const GAP: u16 = 2;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(header) = header {
        table.set_header(header.iter().copied());
    }
    for row in rows {
        // A line end inside a cell would break the rows of those who read them line by line.
        table.add_row(row.iter().map(|cell| cell.replace(['\n', '\r', '\t'], " ")));
    }
    let widths: Vec<u16> = table
        .column_max_content_widths()
        .into_iter()
        .enumerate()
        .map(|(index, width)| width.max(least.get(index).copied().unwrap_or(0)))
        .collect();
    for (column, width) in table.column_iter_mut().zip(&widths) {
        column.set_padding((0, GAP));
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + GAP)));
    }
    (table.trim_fmt(), widths)
}

/// The envelope of every list.
pub(crate) fn list(items: Vec<Value>) -> Value {
    json!({ "items": items, "nextPageToken": "" })
}

/// JSON for people.
pub(crate) fn pretty(value: &Value) -> String {
    printable(&format!("{value:#}"))
}

/// JSON in one line.
pub(crate) fn compact(value: &Value) -> String {
    printable(&value.to_string())
}

/// The same as YAML.
///
/// # Errors
/// Never for what this program renders; a bug otherwise.
pub(crate) fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map_err(|error| Failure::new(super::failure::Class::Failed, format!("cannot write this as YAML: {error}")))
}

/// One value as JSON or YAML, or `text` for people.
pub(crate) fn print_value(format: Format, value: &Value, text: &str) -> Result<(), Failure> {
    match format {
        Format::Json => print(&pretty(value)),
        Format::Jsonl => print(&compact(value)),
        Format::Yaml => print(&yaml(value)?),
        Format::Table | Format::Wide | Format::Name => print(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_borders_or_trailing_spaces() {
        let rows = [vec!["service-b".to_owned(), "x".to_owned()], vec!["a".to_owned(), "long\nvalue".to_owned()]];
        let (text, widths) = columns(Some(&["NAME", "WHAT"]), &rows, &[]);
        assert_eq!(text, "NAME       WHAT\nservice-b  x\na          long value");
        assert_eq!(widths, [9, 10]);
    }

    #[test]
    fn later_rows_keep_the_widths_of_the_first() {
        let (text, _) = columns(None, &[vec!["a".to_owned(), "b".to_owned()]], &[4, 1]);
        assert_eq!(text, "a     b");
    }
}
