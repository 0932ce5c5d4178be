//! A control plane whose database is kept, and can be touched while it does not run.

use std::{io::Write as _, path::PathBuf, process::Stdio, time::Duration};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::program::{Answer, command, fusebox, fusebox_reading};

/// For a server to say where it listens, or to end, on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A folder, and the process that serves from it.
pub(crate) struct Kept {
    pub(crate) folder: TempDir,
    address: String,
    data: PathBuf,
    process: Child,
}

impl Kept {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (process, address) = serve(command(), &data, options).await;
        Self { folder, address, data, process }
    }

    /// With its data on a disk of so many megabytes that only it sees, and that ends with it; `None` if this user may not have one.
    pub(crate) async fn start_on_small_disk(megabytes: u32) -> Option<Self> {
        let probe = ["-rm", "sh", "-c", "mount -t tmpfs none /tmp"];
        let may = tokio::process::Command::new("unshare").args(probe).stderr(Stdio::null()).status().await;
        if !may.is_ok_and(|status| status.success()) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("data");
        std::fs::create_dir(&inside).unwrap();
        let mount = format!("mount -t tmpfs -o size={megabytes}m none '{}' && exec \"$@\"", inside.display());
        let mut program = command();
        let mut wrapped = tokio::process::Command::new("unshare");
        wrapped.args(["-rm", "sh", "-c", &mount, "sh"]).arg(program.as_std().get_program());
        wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for (name, _) in program.as_std_mut().get_envs() {
            wrapped.env_remove(name);
        }
        let (process, address) = serve(wrapped, &inside, &[]).await;
        // The disk as the process sees it.
        let root = PathBuf::from(format!("/proc/{}/root", process.id().unwrap()));
        let data = root.join(inside.strip_prefix("/").unwrap());
        Some(Self { folder, address, data, process })
    }

    /// Fills the disk with a file, but for a little.
    pub(crate) fn fill(&self, filler: &std::path::Path) {
        let mut file = std::fs::File::create(filler).unwrap();
        while file.write_all(&[0; 16 * 1024]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(64 * 1024)).unwrap();
    }

    /// Runs a command until its answer is as wanted.
    pub(crate) async fn until(&self, line: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let ask = async {
            loop {
                let answer = self.run(line).await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, ask).await.expect("it never answers as wanted")
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where the database is.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
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

    /// Ends the process as a power cut does.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.process.kill().await.unwrap();
        self.folder
    }

    /// Serves from a folder that was stopped.
    pub(crate) async fn start_in(folder: TempDir) -> Self {
        Self::start_in_with(folder, &[]).await
    }

    /// The same with more options.
    pub(crate) async fn start_in_with(folder: TempDir, options: &[&str]) -> Self {
        let data = folder.path().join("data");
        let (process, address) = serve(command(), &data, options).await;
        Self { folder, address, data, process }
    }

    /// A hand that does not go through the control plane.
    pub(crate) async fn outside(&self, statement: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.data().join("fusebox.db"));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

async fn serve(mut program: Command, data: &std::path::Path, options: &[&str]) -> (Child, String) {
    let serve = program.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(options);
    let mut process = serve.spawn().unwrap();
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
