//! The one task that owns the fleet's state: it drives the [`Coordinator`], and holds sessions and overrides.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_policy::{
    Draw, Revision, Timestamp,
    fleet::{
        BreakerKey, Coordinator,
        coordinator::{Limits, Suspicion},
        evidence::MemberId,
        held::Fence,
        key::CallerId,
        shared::Settings,
        term::RunId,
    },
};
use fusebox_proto::{sync::v1 as sync, v1};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Command, Identity, Joined, Outbox, SessionId, Told,
    decisions::Decisions,
    explain,
    overrides::Overrides,
    shares::Sharing,
    transitions::Log,
    trials::{Trial, TrialWindows},
    unshared::Unshared,
    view::View,
};
use crate::{
    hub::{Hub, Snapshot},
    shutdown::Shutdown,
    store::{StoreError, StoreHandle, StoredPolicy},
};

/// How soon a change shows. Many changes in a row make one view.
const VIEW_INTERVAL: Duration = Duration::from_millis(50);
/// At most one part in so many of the owner's time goes into views: in a large fleet they take longer, and decisions come first.
const VIEW_SHARE: u32 = 20;

/// The owner wakes at least so often, so that it finds out when it did not.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the owner has woken.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
enum Woken {
    Told(Command),
    Policies,
    Unwritten,
    Due,
    Show,
    Look,
}

/// One connected replica.
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) outbox: Arc<Outbox>,
    /// The newest heartbeat: what leases are anchored at.
    pub(super) heartbeat: u64,
    /// When that came: what is left of overrides is told as of then.
    pub(super) heartbeat_came: Timestamp,
    pub(super) acknowledged: BTreeMap<BreakerKey, Fence>,
    pub(super) overrides_acknowledged: u64,
    pub(super) applied: Revision,
    pub(super) rejected: Vec<v1::RejectedPolicy>,
    pub(super) connected: Timestamp,
    pub(super) heard: Timestamp,
    /// Of policies with a rollout in progress.
    pub(super) trials: TrialWindows,
    /// Its breakers that are not shared, as it has been told.
    pub(super) unshared: Unshared,
}

pub(super) struct Owner {
    pub(super) store: StoreHandle,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) log: Log,
    decisions: Decisions,
    pub(super) epoch: Instant,
    pub(super) coordinator: Coordinator,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// The sessions again, by what the coordinator knows them as.
    pub(super) by_member: BTreeMap<(CallerId, MemberId), SessionId>,
    next_session: u64,
    pub(super) next_canvass: u64,
    pub(super) overrides: Overrides,
    pub(super) sharing: Sharing,
    /// Rollouts in progress, by their candidates.
    pub(super) trials: BTreeMap<Revision, Trial>,
}

pub(super) async fn start(
    store: StoreHandle,
    hub: Hub,
    shutdown: Shutdown,
    inbox: mpsc::Receiver<Command>,
    (log, unwritten, decisions): (Log, watch::Receiver<u64>, Decisions),
) -> Result<watch::Sender<Arc<View>>, StoreError> {
    let term = store.next_term(0).await?;
    let run = new_run();
    let epoch = Instant::now();
    let overrides = Overrides::load(&store, Timestamp::ZERO).await?;
    let mut policies = hub.subscribe();
    let snapshot = Arc::clone(&policies.borrow_and_update());
    let sharing = Sharing::new(&snapshot, Limits::default().lease);
    let mut owner = Owner {
        store,
        snapshot,
        log,
        decisions,
        epoch,
        coordinator: Coordinator::new(term, run, Timestamp::ZERO, Limits::default()),
        sessions: BTreeMap::new(),
        by_member: BTreeMap::new(),
        next_session: 1,
        next_canvass: 1,
        overrides,
        sharing,
        trials: BTreeMap::new(),
    };
    owner.watch_rollouts();
    let view = watch::Sender::new(Arc::new(owner.view()));
    tokio::spawn(owner.run(inbox, policies, unwritten, view.clone(), shutdown));
    Ok(view)
}

/// Random, so that no store can bring it back.
fn new_run() -> RunId {
    loop {
        if let Some(run) = RunId::new(fastrand::u64(1..)) {
            return run;
        }
    }
}

