//! `man`: the reference of the command line, as man pages or as one page of Markdown.

use std::{fmt::Write as _, fs, path::PathBuf};

use clap::{Args, Command, CommandFactory as _};

use super::{Cli, failure::Failure, output};

/// Options of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages; made if it is missing
    #[arg(required_unless_present = "markdown", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print the reference as one page of Markdown instead
    #[arg(long, conflicts_with = "folder")]
    markdown: bool,
}

/// Runs `man`.
pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let Some(folder) = &args.folder else { return output::print(&markdown()) };
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(plain(Cli::command()), folder)?;
    output::say(&format!("written to {0}; read them with: man -l {0}/fusebox.1", folder.display()));
    Ok(())
}

/// The whole reference.
fn markdown() -> String {
    let mut text = "# Command line\n\nEvery verb of `fusebox`, as `fusebox VERB --help` tells it. Written by `fusebox man --markdown`.\n".to_owned();
    let mut command = plain(Cli::command());
    command.build();
    section(&mut command, "fusebox", &mut text);
    text.trim_end().to_owned() + "\n"
}

/// The same wherever it is written: as wide as a page, and without what this environment sets.
fn plain(command: Command) -> Command {
    let verbs: Vec<_> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = command.term_width(100).mut_args(|arg| arg.hide_env_values(true));
    verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, plain))
}

fn section(command: &mut Command, name: &str, text: &mut String) {
    let help = command.render_long_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim());
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        let name = format!("{name} {}", verb.get_name());
        section(verb, &name, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_documentation_is_current() {
        let written = include_str!("../../docs/CLI.md");
        assert!(written == markdown(), "write it anew: fusebox man --markdown > control-plane/docs/CLI.md");
    }
}
