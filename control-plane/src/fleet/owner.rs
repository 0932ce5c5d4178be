//! The one task that owns the fleet's state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fusebox_policy::{
    CallerName, Draw, Revision, Timestamp,
    fleet::{
        BreakerKey,
        evidence::MemberId,
        held::Fence,
        shared::{FleetState, Settings, SharedBreaker},
    },
};
use fusebox_proto::{sync::v1 as sync, v1};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Command, Identity, Joined, LEASE, Outbox, SessionId, Told, overrides::Overrides, shares::Sharing, transitions::Log,
    view::View,
};
use crate::{
    hub::{Hub, Snapshot},
    shutdown::Shutdown,
    store::{StoreError, StoreHandle},
};

/// How soon a change shows. Many changes in a row make one view.
const VIEW_INTERVAL: Duration = Duration::from_millis(50);
/// Transitions' numbers are remembered for this many runs of replicas.
const MOST_SEEN: usize = 10_000;

/// One connected replica.
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) outbox: Arc<Outbox>,
    /// The newest heartbeat: what leases are anchored at.
    pub(super) heartbeat: u64,
    pub(super) keys: BTreeSet<BreakerKey>,
    pub(super) acknowledged: BTreeMap<BreakerKey, Fence>,
    pub(super) overrides_acknowledged: u64,
    pub(super) applied: Revision,
    pub(super) rejected: Vec<v1::RejectedPolicy>,
    pub(super) connected: Timestamp,
    pub(super) heard: Timestamp,
}

/// The newest verdict about a breaker.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    pub(super) fence: Fence,
    pub(super) state: FleetState,
    pub(super) half_open_at: Option<Timestamp>,
    pub(super) reason: String,
}

/// A shared breaker, and what was last said about it.
pub(super) struct Entry {
    pub(super) machine: SharedBreaker,
    pub(super) newest: Option<Newest>,
}

/// A probe permit that is out.
pub(super) struct Issued {
    pub(super) key: BreakerKey,
    /// Its number in the machine of the key.
    pub(super) number: u64,
    pub(super) session: SessionId,
}

pub(super) struct Owner {
    pub(super) store: StoreHandle,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) log: Log,
    pub(super) epoch: Instant,
    pub(super) term: u64,
    pub(super) rev: u64,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    next_session: u64,
    pub(super) entries: BTreeMap<BreakerKey, Entry>,
    pub(super) issued: BTreeMap<u64, Issued>,
    pub(super) next_permit: u64,
    pub(super) next_canvass: u64,
    pub(super) overrides: Overrides,
    pub(super) sharing: Sharing,
    pub(super) seen: BTreeMap<(CallerName, MemberId), u64>,
}

