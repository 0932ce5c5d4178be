//! The story: a fleet of A's, a B that fails and comes back, an operator, and a control plane that dies and returns. Told with what was
//! measured while it happened, on real processes.

mod cast;
mod load;
mod outage;
mod report;
mod steps;

use std::{path::PathBuf, process::ExitCode, time::Instant};

pub use report::{Measured, Report, Step};

use self::cast::Cast;
use crate::logging::{say, tell};

/// Options of the story.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "demo",
    about = "Starts a control plane, service B and three replicas of service A, and tells how the fleet acts as one"
)]
pub struct Args {
    /// Write what was measured, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Folder for logs and data. Default: a new one among the temporary files, which is kept
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Why the story could not go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// Something went wrong while doing something.
pub(crate) fn broken(doing: &str) -> impl FnOnce(&dyn std::fmt::Display) -> Broken + '_ {
    move |error| Broken(format!("cannot {doing}: {error}"))
}

/// Lines with the time since the story began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teller(Instant);

impl Teller {
    pub(crate) fn line(self, words: &str) {
        tell(&format!("{:>7.2}s  {words}", self.0.elapsed().as_secs_f64()));
    }

    pub(crate) fn chapter(self, title: &str) {
        tell("");
        tell(&format!("{:>7.2}s  == {title}", self.0.elapsed().as_secs_f64()));
    }
}

/// Tells the story to its end.
pub async fn main(args: Args) -> ExitCode {
    let folder = match folder(args.folder) {
        Ok(folder) => folder,
        Err(error) => {
            say(&format!("error: {error}"));
            return ExitCode::FAILURE;
        }
    };
    tell(&format!("logs and data are in {}", folder.display()));
    let teller = Teller(Instant::now());
    let mut report = Report::default();
    let told = tokio::select! {
        told = Box::pin(play(&folder, teller, &mut report)) => told,
        () = crate::stop_asked() => Err(Broken("stopped from outside".to_owned())),
    };
    if let Some(file) = &args.report
        && let Err(error) = std::fs::write(file, report.to_json())
    {
        say(&format!("error: cannot write {}: {error}", file.display()));
        return ExitCode::FAILURE;
    }
    tell("");
    tell(&format!("logs are in {}", folder.join("logs").display()));
    match told {
        Ok(()) if report.all_ok() => ExitCode::SUCCESS,
        Ok(()) => {
            say("error: not every step happened");
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn folder(asked: Option<PathBuf>) -> Result<PathBuf, Broken> {
    let made = match asked {
        Some(folder) => std::fs::create_dir_all(&folder).map(|()| folder),
        // Kept: the logs are for reading afterwards.
        None => tempfile::Builder::new().prefix("fusebox-demo-").tempdir().map(tempfile::TempDir::keep),
    };
    made.map_err(|error| broken("make a folder")(&error))
}

async fn play(folder: &std::path::Path, teller: Teller, report: &mut Report) -> Result<(), Broken> {
    teller.chapter("The cast: a control plane, service B, and three replicas of service A, all real processes");
    let mut cast = Cast::start(folder).await?;
    teller.line(&format!("control plane on {}, service B on {}", cast.control_plane(), cast.service_b()));
    let load = load::Load::start(&cast);
    steps::all_well(&mut cast, &load, teller, report).await?;
    let coordinated = outage::run(&cast, &load, teller, report, "coordinated").await?;
    report.coordinated = Some(coordinated);
    steps::operator_changes_timeout(&cast, &load, teller, report).await?;
    steps::control_plane_dies_and_returns(&mut cast, &load, teller, report).await?;
    steps::every_replica_for_itself(&cast, teller, report).await?;
    let local = outage::run(&cast, &load, teller, report, "local").await?;
    report.local = Some(local);
    load.stop().await;
    report::compare(report, teller);
    Ok(())
}
