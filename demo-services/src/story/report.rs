//! What was measured.

use std::time::Duration;

use serde::Serialize;

use super::Teller;
use crate::logging::tell;

/// One step of the story.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What should happen.
    pub name: String,
    /// Whether it did, within its limit.
    pub ok: bool,
    /// How long it took.
    pub took_ms: u64,
}

/// An outage in numbers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// Calls that B received and failed, from the beginning of the outage to its end.
    pub failed_calls_reached_b: u64,
    /// From the beginning of the outage until the last replica admitted nothing.
    pub last_replica_open_ms: u64,
    /// Requests that B received after the outage from replicas that admitted no traffic yet.
    pub probes_at_recovery: u64,
    /// From the end of the outage until all replicas admitted everything again.
    pub closed_ms: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Replicas of A.
    pub replicas: usize,
    /// In order.
    pub steps: Vec<Step>,
    /// The outage with a fleet that acts as one.
    pub coordinated: Option<Measured>,
    /// The same outage with every replica on its own.
    pub local: Option<Measured>,
}

impl Report {
    /// Notes a step.
    pub(crate) fn step(&mut self, name: &str, ok: bool, took: Duration) {
        self.steps.push(Step { name: name.to_owned(), ok, took_ms: millis(took) });
    }

    /// Whether the whole story was told, every step happened, and acting as one was better.
    pub(crate) fn all_ok(&self) -> bool {
        let better = self.coordinated.zip(self.local).is_some_and(|(coordinated, local)| {
            coordinated.failed_calls_reached_b < local.failed_calls_reached_b
                && coordinated.probes_at_recovery < local.probes_at_recovery
        });
        better && self.steps.iter().all(|step| step.ok)
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Puts both outages side by side.
pub(crate) fn compare(report: &Report, teller: Teller) {
    teller.chapter("The same outage, twice");
    let (Some(together), Some(alone)) = (report.coordinated, report.local) else {
        return;
    };
    tell("");
    tell(&format!("  {:<44} {:>12} {:>12}", "", "as one fleet", "each alone"));
    for (what, together, alone) in [
        ("failed calls that reached B", together.failed_calls_reached_b, alone.failed_calls_reached_b),
        ("until the last replica had opened, ms", together.last_replica_open_ms, alone.last_replica_open_ms),
        ("probes that B got when it came back", together.probes_at_recovery, alone.probes_at_recovery),
        ("until all had closed again, ms", together.closed_ms, alone.closed_ms),
    ] {
        tell(&format!("  {what:<44} {together:>12} {alone:>12}"));
    }
}
