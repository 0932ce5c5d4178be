//! An operator's desk: the command line, run as a process, with everything that is typed and answered written down.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Far longer than any step takes; only what is broken needs it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Who sits there.
pub(crate) struct Desk {
    /// Address of the control plane.
    pub(crate) address: String,
    /// Who signed its certificate.
    pub(crate) ca: PathBuf,
    /// What the person is known by.
    pub(crate) token: Option<String>,
    /// Where commands are typed.
    pub(crate) folder: PathBuf,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Said {
    /// Exit code.
    pub(crate) code: i32,
    /// Data.
    pub(crate) out: String,
    /// All else.
    pub(crate) err: String,
}

impl Desk {
    /// Types a command and reads what it says.
    pub(crate) fn ask(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.arg("fusebox").args(args).current_dir(&self.folder);
        command.env("XDG_CONFIG_HOME", &self.folder).env("NO_COLOR", "1");
        command.env("FUSEBOX_ADDRESS", &self.address).env("FUSEBOX_CA", &self.ca).env_remove("FUSEBOX_TOKEN");
        if let Some(token) = &self.token {
            command.env("FUSEBOX_TOKEN", token);
        }
        let ran = command.output().expect("the command line starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it speaks UTF-8");
        let said = Said { code: ran.status.code().unwrap_or(-1), out: text(ran.stdout), err: text(ran.stderr) };
        #[expect(clippy::print_stderr, reason = "the day is there to be read: cargo test -- --nocapture")]
        {
            eprintln!("$ fusebox {}\n{}{}[{}]\n", args.join(" "), said.out, said.err, said.code);
        }
        said
    }

    /// The same, where it must succeed.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let said = self.ask(args);
        assert_eq!(said.code, 0, "fusebox {}: {said:?}", args.join(" "));
        said.out
    }

    /// The same, where the answer is JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["-o", "json"]].concat();
        serde_json::from_str(&self.run(&args)).expect("it prints JSON")
    }

    /// Somebody else at the same desk.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        let Self { address, ca, token: _, folder } = self;
        Self { address: address.clone(), ca: ca.clone(), token: Some(token.to_owned()), folder: folder.clone() }
    }

    /// Puts a file there.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("."))).expect("a folder can be made");
        std::fs::write(path, content).expect("a file can be written");
    }
}

/// Looks again and again until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < LIMIT, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
