//! Log lines of the services, and words to a person.

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// Sends log lines to stderr. `RUST_LOG` filters.
pub fn install(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("log lines go where they went before");
    }
}

/// Says something to the person at the terminal, on stderr.
#[expect(clippy::print_stderr, reason = "this is where the services speak to people")]
pub fn say(words: &str) {
    eprintln!("{words}");
}

/// Tells a line of the story, on stdout.
#[expect(clippy::print_stdout, reason = "the story is what the program is for")]
pub fn tell(words: &str) {
    println!("{words}");
}
