//! Evidence in, verdicts out: how the breakers of connected replicas act as one.
//!
//! One task, the owner, holds every connected replica and every override, and drives the pure `fusebox_policy::fleet::Coordinator`,
//! which decides. Commands come in through one bounded channel; verdicts leave through each session's [`Outbox`], a cell of the
//! newest state; what operators see leaves through a `watch` cell.

mod decisions;
mod effects;
mod explain;
mod in_force;
mod outbox;
mod overrides;
mod owner;
mod replicas;
mod services;
mod shares;
mod transitions;
mod trials;
mod unshared;
mod view;
mod windows;

use std::sync::Arc;

use fusebox_policy::{
    CallerName, InstanceId, Namespace, Revision, Zone,
    fleet::{
        BreakerKey,
        evidence::MemberId,
        gate::{Forced, ProbeId},
        key::CallerId,
        shared::ProbeResult,
        term::{RunId, SeenTerm},
    },
};
use fusebox_proto::{sync::v1 as sync, v1};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use decisions::Remembered;
pub use explain::Unexplained;
use explain::{Explained, Which};
pub use outbox::Outbox;
pub(crate) use overrides::check_reason;
pub use overrides::{ForceError, ForceRequest, ReleaseRequest};
pub(crate) use transitions::wire as transition_wire;
pub use trials::TrialView;
pub use view::{View, instance_key};

use crate::{
    hub::Hub,
    shutdown::Shutdown,
    store::{StoreError, StoreHandle},
};

/// Commands that may wait: a burst of a thousand replicas' heartbeats. Whoever sends more waits with its stream, which is how TCP says it
/// to the replica.
const COMMANDS: usize = 1024;
/// Live transitions that a slow reader may lag behind before it loses some.
const LIVE: usize = 1024;
/// How often replicas tell what they see. A third of what people notice, and small enough that evidence is fresh.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(1);

/// Who a replica is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Whose policies it runs.
    pub namespace: Namespace,
    /// The service.
    pub caller: CallerName,
    /// The replica, and its run.
    pub member: MemberId,
    /// Its zone.
    pub zone: Option<Zone>,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Its SDK.
    pub sdk_version: String,
    /// Where its policies came from when it connected.
    pub policy_source: String,
    /// The highest term that it has ever seen, and whose.
    pub seen: SeenTerm,
    /// Whether it obeys nothing.
    pub ignores_fleet: bool,
    /// Whether its SDK knows what a disabled breaker is.
    pub knows_disabled: bool,
}

impl Identity {
    /// `services/{service}/instances/{instance}`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("services/{}/instances/{}", self.caller, self.member.instance)
    }

    /// Whose replica it is.
    pub(crate) fn caller_id(&self) -> CallerId {
        CallerId { namespace: self.namespace.clone(), caller: self.caller.clone() }
    }

    fn instance(&self) -> &InstanceId {
        &self.member.instance
    }
}

/// One stream of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// What a replica tells.
#[derive(Debug)]
pub enum Told {
    /// Still here, with evidence.
    Heartbeat(sync::Heartbeat),
    /// A breaker changed.
    Transition(sync::Transition),
    /// The answer to a canvass.
    Canvass(sync::CanvassAnswer),
    /// What became of a probe.
    Probe {
        /// Of which breaker.
        key: v1::BreakerKey,
        /// The permit.
        probe: ProbeId,
        /// What it showed.
        result: ProbeResult,
    },
    /// Policies were applied, but for some.
    Applied {
        /// The revision that runs.
        revision: Revision,
        /// What was refused.
        rejected: Vec<v1::RejectedPolicy>,
    },
    /// Nothing of an update could be used.
    Refused {
        /// The revision.
        revision: Revision,
        /// Why.
        reason: String,
    },
    /// A verdict, or the set of overrides, is in force there.
    Acknowledged(sync::VerdictAck),
}

pub(crate) enum Command {
    Join { identity: Box<Identity>, outbox: Arc<Outbox>, reply: oneshot::Sender<Result<Joined, JoinError>> },
    Leave(SessionId),
    Told(SessionId, Told),
    Force { request: ForceRequest, reply: oneshot::Sender<Result<v1::Override, ForceError>> },
    Release { request: ReleaseRequest, reply: oneshot::Sender<Result<Vec<v1::Override>, ForceError>> },
    Explain { which: Which, reply: oneshot::Sender<Option<Explained>> },
    Gone { keys: Vec<BreakerKey>, reply: oneshot::Sender<Vec<v1::Breaker>> },
    Refresh(oneshot::Sender<()>),
}