pub(super) async fn start(
    store: StoreHandle,
    hub: Hub,
    shutdown: Shutdown,
    inbox: mpsc::Receiver<Command>,
    log: Log,
) -> Result<watch::Receiver<Arc<View>>, StoreError> {
    let term = store.next_term(0).await?;
    let epoch = Instant::now();
    let overrides = Overrides::load(&store, Timestamp::ZERO).await?;
    let mut policies = hub.subscribe();
    let snapshot = Arc::clone(&policies.borrow_and_update());
    let sharing = Sharing::new(&snapshot);
    let owner = Owner {
        store,
        snapshot,
        log,
        epoch,
        term,
        rev: 0,
        sessions: BTreeMap::new(),
        next_session: 1,
        entries: BTreeMap::new(),
        issued: BTreeMap::new(),
        next_permit: 1,
        next_canvass: 1,
        overrides,
        sharing,
        seen: BTreeMap::new(),
    };
    let (show, view) = watch::channel(Arc::new(owner.view()));
    tokio::spawn(owner.run(inbox, policies, show, shutdown));
    Ok(view)
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
        show: watch::Sender<Arc<View>>,
        shutdown: Shutdown,
    ) {
        let mut shown = Instant::now();
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
            tokio::select! {
                // Replicas' streams say goodbye by themselves; verdicts end with their leases.
                () = &mut begun => return,
                command = inbox.recv() => match command {
                    Some(Command::Refresh(reply)) => {
                        shown = Instant::now();
                        changed = false;
                        show.send_replace(Arc::new(self.view()));
                        // Whoever asked may have gone.
                        let _ = reply.send(());
                    }
                    Some(command) => {
                        self.handle(command).await;
                        changed = true;
                    }
                    None => return,
                },
                Ok(()) = policies.changed() => {
                    let snapshot = Arc::clone(&policies.borrow_and_update());
                    self.take_policies(snapshot);
                    changed = true;
                }
                () = due => {
                    self.tick().await;
                    changed = true;
                }
                () = tokio::time::sleep_until(shown + VIEW_INTERVAL), if changed => {
                    shown = Instant::now();
                    changed = false;
                    show.send_replace(Arc::new(self.view()));
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let machines = self.entries.values().filter_map(|entry| entry.machine.next_deadline());
        machines.chain(self.overrides.next_end()).chain(self.sharing.next_deadline()).min()
    }

    async fn tick(&mut self) {
        let now = self.now();
        let due: Vec<BreakerKey> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.machine.next_deadline().is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let effects = match self.entries.get_mut(&key) {
                Some(entry) => entry.machine.tick(now, Self::draw()),
                None => continue,
            };
            self.carry_out(&key, effects, None);
        }
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
            Command::Release { pattern, reason, reply } => {
                let answer = self.release(&pattern, &reason).await;
                let _ = reply.send(answer);
            }
            Command::Refresh(reply) => {
                let _ = reply.send(());
            }
        }
    }

    async fn join(&mut self, identity: Identity, outbox: Arc<Outbox>) -> Result<Joined, StoreError> {
        if identity.highest_term > self.term {
            // A restored backup or a wiped database must not fence itself out: the term rises above what any replica has seen.
            self.term = self.store.next_term(identity.highest_term + 1).await?;
            self.sharing.learn(self.now());
            tracing::warn!(
                event.name = "fleet.term",
                term = self.term,
                "a replica has seen a later term: raised above it"
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
        let session = Session {
            identity,
            outbox,
            heartbeat: 0,
            keys: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            overrides_acknowledged: 0,
            applied: Revision(0),
            rejected: Vec::new(),
            connected: now,
            heard: now,
        };
        session.outbox.overrides(self.overrides.set_for(&session.identity, self.term, now));
        self.sessions.insert(id, session);
        Ok(Joined { session: id, term: self.term })
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
        for key in session.keys {
            self.drop_key(&session.identity.member, &key);
        }
    }

    pub(super) fn drop_key(&mut self, member: &MemberId, key: &BreakerKey) {
        let now = self.now();
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let effects = entry.machine.leave(member, now, Self::draw());
        // What nobody holds and nothing was decided about need not be remembered.
        let forgotten = entry.machine.is_idle() && entry.machine.state() == FleetState::Released;
        self.carry_out(key, effects, None);
        if forgotten {
            self.entries.remove(key);
        }
    }

    fn told(&mut self, id: SessionId, told: Told) {
        let now = self.now();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.heard = now;
        match told {
            Told::Heartbeat(sync::Heartbeat { seq, windows, dropped, limits }) => {
                session.heartbeat = session.heartbeat.max(seq);
                let member = session.identity.member.clone();
                for window in windows {
                    self.window(id, window, None);
                }
                for key in dropped {
                    if let Some(key) = self.key_of(id, &key).map(|(key, _)| key) {
                        if let Some(session) = self.sessions.get_mut(&id) {
                            session.keys.remove(&key);
                        }
                        self.drop_key(&member, &key);
                    }
                }
                self.limits(id, seq, limits);
                let lease = Some(fusebox_proto::duration::to_wire(LEASE));
                let ack = sync::HeartbeatAck { seq, term: self.term, rev: self.rev, lease };
                if let Some(session) = self.sessions.get(&id) {
                    session.outbox.ack(ack);
                }
            }
            Told::Transition(transition) => {
                let run = (session.identity.caller.clone(), session.identity.member.clone());
                if self.seen.len() >= MOST_SEEN && !self.seen.contains_key(&run) {
                    self.seen.clear();
                }
                let newest = self.seen.entry(run).or_default();
                if transition.seq <= *newest {
                    return;
                }
                *newest = transition.seq;
                self.transition(id, transition);
            }
            Told::Canvass(sync::CanvassAnswer { id: _, window }) => {
                if let Some(window) = window {
                    self.window(id, window, None);
                }
            }
            Told::Probe { permit, term, result } => self.probe(id, permit, term, result),
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
                None if term == self.term => session.overrides_acknowledged = rev,
                None => {}
            },
        }
    }

    /// Policies have changed: verdicts about older revisions are void, breakers that are gone are forgotten.
    fn take_policies(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        let now = self.now();
        let keys: Vec<BreakerKey> = self.entries.keys().cloned().collect();
        for key in keys {
            match self.settings(&key) {
                Some(settings) => {
                    let Some(entry) = self.entries.get_mut(&key) else { continue };
                    if entry.machine.settings().policy_revision != settings.policy_revision {
                        entry.newest = None;
                    }
                    let effects = entry.machine.configure(settings, now);
                    self.carry_out(&key, effects, None);
                }
                None => {
                    self.entries.remove(&key);
                    for session in self.sessions.values_mut() {
                        session.keys.remove(&key);
                        session.acknowledged.remove(&key);
                    }
                }
            }
        }
    }

    /// What the policy in force says about a breaker; `None` if there is no such breaker any more.
    fn settings(&self, key: &BreakerKey) -> Option<Settings> {
        let name = format!("namespaces/{}/policies/{}", key.namespace, key.policy);
        let stored = self.snapshot.get(&name)?;
        let definition = &stored.policy.definition;
        let (_, spec) = definition.pipeline.breakers().find(|(strategy, _)| **strategy == key.strategy)?;
        let scope_fits = match definition.coordination.scope() {
            fusebox_policy::fleet::CoordinationScope::Fleet => key.zone.is_none(),
            fusebox_policy::fleet::CoordinationScope::Zone => true,
        };
        (definition.selector.admits_caller(&key.caller) && *definition.selector.target() == key.target && scope_fits)
            .then(|| Settings {
                breaker: Arc::new(spec.clone()),
                coordination: definition.coordination,
                policy_revision: stored.policy.revision,
            })
    }

    /// The shared breaker that a replica's own one belongs to, if the policy in force knows it.
    pub(super) fn key_of(&self, id: SessionId, wire: &v1::BreakerKey) -> Option<(BreakerKey, Settings)> {
        let identity = &self.sessions.get(&id)?.identity;
        let name = format!("namespaces/{}/policies/{}", identity.namespace, wire.policy);
        let definition = &self.snapshot.get(&name)?.policy.definition;
        let own = BreakerKey::try_from(v1::BreakerKey {
            namespace: identity.namespace.to_string(),
            // Reports are believed about the replica's own service only, whatever they say.
            caller: identity.caller.to_string(),
            zone: String::new(),
            ..wire.clone()
        })
        .ok()?;
        let key = own.in_scope(definition.coordination.scope(), identity.zone.as_ref());
        let settings = self.settings(&key)?;
        Some((key, settings))
    }
}
