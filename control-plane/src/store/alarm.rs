//! What an operator must hear of the store while the server goes on.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// There is no room for another change.
    StoreFull,
    /// Something stored is not as it was written.
    StoreCorrupt,
}

impl AlarmKind {
    /// Its name, for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StoreFull => "store_full",
            Self::StoreCorrupt => "store_corrupt",
        }
    }
}

/// Something that is wrong, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// In words, and what to do.
    pub message: String,
    /// Since when.
    pub since: SystemTime,
}

/// The alarms that are on.
#[derive(Debug, Default)]
pub(super) struct Alarms(Mutex<BTreeMap<AlarmKind, Alarm>>);

impl Alarms {
    /// Says that something is wrong. Once said, only its words change.
    pub(super) fn raise(&self, kind: AlarmKind, message: String) {
        let mut alarms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alarm) = alarms.get_mut(&kind) {
            alarm.message = message;
            return;
        }
        tracing::error!(event.name = "alarm.raised", alarm = kind.name(), "{message}");
        alarms.insert(kind, Alarm { kind, message, since: SystemTime::now() });
    }

    /// Says that it is well again.
    pub(super) fn clear(&self, kind: AlarmKind) {
        let mut alarms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if alarms.remove(&kind).is_some() {
            tracing::warn!(event.name = "alarm.cleared", alarm = kind.name(), "it is well again");
        }
    }

    pub(super) fn list(&self) -> Vec<Alarm> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
