//! Operators' words: durable, above every automatic decision, and over when their time is.

use std::time::{Duration, SystemTime};

use fusebox_policy::{
    Invalid, Timestamp,
    fleet::{
        BreakerKey,
        gate::Forced,
        key::KeyPattern,
        shared::{FleetState, SharedBreaker},
    },
    invalid::Faults,
};
use fusebox_proto::{duration::to_wire, sync::v1 as sync, v1};

use prost::Message;

use super::{Identity, forced_state, owner::Owner, replicas::Session};
use crate::{
    caller::Caller,
    store::{self, Ending, NewOverride, Note, Once, RequestKey, StoreError, StoreHandle, StoredOverride, timestamp},
};

/// Longest override; a longer need is a policy.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// The etag of an override that is not there.
const NO_OVERRIDE: &str = "0";
/// Longest reason.
const LONGEST_REASON: usize = 500;

/// What an operator asks for.
#[derive(Clone, Debug)]
pub struct ForceRequest {
    pattern: KeyPattern,
    state: Forced,
    reason: String,
    duration: Duration,
    caller: Caller,
    validate_only: bool,
    key: Option<RequestKey>,
    etag: Option<String>,
}

/// What an operator asks for to end overrides.
#[derive(Clone, Debug)]
pub struct ReleaseRequest {
    /// Those that were made with exactly this.
    pub pattern: KeyPattern,
    /// Why.
    pub reason: String,
    /// Who.
    pub caller: Caller,
    /// Only tell what it would end.
    pub validate_only: bool,
    /// For a request that may come again.
    pub key: Option<RequestKey>,
    /// Only if what would be ended has this.
    pub etag: Option<String>,
}

/// Why breakers are not forced or released.
#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    /// Somebody else has done it meanwhile.
    #[error("the override on {target} with this selector is not the one that was seen: its etag is {current} now")]
    Changed {
        /// The service that is called.
        target: String,
        /// The etag that it has.
        current: String,
    },
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ForceRequest {
    /// Checks what an operator asks for.
    ///
    /// # Errors
    /// Every bad field.
    pub fn try_new(wire: v1::ForceBreakerRequest, caller: Caller, key: Option<RequestKey>) -> Result<Self, Invalid> {
        let v1::ForceBreakerRequest { selector, state, reason, duration, validate_only, request_id: _, etag } = wire;
        let mut faults = Faults::new();
        let pattern = faults.take("selector", KeyPattern::try_from(selector.unwrap_or_default()));
        let state = match v1::FleetState::try_from(state) {
            Ok(v1::FleetState::ForcedOpen) => Some(Forced::Open),
            Ok(v1::FleetState::ForcedClosed) => Some(Forced::Closed),
            Ok(v1::FleetState::Disabled) => Some(Forced::Disabled),
            Ok(
                v1::FleetState::Unspecified
                | v1::FleetState::Released
                | v1::FleetState::Open
                | v1::FleetState::HalfOpen
                | v1::FleetState::Ramp,
            )
            | Err(_) => {
                faults.push("state", "must be FORCED_OPEN, FORCED_CLOSED or DISABLED");
                None
            }
        };
        check_reason(&reason, &mut faults);
        let duration = match duration.map(fusebox_proto::duration::from_wire) {
            None => {
                faults.push("duration", "is required: overrides end by themselves");
                None
            }
            Some(read) => faults.take("duration", read),
        };
        if let Some(duration) = duration {
            faults.check(
                !duration.is_zero() && duration <= LONGEST,
                "duration",
                "must be greater than zero and at most 7 days",
            );
        }
        let request = pattern.zip(state).zip(duration).map(|((pattern, state), duration)| Self {
            pattern,
            state,
            reason,
            duration,
            caller,
            validate_only,
            key,
            etag: Some(etag).filter(|etag| !etag.is_empty()),
        });
        faults.into_result(request)
    }
}

/// Checks why an operator does something.
pub(crate) fn check_reason(reason: &str, faults: &mut Faults) {
    faults.check(!reason.trim().is_empty(), "reason", "is required: say why");
    faults.check(reason.len() <= LONGEST_REASON, "reason", format!("must be at most {LONGEST_REASON} bytes"));
}

/// An override in force, on this server's clock.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub(super) stored: StoredOverride,
    pub(super) until: Timestamp,
}

impl InForce {
    /// Whether a replica's SDK knows what it asks for. It would refuse the whole set otherwise, with what it does know.
    pub(super) const fn is_known_to(&self, identity: &Identity) -> bool {
        match self.stored.state {
            Forced::Open | Forced::Closed => true,
            Forced::Disabled => identity.knows_disabled,
        }
    }
}

/// The overrides in force, oldest first.
#[derive(Debug)]
pub(super) struct Overrides {
    list: Vec<InForce>,
    /// Grows with each change.
    pub(super) version: u64,
}

