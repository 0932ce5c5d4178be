//! What the store records of what the control plane decides, and how often it decides.

use std::{collections::BTreeMap, time::Duration};

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::fleet::invariants::{self as check, Invariant};

use super::{Check, stamp};
use crate::world::SHORTEST_DELAY;

/// How long a decision may take to be on record: what a crash may lose.
const RECORDED_WITHIN: Duration = Duration::from_secs(1);

/// From one state to another.
type Change = (String, String);

/// Decisions that were told, and rows about decisions of the fleet, by breaker.
#[derive(Default)]
pub(super) struct Records {
    decided: BTreeMap<String, Vec<(Duration, Change)>>,
    rows: BTreeMap<String, Vec<(Duration, Change)>>,
}

impl Records {
    pub(super) fn row(&mut self, at: Duration, key: &str, from: &str, to: &str) {
        self.rows.entry(key.to_owned()).or_default().push((at, (from.to_owned(), to.to_owned())));
    }

    pub(super) fn decided(&mut self, at: Duration, key: &str, from: FleetState, to: FleetState) {
        self.decided.entry(key.to_owned()).or_default().push((at, (from.to_string(), to.to_string())));
    }
}

impl Check {
    /// S15: each decision that somebody was told has exactly one row. L6: breakers change at most so often.
    pub(super) fn recorded(&mut self) {
        let Records { decided, rows } = std::mem::take(&mut self.records);
        for (key, decided) in &decided {
            let none = Vec::new();
            let rows = rows.get(key).unwrap_or(&none);
            for (at, change) in decided {
                let about = |(row, own): &&(Duration, Change)| own == change && row.abs_diff(*at) <= RECORDED_WITHIN;
                let found: Vec<&Change> = rows.iter().filter(about).map(|(_, change)| change).collect();
                self.must(check::s15_audit(&[change], &found), Invariant::S15, *at, || {
                    format!("{key} goes from {} to {}, and {} rows say so", change.0, change.1, found.len())
                });
            }
            let changes: Vec<_> = decided.iter().map(|(at, _)| stamp(*at)).collect();
            let last = decided.last().map_or(Duration::ZERO, |(at, _)| *at);
            self.must(check::l6_damped_by(&changes, SHORTEST_DELAY), Invariant::L6, last, || {
                format!("{key} changes too often: {decided:?}")
            });
        }
    }
}
