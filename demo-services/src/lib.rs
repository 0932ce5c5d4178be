//! Service A and service B of the article, and the story of a fleet of A's that calls B.
//!
//! One executable plays every part: [`run`] looks at its first argument. So `cargo run -p fusebox-demo`, which builds one executable, can
//! start real processes.

pub mod logging;
pub mod service_a;
pub mod service_b;
pub mod story;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

/// Why a part could not be played.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PartError(pub String);

/// Plays the part that the first argument names; without one, tells the story.
pub async fn run(args: Vec<OsString>) -> ExitCode {
    let part = args.get(1).and_then(|part| part.to_str()).map(ToOwned::to_owned);
    let rest = || args.iter().take(1).chain(args.iter().skip(2)).cloned();
    match part.as_deref() {
        Some("fusebox") => fusebox_control_plane::run_from(rest().collect()).await,
        Some("service-a") => ended(service_a::main(service_a::Args::parse_from(rest())).await),
        Some("service-b") => ended(service_b::main(service_b::Args::parse_from(rest())).await),
        Some(_) | None => Box::pin(story::main(story::Args::parse_from(args))).await,
    }
}

/// Runs `part` on a runtime of its own, with the process' arguments.
pub fn main_as(part: Option<&str>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            logging::say(&format!("error: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if let Some(part) = part {
        args.insert(1.min(args.len()), part.into());
    }
    let code = runtime.block_on(run(args));
    runtime.shutdown_background();
    code
}

fn ended(result: Result<(), PartError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Waits for SIGTERM or ctrl-c.
pub(crate) async fn stop_asked() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            // Then only ctrl-c is left to ask with.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Binds, says where, and serves until asked to stop.
pub(crate) async fn serve(listen: std::net::SocketAddr, app: axum::Router) -> Result<(), PartError> {
    let failed = |error: std::io::Error| PartError(format!("cannot listen on {listen}: {error}"));
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    logging::say(&format!("listening on http://{address}"));
    axum::serve(listener, app).with_graceful_shutdown(stop_asked()).await.map_err(failed)
}
