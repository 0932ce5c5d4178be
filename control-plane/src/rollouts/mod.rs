//! Bringing a new revision of a policy to a part of the fleet first.
//!
//! A rollout is a durable resource of one policy: a candidate, which is a numbered revision like every other, stages that select replicas, and
//! gates between them. [`spec`] is what is asked for, [`machine`] how it goes on, [`select`] who has the candidate, [`gates`] when a stage
//! may be promoted; all of them are pure. What a step writes is decided in `store::rollout`. [`Rollouts`] is the use case, and [`watch`]
//! the task that looks at the gates and makes the steps that need no operator. What replicas show of a rollout is collected by the one
//! who knows them, the owner of the fleet (`fleet::trials`).
//!
//! Choices, and why:
//! - **Selection is a function, not a list.** It needs no memory per replica, survives restarts of both sides, and puts a replica that
//!   joins in the middle where it belongs.
//! - **Each step is a revision of the store.** A replica that has acknowledged revision R has what it is selected for at R, whichever way it
//!   came there: by deltas, by a snapshot, or after a reconnection.
//! - **An abort leaves alone who was not selected.** What is in force keeps its own number, so the breakers of those replicas and the fleet's
//!   verdicts about them go on; an abort in the middle of an outage must not lift the fleet's protection. Those that are moved back
//!   are sent the old content in a later revision of the store, and the history tells of it as a rollback.
//! - **One rollout of a policy at a time, and no other write beside it.** Two changes at once could not be told apart by any gate.
//! - **Who runs a candidate decides locally.** See `fleet::trials`.

pub mod gates;
pub mod machine;
pub mod select;
pub mod spec;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;
pub mod wire;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_policy::{Namespace, PolicyName, Revision};
use tokio::sync::watch as cell;

use self::{
    gates::{Gate, Observed},
    machine::Step,
};
use crate::{
    caller::Caller,
    fleet::{Fleet, TrialView},
    hub::Hub,
    store::{NewRollout, Note, Once, RolloutFilter, Staged, Stepped, StoreError, StoreHandle, StoredRollout},
};

/// What is known of a rollout in progress.
#[derive(Clone, Debug)]
pub struct Live {
    /// As its replicas show it.
    pub view: TrialView,
    /// What the gates say.
    pub gates: Vec<Gate>,
}

impl Live {
    /// Whether it is of the present stage: the owner of the fleet hears of a step a moment later than the hub.
    #[must_use]
    pub fn is_of(&self, staged: &Staged) -> bool {
        self.view.since == Some(staged.rollout.standing.since)
    }
}

/// How often the owner is asked again whether it has heard of a step, and after how long: it is told at once.
const LOOKS: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Everything that is known of rollouts in progress, by their candidates.
pub type Lives = BTreeMap<Revision, Live>;

/// A cheap handle.
#[derive(Clone)]
pub struct Rollouts {
    pub(crate) store: StoreHandle,
    hub: Hub,
    fleet: Fleet,
    lives: Arc<cell::Sender<Arc<Lives>>>,
}

impl std::fmt::Debug for Rollouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rollouts").finish_non_exhaustive()
    }
}

/// Why a step is not made.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The gates do not allow it.
    #[error("rollout {name} is not promoted: {}", gates::holding(.gates))]
    GatesHold {
        /// The rollout.
        name: String,
        /// All its gates.
        gates: Vec<Gate>,
    },
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which rollout: its policy and its candidate.
pub type RolloutId = (Namespace, PolicyName, Revision);