impl Owner {
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::after_origin(self.epoch.elapsed())
    }

    pub(super) fn draw() -> Draw {
        Draw::new(fastrand::f64())
    }

    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut policies: watch::Receiver<Arc<Snapshot>>,
        mut unwritten: watch::Receiver<u64>,
        show: watch::Sender<Arc<View>>,
        shutdown: Shutdown,
    ) {
        let mut shown = Instant::now();
        let mut next_view = VIEW_INTERVAL;
        let mut awake = Instant::now();
        let mut changed = false;
        let begun = shutdown.begun();
        tokio::pin!(begun);
        loop {
            let deadline = self.next_deadline().map(|at| self.epoch + at.since_origin());
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let woken = tokio::select! {
                // Replicas' streams say goodbye by themselves; verdicts end with their leases.
                () = &mut begun => return,
                command = inbox.recv() => match command {
                    Some(command) => Woken::Told(command),
                    None => return,
                },
                Ok(()) = policies.changed() => Woken::Policies,
                Ok(()) = unwritten.changed() => Woken::Unwritten,
                () = due => Woken::Due,
                () = tokio::time::sleep_until(shown + next_view), if changed && show.receiver_count() > 0 => Woken::Show,
                () = tokio::time::sleep_until(awake + LOOK_INTERVAL) => Woken::Look,
            };
            // Before anything is believed of what has waited meanwhile.
            let asleep = awake.elapsed();
            awake = Instant::now();
            if asleep > self.coordinator.limits().lease / 3 {
                tracing::error!(
                    event.name = "fleet.stall",
                    seconds = asleep.as_secs_f64(),
                    "the owner has been asleep"
                );
                let effects = self.coordinator.suspect(Suspicion::Stall, self.now());
                self.carry_out(effects);
                changed = true;
            }
            // A replica tells of what it has just been sent, and of a quiet breaker it tells once: what it runs must be known here before.
            if policies.has_changed().unwrap_or(false) {
                let snapshot = Arc::clone(&policies.borrow_and_update());
                self.take_policies(snapshot);
                changed = true;
            }
            match woken {
                Woken::Told(command) => match command {
                    Command::Refresh(reply) => {
                        shown = Instant::now();
                        changed = false;
                        show.send_replace(Arc::new(self.view()));
                        // Whoever asked may have gone.
                        let _ = reply.send(());
                    }
                    command @ (Command::Join { .. }
                    | Command::Leave(_)
                    | Command::Told(..)
                    | Command::Force { .. }
                    | Command::Release { .. }
                    | Command::Explain { .. }
                    | Command::Gone { .. }) => {
                        self.handle(command).await;
                        changed = true;
                    }
                },
                Woken::Policies => {
                    // `changed()` has marked them as seen.
                    let snapshot = Arc::clone(&policies.borrow_and_update());
                    self.take_policies(snapshot);
                    changed = true;
                }
                Woken::Unwritten => {
                    // What can't be written down must not be done.
                    let effects = self.coordinator.suspect(Suspicion::StoreUnwritable, self.now());
                    self.carry_out(effects);
                    changed = true;
                }
                Woken::Due => {
                    self.tick().await;
                    changed = true;
                }
                Woken::Show => {
                    let began = Instant::now();
                    changed = false;
                    show.send_replace(Arc::new(self.view()));
                    shown = Instant::now();
                    next_view = VIEW_INTERVAL.max((shown - began) * VIEW_SHARE);
                }
                Woken::Look => {}
            }
            self.keep_decisions();
        }
    }

    /// Passes on what was decided or held back.
    fn keep_decisions(&mut self) {
        let (now, today, run) = (self.now(), SystemTime::now(), self.coordinator.run());
        let mut taken = self.coordinator.take_records().peekable();
        if taken.peek().is_some() {
            self.decisions.put(taken.map(|(key, record)| explain::stored(run, key, &record, now, today)));
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let own = [self.overrides.next_end(), self.sharing.next_deadline()];
        self.coordinator.next_deadline().into_iter().chain(own.into_iter().flatten()).min()
    }

    async fn tick(&mut self) {
        let now = self.now();
        let effects = self.coordinator.tick(now, Self::draw());
        self.carry_out(effects);
        self.divide_limits();
        self.end_expired_overrides(now).await;
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Join { identity, outbox, reply } => {
                let joined = self.join(*identity, outbox).await;
                if let Err(Ok(joined)) = reply.send(joined) {
                    // The stream ended while it waited.
                    self.leave(joined.session);
                }
            }
            Command::Leave(session) => self.leave(session),
            Command::Told(session, told) => self.told(session, told),
            Command::Force { request, reply } => {
                let answer = self.force(request).await;
                let _ = reply.send(answer);
            }
            Command::Release { request, reply } => {
                let answer = self.release(request).await;
                let _ = reply.send(answer);
            }
            Command::Explain { which, reply } => {
                let _ = reply.send(self.explain(&which));
            }
            Command::Gone { keys, reply } => {
                let _ = reply.send(keys.iter().map(|key| self.breaker_view(key)).collect());
            }
            Command::Refresh(reply) => {
                let _ = reply.send(());
            }
        }
    }

    async fn join(&mut self, identity: Identity, outbox: Arc<Outbox>) -> Result<Joined, StoreError> {
        if let Some(at_least) = self.coordinator.must_rise_to(&identity.caller_id(), identity.seen) {
            // A restored backup or a wiped database must not fence itself out, nor speak in another run's term: the term rises above what
            // the replica has seen, and the replica is told nothing before.
            let term = self.store.next_term(at_least).await?;
            let effects = self.coordinator.raise_term(term, self.now());
            self.carry_out(effects);
            self.sharing.learn(self.now());
            tracing::warn!(
                event.name = "fleet.term",
                term,
                seen = identity.seen.term,
                "a replica has seen another run's term: raised above it"
            );
        }
        let same = |session: &Session| {
            session.identity.namespace == identity.namespace
                && session.identity.caller == identity.caller
                && session.identity.instance() == identity.instance()
        };
        let older: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| same(session)).map(|(id, _)| *id).collect();
        for id in older {
            if let Some(session) = self.sessions.get(&id) {
                session.outbox.replace();
            }
            self.leave(id);
        }
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let now = self.now();
        tracing::info!(
            event.name = "instance.joined",
            service.name = %identity.caller,
            service.instance.id = %identity.instance(),
            sdk = identity.sdk_version,
            "replica connected"
        );
        let caller = identity.caller_id();
        self.coordinator.join(&caller, &identity.member, identity.zone.as_ref(), now);
        self.by_member.insert((caller, identity.member.clone()), id);
        let session = Session {
            identity,
            outbox,
            heartbeat: 0,
            heartbeat_came: now,
            acknowledged: BTreeMap::new(),
            overrides_acknowledged: 0,
            applied: Revision(0),
            rejected: Vec::new(),
            connected: now,
            heard: now,
            trials: TrialWindows::new(),
            unshared: Unshared::default(),
        };
        session.outbox.overrides(self.overrides.set_for(&session, self.coordinator.term(), now));
        self.sessions.insert(id, session);
        Ok(Joined { session: id, term: self.coordinator.term(), run: self.coordinator.run() })
    }

    fn leave(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        tracing::info!(
            event.name = "instance.left",
            service.name = %session.identity.caller,
            service.instance.id = %session.identity.instance(),
            "replica disconnected"
        );
        let run = (session.identity.caller_id(), session.identity.member);
        self.by_member.remove(&run);
        let (caller, member) = run;
        let effects = self.coordinator.leave(&caller, &member, self.now(), Self::draw());
        self.carry_out(effects);
    }

    fn told(&mut self, id: SessionId, told: Told) {
        let now = self.now();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.heard = now;
        match told {
            Told::Heartbeat(sync::Heartbeat { seq, windows, dropped, limits }) => {
                if seq > session.heartbeat {
                    session.heartbeat = seq;
                    session.heartbeat_came = now;
                }
                let member = session.identity.member.clone();
                for window in windows {
                    self.window(id, window, None);
                }
                for key in dropped {
                    if let Some((key, _)) = self.key_of(id, &key) {
                        let effects = self.coordinator.drop_key(&key, &member, now, Self::draw());
                        self.carry_out(effects);
                    }
                }
                self.limits(id, seq, limits);
                let lease = Some(fusebox_proto::duration::to_wire(self.coordinator.limits().lease));
                let (term, rev) = (self.coordinator.term(), self.coordinator.renewable());
                let ack = sync::HeartbeatAck { seq, term, rev, lease };
                if let Some(session) = self.sessions.get(&id) {
                    session.outbox.ack(ack);
                }
            }
            Told::Transition(transition) => {
                let caller = session.identity.caller_id();
                if self.coordinator.transition_is_new(&caller, &session.identity.member, transition.seq) {
                    self.transition(id, transition);
                }
            }
            Told::Canvass(sync::CanvassAnswer { id: _, window }) => {
                if let Some(window) = window {
                    self.window(id, window, None);
                }
            }
            Told::Probe { key, probe, result } => self.probe(id, &key, probe, result),
            Told::Applied { revision, rejected } => {
                for refused in &rejected {
                    tracing::warn!(
                        event.name = "policy.rejected",
                        service.instance.id = %session.identity.member.instance,
                        policy = refused.policy,
                        revision = refused.revision,
                        reason = refused.reason,
                        "a replica refused a policy"
                    );
                }
                session.applied = revision;
                session.rejected = rejected;
            }
            Told::Refused { revision, reason } => {
                tracing::warn!(
                    event.name = "policy.rejected",
                    service.instance.id = %session.identity.member.instance,
                    revision = revision.0,
                    reason,
                    "a replica could not use an update"
                );
                session.rejected = vec![v1::RejectedPolicy { policy: String::new(), revision: revision.0, reason }];
            }
            Told::Acknowledged(sync::VerdictAck { key, term, rev }) => match key {
                Some(key) => {
                    if let Some((key, _)) = self.key_of(id, &key)
                        && let Some(session) = self.sessions.get_mut(&id)
                    {
                        session.acknowledged.insert(key, Fence { term, rev });
                    }
                }
                None if term == self.coordinator.term() => session.overrides_acknowledged = rev,
                None => {}
            },
        }
    }

    /// Policies have changed: verdicts about older revisions are void, breakers that are gone are forgotten.
    fn take_policies(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        self.watch_rollouts();
        for session in self.sessions.values_mut() {
            session.unshared.begin_again();
        }
        let now = self.now();
        let keys: Vec<BreakerKey> = self.coordinator.keys().cloned().collect();
        for key in keys {
            match self.settings(&key) {
                Some(settings) => {
                    let effects = self.coordinator.configure(&key, settings, now);
                    self.carry_out(effects);
                }
                None => {
                    self.coordinator.forget(&key);
                    for session in self.sessions.values_mut() {
                        session.acknowledged.remove(&key);
                    }
                }
            }
        }
    }

    /// What the policy in force says about a breaker; `None` if there is no such breaker any more.
    fn settings(&self, key: &BreakerKey) -> Option<Settings> {
        let name = format!("namespaces/{}/policies/{}", key.namespace, key.policy);
        settings(self.snapshot.get(&name)?, key)
    }

    /// The shared breaker that a replica's own one belongs to, if the policy in force knows it.
    pub(super) fn key_of(&self, id: SessionId, wire: &v1::BreakerKey) -> Option<(BreakerKey, Settings)> {
        let identity = &self.sessions.get(&id)?.identity;
        let name = format!("namespaces/{}/policies/{}", identity.namespace, wire.policy);
        self.key_in(id, self.snapshot.get(&name)?, wire)
    }

    /// The breaker that a replica's own one is, by one definition of its policy.
    pub(super) fn key_in(
        &self,
        id: SessionId,
        stored: &StoredPolicy,
        wire: &v1::BreakerKey,
    ) -> Option<(BreakerKey, Settings)> {
        let identity = &self.sessions.get(&id)?.identity;
        let own = BreakerKey::try_from(v1::BreakerKey {
            namespace: identity.namespace.to_string(),
            // Reports are believed about the replica's own service only, whatever they say.
            caller: identity.caller.to_string(),
            zone: String::new(),
            ..wire.clone()
        })
        .ok()?;
        let key = own.in_scope(stored.policy.definition.coordination.scope(), identity.zone.as_ref());
        let settings = settings(stored, &key)?;
        Some((key, settings))
    }
}

/// What a definition says about a breaker; `None` if it has no such breaker.
fn settings(stored: &StoredPolicy, key: &BreakerKey) -> Option<Settings> {
    let definition = &stored.policy.definition;
    let (_, spec) = definition.pipeline.breakers().find(|(strategy, _)| **strategy == key.strategy)?;
    let scope_fits = match definition.coordination.scope() {
        fusebox_policy::fleet::CoordinationScope::Fleet => key.zone.is_none(),
        fusebox_policy::fleet::CoordinationScope::Zone => true,
    };
    (definition.selector.admits_caller(&key.caller) && *definition.selector.target() == key.target && scope_fits).then(
        || Settings {
            breaker: Arc::new(spec.clone()),
            coordination: definition.coordination,
            policy_revision: stored.policy.revision,
        },
    )
}
