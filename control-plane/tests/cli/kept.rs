//! A control plane whose database is kept, and can be touched while it does not run.

use std::{path::PathBuf, time::Duration};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
    time::timeout,
};

use super::program::{Answer, command, fusebox, fusebox_reading};

/// For a server to say where it listens, or to end, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A folder, and the process that serves from it.
pub(crate) struct Kept {
    pub(crate) folder: TempDir,
    address: String,
    process: Child,
}

impl Kept {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (process, address) = serve(&data).await;
        Self { folder, address, process }
    }

    /// Where the database is.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path beside the data.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) async fn run(&self, line: &str) -> Answer {
        let args: Vec<_> = line.split(' ').chain(["--address", &self.address]).collect();
        fusebox(&args).await
    }

    /// Applies what is on stdin.
    pub(crate) async fn apply(&self, text: &str) -> Answer {
        fusebox_reading(text, &["apply", "-f", "-", "--address", &self.address]).await
    }

    /// Ends the process as an init system does.
    pub(crate) async fn stop(mut self) -> TempDir {
        let pid = self.process.id().unwrap().to_string();
        assert!(tokio::process::Command::new("kill").arg(pid).status().await.unwrap().success());
        timeout(LIMIT, self.process.wait()).await.expect("the server does not end").unwrap();
        self.folder
    }

    /// Serves from a folder that was stopped.
    pub(crate) async fn start_in(folder: TempDir) -> Self {
        let data = folder.path().join("data");
        let (process, address) = serve(&data).await;
        Self { folder, address, process }
    }

    /// A hand that does not go through the control plane.
    pub(crate) async fn outside(&self, statement: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.data().join("fusebox.db"));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

async fn serve(data: &std::path::Path) -> (Child, String) {
    let mut process = command().args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let find = async {
        let mut seen = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(address) = line.strip_prefix("listening on ") {
                return address.to_owned();
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("the server ended: {seen}");
    };
    let address = timeout(LIMIT, find).await.expect("the server does not say where it listens");
    // A full pipe would stop the server.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (process, address)
}