impl Overrides {
    pub(super) async fn load(store: &StoreHandle, now: Timestamp) -> Result<Self, StoreError> {
        let today = SystemTime::now();
        let list = store.overrides().await?.into_iter().map(|stored| {
            let left = stored.expires.duration_since(today).unwrap_or_default();
            // A clock that has been set back meanwhile makes none longer than it was meant to be.
            let left = left.min(stored.expires.duration_since(stored.created).unwrap_or_default());
            InForce { stored, until: now.plus(left) }
        });
        Ok(Self { list: list.collect(), version: 1 })
    }

    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.list.iter().map(|own| own.until).min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &InForce> {
        self.list.iter()
    }

    /// Whether a replica has confirmed that it obeys one of them.
    pub(super) fn is_acknowledged(&self, own: &InForce, session: &Session) -> bool {
        own.is_known_to(&session.identity) && session.overrides_acknowledged >= self.version
    }

    /// The override on a breaker: the newest that matches.
    pub(super) fn on(&self, key: &BreakerKey) -> Option<&InForce> {
        self.list.iter().rev().find(|own| own.stored.pattern.matches(key, key.zone.as_ref()))
    }

    /// Whether the override with exactly this selector is the one that a caller has seen.
    fn check_etag(&self, pattern: &KeyPattern, wanted: Option<&str>) -> Result<(), ForceError> {
        let Some(wanted) = wanted else { return Ok(()) };
        let present = self.list.iter().rev().find(|own| own.stored.pattern == *pattern);
        let current = present.map_or_else(|| NO_OVERRIDE.to_owned(), |own| settled(&own.stored).etag);
        if current == wanted {
            return Ok(());
        }
        Err(ForceError::Changed { target: pattern.target.to_string(), current })
    }

    /// Everything that may concern a replica, and that its SDK knows. What is left counts from its newest heartbeat: that was sent before it came here, so that
    /// no override ends later there than here, however late the set is.
    pub(super) fn set_for(&self, session: &Session, term: u64, now: Timestamp) -> sync::OverrideSet {
        let Session { identity, heartbeat, heartbeat_came, .. } = session;
        let concerns = |pattern: &KeyPattern| {
            pattern.namespace.as_ref().is_none_or(|namespace| *namespace == identity.namespace)
                && pattern.caller.as_ref().is_none_or(|caller| *caller == identity.caller)
                && (pattern.zone.is_none() || pattern.zone == identity.zone)
        };
        let overrides = self
            .list
            .iter()
            .filter(|own| own.until > now && concerns(&own.stored.pattern) && own.is_known_to(identity))
            .map(|own| sync::Override {
                id: own.stored.id,
                selector: Some((&own.stored.pattern).into()),
                state: v1::FleetState::from(forced_state(own.stored.state)).into(),
                remaining: Some(to_wire(heartbeat_came.until(own.until))),
                reason: own.stored.reason.clone(),
            })
            .collect();
        sync::OverrideSet { version: self.version, term, overrides, anchor_seq: *heartbeat }
    }
}

impl Owner {
    pub(super) async fn force(&mut self, request: ForceRequest) -> Result<v1::Override, ForceError> {
        let ForceRequest { pattern, state, reason, duration, caller, validate_only, key, etag } = request;
        // What has been done by this very request is no change by somebody else.
        if let (Some(_), Some(key)) = (&etag, &key)
            && let Some(answer) = self.store.answered(key.clone()).await?
        {
            return Err(StoreError::Repeated(answer).into());
        }
        self.overrides.check_etag(&pattern, etag.as_deref())?;
        let created = SystemTime::now();
        let until = self.now().plus(duration);
        // The same breakers again: the new word replaces the old one.
        let older = self.overrides.list.iter().filter(|own| own.stored.pattern == pattern);
        let older: Vec<u64> = older.map(|own| own.stored.id).collect();
        let (expires, replaces) = (created + duration, older.clone());
        let new = NewOverride { pattern, state, reason, caller, created, expires, replaces };
        if validate_only {
            let NewOverride { pattern, state, reason, caller, created, expires, replaces: _ } = new;
            let stored = StoredOverride { id: 0, pattern, state, reason, author: caller.name, created, expires };
            let view = self.override_view(&InForce { stored, until });
            return Ok(v1::Override { etag: String::new(), name: String::new(), ..view });
        }
        let once = key.map(|key| Once::new(key, |stored| settled(stored).encode_to_vec()));
        let stored = self.store.put_override_once(new, once).await?;
        tracing::warn!(
            event.name = "override.set",
            called = %stored.pattern.target,
            state = forced_state(stored.state).name(),
            reason = stored.reason,
            author = stored.author,
            "an operator has forced breakers"
        );
        let own = InForce { stored, until };
        self.change_overrides(
            |list| {
                list.retain(|other| !older.contains(&other.stored.id));
                list.push(own.clone());
            },
            &own.stored.pattern,
            &own.stored.reason,
        );
        Ok(self.override_view(&own))
    }

