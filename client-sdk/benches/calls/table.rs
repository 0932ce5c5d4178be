//! The figures side by side. Times are criterion's medians, read back from where it keeps them.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::PathBuf,
};

/// The reading as the clock gives it.
pub(crate) const CLOCK: &str = "floor: clock read";
/// The reading as something that can be compared and kept in a word: the time since an origin.
pub(crate) const TIME: &str = "floor: clock read, as a time";

#[derive(Debug, Default)]
pub(crate) struct Table {
    allocations: BTreeMap<&'static str, f64>,
    names: Vec<&'static str>,
}

impl Table {
    pub(crate) fn allocations(&mut self, name: &'static str, count: f64) {
        self.names.push(name);
        self.allocations.insert(name, count);
    }

    pub(crate) fn print(&self) {
        let mut out = io::stdout();
        let _ = writeln!(out, "\n{:<42} {:>9} {:>12}", "what", "median", "allocations");
        for name in &self.names {
            if let Some(median) = median(name) {
                let _ = writeln!(out, "{name:<42} {median:>6.1} ns {:>12.2}", self.allocations[name]);
            }
        }
        for name in
            ["fusebox: breaker, two threads", "fusebox: stack, two threads", "fusebox: stack, policy swapped at 1 kHz"]
        {
            if let Some(median) = median(name) {
                let _ = writeln!(out, "{name:<42} {median:>6.1} ns");
            }
        }
        let ratios = [
            ("breaker / two clock reads", "fusebox: breaker", CLOCK, 2.0),
            ("breaker / two clock reads, as times", "fusebox: breaker", TIME, 2.0),
            ("stack / breaker", "fusebox: stack", "fusebox: breaker", 1.0),
            ("open breaker / clock read", "fusebox: open breaker", CLOCK, 1.0),
            ("open breaker / clock read, as a time", "fusebox: open breaker", TIME, 1.0),
            ("two threads / one, breaker", "fusebox: breaker, two threads", "fusebox: breaker", 1.0),
            ("swapped at 1 kHz / not, stack", "fusebox: stack, policy swapped at 1 kHz", "fusebox: stack", 1.0),
            (
                "metrics without a recorder / none, stack",
                "fusebox: stack, metrics without a recorder",
                "fusebox: stack",
                1.0,
            ),
            ("metrics to prometheus / none, stack", "fusebox: stack, metrics to prometheus", "fusebox: stack", 1.0),
            ("tower-resilience / ours, breaker", "tower-resilience: breaker, time window", "fusebox: breaker", 1.0),
            ("tower-resilience / ours, stack", "tower-resilience: stack, time window", "fusebox: stack", 1.0),
            (
                "its count window / our time window, breaker",
                "tower-resilience: breaker, count window",
                "fusebox: breaker",
                1.0,
            ),
            (
                "its count window / our time window, stack",
                "tower-resilience: stack, count window",
                "fusebox: stack",
                1.0,
            ),
            ("failsafe / ours, time window", "failsafe: rate over a time window", "fusebox: breaker", 1.0),
            ("failsafe / ours, consecutive", "failsafe: consecutive", "fusebox: breaker, consecutive", 1.0),
            (
                "failsafe / ours, consecutive, of a future",
                "failsafe: consecutive, of a future",
                "fusebox: breaker, consecutive",
                1.0,
            ),
            ("failsafe / ours, open", "failsafe: open", "fusebox: open breaker", 1.0),
            ("recloser / ours, count window", "recloser: breaker", "fusebox: breaker, count window", 1.0),
            ("governor / ours, rate limiter", "governor: rate limiter", "fusebox: rate limiter", 1.0),
        ];
        let _ = writeln!(out);
        for (what, numerator, denominator, times) in ratios {
            if let (Some(numerator), Some(denominator)) = (median(numerator), median(denominator)) {
                let _ = writeln!(out, "{what:<42} {:>6.2}", numerator / (denominator * times));
            }
        }
    }
}

/// Criterion's median of a benchmark, in nanoseconds.
fn median(name: &str) -> Option<f64> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    // Criterion replaces what file names can't hold.
    let folder = name.replace([':', '/', '"'], "_");
    let text = std::fs::read_to_string(target.join("criterion").join(folder).join("new/estimates.json")).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}