impl Rollouts {
    /// Over a store, the hub that shows it, and the fleet.
    #[must_use]
    pub fn new(store: StoreHandle, hub: Hub, fleet: Fleet) -> Self {
        Self { store, hub, fleet, lives: Arc::new(cell::Sender::default()) }
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(
        &self,
        new: NewRollout,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Result<StoredRollout, StoreError> {
        let Stepped { rollout, state } = self.store.start_rollout(new, note, validate_only, once).await?;
        if !validate_only {
            self.hub.replace(state);
            tell(&rollout, "start");
        }
        Ok(rollout)
    }

    /// Promotes a rollout if its gates allow it, or by force.
    ///
    /// # Errors
    /// The gates hold it, or the store's word.
    pub async fn promote(
        &self,
        id: RolloutId,
        force: bool,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Result<StoredRollout, StepError> {
        let present = self.hub.current();
        let found = present.rollouts.iter().find(|staged| staged.rollout.candidate == id.2);
        // That there is none is for the store to say.
        let from = found.map_or(0, |staged| staged.rollout.standing.stage);
        if let Some(staged) = found.filter(|staged| !force && staged.rollout.standing.state == machine::State::Running)
        {
            let live = self.look(staged).await;
            if !gates::holding(&live.gates).is_empty() {
                return Err(StepError::GatesHold { name: staged.rollout.name(), gates: live.gates });
            }
        }
        Ok(self.step(id, Step::Promote { from, force }, note, validate_only, once).await?)
    }

    /// Makes a step.
    ///
    /// # Errors
    /// The store's word.
    pub async fn step(
        &self,
        id: RolloutId,
        step: Step,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Result<StoredRollout, StoreError> {
        let (namespace, policy, candidate) = id.clone();
        let stepped = self.store.step_rollout(id, step, note, validate_only, once).await;
        let Stepped { rollout, state } = match stepped {
            // It is over, or there never was one.
            Err(StoreError::NoSuchRollout(name)) => {
                let filter = RolloutFilter {
                    namespace: Some(namespace),
                    policy: Some(policy),
                    before: Some(Revision(candidate.0.saturating_add(1))),
                    limit: 1,
                };
                let ended = self.store.rollouts(filter).await?.pop().is_some_and(|found| found.candidate == candidate);
                return Err(if ended {
                    StoreError::RolloutRefuses { name, refused: machine::Refused::Ended }
                } else {
                    StoreError::NoSuchRollout(name)
                });
            }
            stepped => stepped?,
        };
        if !validate_only {
            self.hub.replace(state);
            tell(&rollout, step.name());
        }
        Ok(rollout)
    }

    /// Follows what is known of rollouts in progress.
    #[must_use]
    pub fn follow(&self) -> cell::Receiver<Arc<Lives>> {
        self.lives.subscribe()
    }

    /// What is known of a rollout as of now.
    pub async fn look(&self, staged: &Staged) -> Live {
        let mut found = live(staged, TrialView::default());
        for _ in 0..LOOKS {
            // Nobody shows anything when the server ends.
            let Ok(view) = self.fleet.view().await else { break };
            found = live(staged, view.trials.get(&staged.rollout.candidate).cloned().unwrap_or_default());
            if found.is_of(staged) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        found
    }
}

/// What the gates of the present stage say.
fn live(staged: &Staged, view: TrialView) -> Live {
    let StoredRollout { spec, standing, .. } = &staged.rollout;
    let bake = spec.stages.get(standing.stage).map_or(Duration::ZERO, |stage| stage.bake);
    // What the owner shows of a stage before this one says nothing about this one.
    let observed = if view.since == Some(standing.since) {
        Observed { bake, ..view.observed }
    } else {
        Observed { bake: bake.max(Duration::from_nanos(1)), ..Observed::default() }
    };
    Live { gates: gates::judge(&observed, &spec.gates), view }
}

/// A change that the server makes by itself.
fn by_itself(message: String) -> Note {
    Note { caller: Caller::server("rollouts"), message, at: SystemTime::now() }
}

fn tell(rollout: &StoredRollout, step: &'static str) {
    tracing::info!(
        event.name = "rollout.changed",
        rollout = rollout.name(),
        step,
        stage = rollout.standing.stage + 1,
        state = rollout.standing.state.name(),
        why = rollout.standing.reason,
        "rollout changed"
    );
}
