//! What a server knows of its own surroundings beside what is stored: certificate, backups, the last look at the data. Those who look
//! after them write it here; `GetServerInfo` and the metrics tell it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::tls::reload::Tls;

/// A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Condition(Arc<Mutex<Known>>);

/// What is known at present.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The server's certificate, if it speaks TLS itself.
    pub tls: Option<Tls>,
    /// The backups that it makes by itself, if it does.
    pub backups: Option<BackupsKnown>,
    /// The last look at everything that is stored.
    pub checked: Option<Checked>,
}

/// How the scheduled backups go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupsKnown {
    /// How old the newest may get.
    pub every: Duration,
    /// When the newest was made.
    pub newest: Option<SystemTime>,
    /// Since when they fail, and why the last one did.
    pub failing: Option<(SystemTime, String)>,
}

/// A look at everything that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// When it ended.
    pub at: SystemTime,
    /// How many things are not as they were written.
    pub findings: usize,
}

impl Condition {
    /// Of a server with this certificate.
    #[must_use]
    pub fn new(tls: Option<Tls>) -> Self {
        Self(Arc::new(Mutex::new(Known { tls, ..Known::default() })))
    }

    /// What is known now.
    #[must_use]
    pub fn known(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The newest backup is from then.
    pub(crate) fn backed_up(&self, every: Duration, newest: Option<SystemTime>) {
        self.set(|known| known.backups = Some(BackupsKnown { every, newest, failing: None }));
    }

    /// A backup could not be made. Since when that is so stays.
    pub(crate) fn backup_failed(&self, every: Duration, newest: Option<SystemTime>, why: String) {
        self.set(|known| {
            let before = known.backups.take().and_then(|backups| backups.failing);
            let since = before.map_or_else(SystemTime::now, |(since, _)| since);
            known.backups = Some(BackupsKnown { every, newest, failing: Some((since, why)) });
        });
    }

    /// Everything stored was looked at.
    pub(crate) fn checked(&self, findings: usize) {
        self.set(|known| known.checked = Some(Checked { at: SystemTime::now(), findings }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_backups_keep_their_beginning_until_one_is_made() {
        let condition = Condition::default();
        let every = Duration::from_secs(60);
        condition.backup_failed(every, None, "no room".to_owned());
        let (since, _) = condition.known().backups.unwrap().failing.unwrap();
        condition.backup_failed(every, None, "no folder".to_owned());
        assert_eq!(condition.known().backups.unwrap().failing, Some((since, "no folder".to_owned())));
        condition.backed_up(every, Some(since));
        assert_eq!(condition.known().backups, Some(BackupsKnown { every, newest: Some(since), failing: None }));
    }
}
