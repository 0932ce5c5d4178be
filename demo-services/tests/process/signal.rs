//! Signals to processes of our own.

use std::process::{Child, Command};

/// Sends a signal: `STOP` lets a process stand still, `CONT` go on.
pub(crate) fn signal(child: &Child, name: &str) {
    // The shell's own word: not every machine has the program.
    let words = format!("kill -{name} {}", child.id());
    let status = Command::new("sh").args(["-c", &words]).status().expect("there is a shell");
    assert!(status.success(), "{words}");
}
