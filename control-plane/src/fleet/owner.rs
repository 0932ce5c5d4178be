//! The one task that owns the fleet's state: it drives the [`Coordinator`], and holds sessions and overrides.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_policy::{
    Draw, Revision, Timestamp,
    fleet::{
        Coordinator,
        coordinator::{Limits, Suspicion},
        evidence::MemberId,
        key::CallerId,
        term::RunId,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Command, SessionId, decisions::Decisions, explain, overrides::Overrides, replicas::Session, shares::Sharing,
    transitions::Log, trials::Trial, view::View,
};
use crate::{
    hub::{Hub, Snapshot},
    shutdown::Shutdown,
    store::{StoreError, StoreHandle},
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
    pub(super) next_session: u64,
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
}
