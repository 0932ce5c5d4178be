//! Runs the binary, bounded in time and free of the developer's own environment.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// Longer than any command here needs, even on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    /// The data, which must be JSON and nothing else.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The same, if the exit code is this one.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// The same, if stderr says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "stderr lacks {text:?}: {self:?}");
        self
    }

    /// The same, if stdout holds this.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "stdout lacks {text:?}: {self:?}");
        self
    }
}

/// The binary without the environment's settings.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fusebox"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FUSEBOX_") {
            command.env_remove(name);
        }
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a command line to its end.
pub(crate) async fn fusebox(args: &[&str]) -> Answer {
    finish(command().args(args)).await
}

/// The same with text on stdin.
pub(crate) async fn fusebox_reading(text: &str, args: &[&str]) -> Answer {
    let mut child = command().args(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    match stdin.write_all(text.as_bytes()).await {
        // A command that is wrong in itself ends without reading.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    drop(stdin);
    let output = timeout(LIMIT, child.wait_with_output()).await.expect("the command did not end").unwrap();
    answer(output)
}

/// Runs a command to its end.
pub(crate) async fn finish(command: &mut Command) -> Answer {
    answer(timeout(LIMIT, command.output()).await.expect("the command did not end").unwrap())
}

fn answer(output: std::process::Output) -> Answer {
    Answer {
        code: output.status.code().expect("the command was killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A manifest of one policy that needs nothing else.
pub(crate) fn manifest(name: &str, target: &str, timeout: &str) -> String {
    format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata:\n  name: {name}\nspec:\n  match:\n    target: {target}\n  \
         pipeline:\n    - retry:\n        maxAttempts: 3\n    - circuitBreaker: {{}}\n    - timeout:\n        \
         duration: {timeout}\n"
    )
}
