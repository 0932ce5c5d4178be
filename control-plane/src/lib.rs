//! The Fusebox control plane, and the operator's command line.
//!
//! [`serve`] wires a server together; [`cli`] is everything an operator types. The services in [`grpc`] call use cases
//! ([`policies`], [`fleet`]), which keep their state in a [`store`] and show it through the [`hub`]; [`sessions`] talk to the SDKs.
//! Connections come through [`tls`], and every request passes the gate of [`access`].

pub mod access;
pub mod backups;
pub mod caller;
pub mod cli;
pub mod condition;
pub mod config;
mod filter;
pub mod fleet;
pub mod grpc;
pub mod hub;
pub mod metrics;
mod nearest;
mod opening;
pub mod policies;
pub mod recovery;
pub mod retention;
pub mod rollouts;
pub mod serve;
pub mod sessions;
pub mod shutdown;
pub mod simulation;
pub mod store;
pub mod telemetry;
pub mod tls;
mod upkeep;
pub mod web;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

/// Runs the program `fusebox` on its arguments, the program's name first.
pub async fn run_from(args: Vec<OsString>) -> ExitCode {
    let cli = match cli::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and clap knows where each goes.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let cli::Command::Serve(args) = &cli.command {
        return serve::main(args).await;
    }
    Box::pin(cli::run(cli)).await
}