/// A session's place in the fleet.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    /// Its number.
    pub session: SessionId,
    /// The term of this run.
    pub term: u64,
    /// The id of this run.
    pub run: RunId,
}

/// Why a replica can't be one of the fleet.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The term could not be raised.
    #[error("the term could not be raised")]
    Store(#[from] StoreError),
    /// It says that it has seen a term that no server of this fleet will have had.
    #[error(
        "hello.highest_term {seen} is too far beyond this server's, which rises to {reach} at most: start the replica without its cache"
    )]
    TermTooFar {
        /// What it has seen.
        seen: u64,
        /// To where this run rises.
        reach: u64,
    },
}

/// A cheap handle on the owner.
#[derive(Clone, Debug)]
pub struct Fleet {
    commands: mpsc::Sender<Command>,
    view: watch::Sender<Arc<View>>,
    live: broadcast::Sender<Arc<v1::BreakerTransition>>,
    remembered: Remembered,
}

/// The owner has ended: the server is shutting down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server is shutting down")]
pub struct Ended;

impl Fleet {
    /// Starts the owner: a new run with a new term.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(store: StoreHandle, hub: Hub, shutdown: Shutdown) -> Result<Self, StoreError> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (live, _) = broadcast::channel(LIVE);
        let (log, unwritten) = transitions::start(Arc::clone(&store), live.clone());
        let (decisions, remembered) = decisions::start(Arc::clone(&store));
        let view = owner::start(store, hub, shutdown, inbox, (log, unwritten, decisions)).await?;
        Ok(Self { commands, view, live, remembered })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// A replica has connected.
    ///
    /// # Errors
    /// The server ends; or why it can't be one of the fleet.
    pub async fn join(&self, identity: Identity, outbox: Arc<Outbox>) -> Result<Result<Joined, JoinError>, Ended> {
        self.ask(|reply| Command::Join { identity: Box::new(identity), outbox, reply }).await
    }

    /// A replica's stream has ended.
    pub async fn leave(&self, session: SessionId) {
        // An owner that has ended has forgotten everybody.
        let _ = self.commands.send(Command::Leave(session)).await;
    }

    /// A replica tells something.
    ///
    /// # Errors
    /// The server ends.
    pub async fn tell(&self, session: SessionId, told: Told) -> Result<(), Ended> {
        self.commands.send(Command::Told(session, told)).await.map_err(|_| Ended)
    }

    /// An operator forces breakers.
    ///
    /// # Errors
    /// The server ends; or why it may not be.
    pub async fn force(&self, request: ForceRequest) -> Result<Result<v1::Override, ForceError>, Ended> {
        self.ask(|reply| Command::Force { request, reply }).await
    }

    /// An operator ends overrides.
    ///
    /// # Errors
    /// The server ends, or the store failed.
    pub async fn release(&self, request: ReleaseRequest) -> Result<Result<Vec<v1::Override>, ForceError>, Ended> {
        self.ask(|reply| Command::Release { request, reply }).await
    }

    /// What operators see, as of now.
    ///
    /// # Errors
    /// The server ends.
    pub async fn view(&self) -> Result<Arc<View>, Ended> {
        self.ask(Command::Refresh).await?;
        Ok(Arc::clone(&self.view.borrow()))
    }

    /// Follows what operators see, from the present view on. While nobody follows, no views are made.
    ///
    /// # Errors
    /// The server ends.
    pub async fn follow(&self) -> Result<watch::Receiver<Arc<View>>, Ended> {
        let view = self.view.subscribe();
        self.ask(Command::Refresh).await?;
        Ok(view)
    }

    /// Follows transitions as they happen.
    #[must_use]
    pub fn live(&self) -> broadcast::Receiver<Arc<v1::BreakerTransition>> {
        self.live.subscribe()
    }
}

/// The state that an override puts a breaker in.
pub(crate) const fn forced_state(forced: Forced) -> fusebox_policy::fleet::shared::FleetState {
    match forced {
        Forced::Open => fusebox_policy::fleet::shared::FleetState::ForcedOpen,
        Forced::Closed => fusebox_policy::fleet::shared::FleetState::ForcedClosed,
        Forced::Disabled => fusebox_policy::fleet::shared::FleetState::Disabled,
    }
}