    pub(super) async fn release(&mut self, request: ReleaseRequest) -> Result<Vec<v1::Override>, ForceError> {
        let ReleaseRequest { pattern, reason, caller, validate_only, key, etag } = request;
        let ended: Vec<InForce> =
            self.overrides.list.iter().filter(|own| own.stored.pattern == pattern).cloned().collect();
        let ids: Vec<u64> = ended.iter().map(|own| own.stored.id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.overrides.check_etag(&pattern, etag.as_deref())?;
        let views: Vec<_> = ended.iter().map(|own| self.override_view(own)).collect();
        if validate_only {
            return Ok(views);
        }
        let once = key.map(|key| {
            let answer = v1::ReleaseBreakerResponse { released: views.clone() };
            Once::new(key, move |&()| answer.encode_to_vec())
        });
        let note = Note { caller, message: reason.clone(), at: SystemTime::now() };
        self.store.end_overrides_once(ids.clone(), Ending::Released, note.clone(), once).await?;
        tracing::warn!(event.name = "override.ended", called = %pattern.target, reason = reason.as_str(), author = note.caller.name, "an operator has released breakers");
        self.change_overrides(|list| list.retain(|own| !ids.contains(&own.stored.id)), &pattern, &reason);
        Ok(views)
    }

    pub(super) async fn end_expired_overrides(&mut self, now: Timestamp) {
        let ended: Vec<InForce> = self.overrides.list.iter().filter(|own| own.until <= now).cloned().collect();
        if ended.is_empty() {
            return;
        }
        let ids: Vec<u64> = ended.iter().map(|own| own.stored.id).collect();
        let reason = "its time is over";
        let note = Note { caller: Caller::server("server"), message: reason.to_owned(), at: SystemTime::now() };
        if let Err(error) = self.store.end_overrides(ids.clone(), Ending::Expired, note).await {
            // It is over all the same: whoever reads it sees that it has expired.
            tracing::error!(error = %error, "cannot write the end of an override");
        }
        for own in ended {
            tracing::warn!(event.name = "override.ended", called = %own.stored.pattern.target, reason, "an override has ended");
            let id = own.stored.id;
            self.change_overrides(|list| list.retain(|other| other.stored.id != id), &own.stored.pattern, reason);
        }
    }

    /// Changes the list, tells every replica, and logs what that does to the breakers that are known.
    fn change_overrides(&mut self, change: impl FnOnce(&mut Vec<InForce>), pattern: &KeyPattern, reason: &str) {
        let touched: Vec<(BreakerKey, FleetState)> = self
            .coordinator
            .keys()
            .filter(|key| pattern.matches(key, key.zone.as_ref()))
            .map(|key| (key.clone(), self.effective_state(key)))
            .collect();
        change(&mut self.overrides.list);
        self.overrides.version += 1;
        for (key, before) in touched {
            let after = self.effective_state(&key);
            if before != after {
                let evidence = self.coordinator.view(&key, self.now()).map(|view| view.evidence).unwrap_or_default();
                self.log_decision(key, (before, after), "operator", reason.to_owned(), &evidence, None);
            }
        }
        let now = self.now();
        for session in self.sessions.values() {
            session.outbox.overrides(self.overrides.set_for(session, self.coordinator.term(), now));
        }
    }

    /// What replicas do about a breaker: the override's word, else the fleet's.
    pub(super) fn effective_state(&self, key: &BreakerKey) -> FleetState {
        let decided = self.coordinator.breaker(key).map_or(FleetState::Released, SharedBreaker::state);
        self.overrides.on(key).map_or(decided, |own| forced_state(own.stored.state))
    }

    /// An override as operators see it.
    pub(super) fn override_view(&self, own: &InForce) -> v1::Override {
        let pattern = &own.stored.pattern;
        let mut acknowledged = 0;
        let (mut unacknowledged, mut unsupported) = (Vec::new(), Vec::new());
        for session in self.sessions.values() {
            if self.keys_of(session).any(|key| pattern.matches(key, session.identity.zone.as_ref())) {
                let instance = || session.identity.member.instance.to_string();
                if self.overrides.is_acknowledged(own, session) {
                    acknowledged += 1;
                } else {
                    unacknowledged.push(instance());
                }
                if !own.is_known_to(&session.identity) {
                    unsupported.push(instance());
                }
            }
        }
        v1::Override {
            remaining: Some(to_wire(self.now().until(own.until))),
            acknowledged,
            unacknowledged,
            unsupported,
            ..settled(&own.stored)
        }
    }
}

/// An override as it was set, without what changes with time and with who is connected.
pub(crate) fn settled(stored: &StoredOverride) -> v1::Override {
    let StoredOverride { id, pattern, state, reason, author, created, expires } = stored;
    let wire = v1::Override {
        selector: Some(pattern.into()),
        state: v1::FleetState::from(forced_state(*state)).into(),
        reason: reason.clone(),
        author: author.clone(),
        create_time: Some(timestamp(*created)),
        expire_time: Some(timestamp(*expires)),
        id: *id,
        name: format!("overrides/{id}"),
        ..v1::Override::default()
    };
    // An override is never changed, only replaced: all of it is what sets it apart, also from one of an older copy of the database.
    let etag = store::etag(&wire.encode_to_vec());
    v1::Override { etag, ..wire }
}
