//! Why things were decided, for operators who ask: what the present run knows, and what is remembered of what was before.

use std::time::SystemTime;

use fusebox_policy::{
    Timestamp,
    fleet::{
        BreakerKey,
        coordinator::{Guard, Record, Suspicion, Witness},
        term::RunId,
    },
};
use fusebox_proto::{duration::to_wire, v1};

use super::{Command, Ended, Fleet, decisions, owner::Owner, view};
use crate::store::{DecisionId, StoreError, StoredDecision};

/// The breaker that is meant.
pub(crate) enum Which {
    /// The one of this name, if anybody holds it.
    Held(String),
    /// This one.
    Gone(BreakerKey),
}

/// What the present run knows.
pub(crate) struct Explained {
    key: BreakerKey,
    /// Without decisions.
    answer: v1::ExplainBreakerResponse,
    /// Oldest first.
    decisions: Vec<StoredDecision>,
}

/// Why a breaker is not explained.
#[derive(Debug, thiserror::Error)]
pub enum Unexplained {
    /// The server ends.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fleet {
    /// Why things were decided about a breaker, in this run and before; `None` if nobody holds it and nothing is remembered.
    ///
    /// # Errors
    /// The server ends; or the store can't be read, and nobody holds the breaker.
    pub async fn explain(&self, name: String) -> Result<Option<v1::ExplainBreakerResponse>, Unexplained> {
        let held = self.ask(|reply| Command::Explain { which: Which::Held(name.clone()), reply }).await?;
        let (explained, past) = match held {
            Some(explained) => {
                let past = self.remembered.of(&explained.key).await.unwrap_or_else(|error| {
                    tracing::error!(error = %error, "cannot read the record of decisions");
                    Vec::new()
                });
                (explained, past)
            }
            None => {
                let known = self.remembered.breakers().await?;
                let Some(key) = known.into_iter().find(|key| view::name(key) == name) else { return Ok(None) };
                let past = self.remembered.of(&key).await?;
                let gone = self.ask(|reply| Command::Explain { which: Which::Gone(key), reply }).await?;
                let Some(explained) = gone else { return Ok(None) };
                (explained, past)
            }
        };
        let Explained { key: _, answer, decisions: own } = explained;
        let mut all = past;
        decisions::overlay(&mut all, own.into_iter());
        let today = SystemTime::now();
        let decisions = all.into_iter().rev().map(|stored| aged(stored, today)).collect();
        Ok(Some(v1::ExplainBreakerResponse { decisions, ..answer }))
    }

    /// The breakers that no connected replica holds, and about which something was decided.
    ///
    /// # Errors
    /// The server ends, or the store can't be read.
    pub async fn gone_breakers(&self) -> Result<Vec<v1::Breaker>, Unexplained> {
        let known = self.remembered.breakers().await?;
        let view = self.view().await?;
        let gone = known.into_iter().filter(|key| !view.breakers.contains_key(&view::name(key))).collect();
        Ok(self.ask(|reply| Command::Gone { keys: gone, reply }).await?)
    }

    /// Waits until the server has ended and what was decided is written.
    pub async fn written(&self) {
        self.remembered.clone().written().await;
    }
}

impl Owner {
    /// What this run knows of a breaker, and what it decided and held back.
    pub(super) fn explain(&self, which: &Which) -> Option<Explained> {
        let key = match which {
            Which::Held(name) => self.coordinator.shown_keys().find(|key| view::name(key) == *name)?,
            Which::Gone(key) => key,
        };
        let (now, today) = (self.now(), SystemTime::now());
        let mode = self.coordinator.mode();
        let run = self.coordinator.run();
        let records = self.coordinator.explain(key);
        let decisions = records.map(|record| stored(run, key.clone(), record, now, today)).collect();
        let answer = v1::ExplainBreakerResponse {
            breaker: Some(self.breaker_view(key)),
            mode: mode.name().to_owned(),
            mode_ends_in: mode.until().map(|until| to_wire(now.until(until))),
            suspicion: mode.suspicion().map(Suspicion::name).unwrap_or_default().to_owned(),
            decisions: Vec::new(),
        };
        Some(Explained { key: key.clone(), answer, decisions })
    }
}

/// A record as it is kept.
pub(super) fn stored(
    run: RunId,
    key: BreakerKey,
    record: &Record,
    now: Timestamp,
    today: SystemTime,
) -> StoredDecision {
    let Record { number, since, until, times, from, to, fence, cause, guard, detail, evidence, witnesses } = record;
    let date = |at: Timestamp| today.checked_sub(now.since(at)).unwrap_or(today);
    let decision = v1::BreakerDecision {
        since: None,
        until: None,
        times: *times,
        from: v1::FleetState::from(*from).into(),
        to: v1::FleetState::from(*to).into(),
        cause: (*cause).to_owned(),
        guard: guard.map(Guard::name).unwrap_or_default().to_owned(),
        detail: detail.clone(),
        evidence: Some(view::evidence(evidence)),
        witnesses: witnesses.iter().map(witness).collect(),
        term: fence.map_or(0, |fence| fence.term),
        rev: fence.map_or(0, |fence| fence.rev),
    };
    StoredDecision { id: DecisionId { run, number: *number }, key, since: date(*since), until: date(*until), decision }
}

/// With its ages.
fn aged(stored: StoredDecision, today: SystemTime) -> v1::BreakerDecision {
    let StoredDecision { id: _, key: _, since, until, decision } = stored;
    // A clock that was set back makes nothing younger than now.
    let age = |at| Some(to_wire(today.duration_since(at).unwrap_or_default()));
    v1::BreakerDecision { since: age(since), until: age(until), ..decision }
}

fn witness(witness: &Witness) -> v1::InstanceBreaker {
    let Witness { member, zone, local, calls, failures, eligible, mute } = witness;
    v1::InstanceBreaker {
        instance: member.instance.to_string(),
        zone: zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        local_state: v1::LocalState::from(*local).into(),
        window_calls: *calls,
        window_failures: *failures,
        eligible: *eligible,
        mute: mute.map(Guard::name).unwrap_or_default().to_owned(),
        ..v1::InstanceBreaker::default()
    }
}
