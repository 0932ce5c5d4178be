//! Settings of the server, from flags and the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum, builder::FalseyValueParser};

/// Options of `fusebox serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Address to serve gRPC on; port 0 takes a free one
    #[arg(long, env = "FUSEBOX_LISTEN", default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Folder of the database; made if it is missing
    #[arg(long, env = "FUSEBOX_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep the database in a temporary folder that is removed at the end, whatever --data-dir says
    #[arg(long, env = "FUSEBOX_DEV", value_parser = FalseyValueParser::new())]
    pub dev: bool,
    /// Form of the log lines
    #[arg(long, env = "FUSEBOX_LOG_FORMAT", value_enum, default_value_t, value_name = "FORM")]
    pub log_format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
