//! `WatchRollouts`: every rollout of a policy or a namespace, and what changes of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fusebox_policy::{Namespace, PolicyName, Revision};
use fusebox_proto::v1::{self, watch_rollouts_response::Event};
use tokio::sync::watch;
use tonic::Status;

use super::RolloutApi;
use crate::{
    filter::Filter,
    grpc::{pages, status},
    hub::Snapshot,
    rollouts::{Lives, RolloutId, wire},
    store::{RolloutFilter, StoredRollout},
};

/// So many of the newest are looked at after a change: more do not begin and end between two looks.
const NEWEST: u32 = 100;

/// One reader's place.
pub(super) struct All {
    api: RolloutApi,
    namespace: Option<Namespace>,
    policy: Option<PolicyName>,
    filter: Filter,
    policies: watch::Receiver<Arc<Snapshot>>,
    lives: watch::Receiver<Arc<Lives>>,
    /// Those in progress as they were last looked at, and whether the reader was told.
    known: BTreeMap<RolloutId, (v1::Rollout, bool)>,
    /// Those up to this one have been looked at.
    seen: Revision,
    events: VecDeque<Event>,
    over: bool,
}

impl All {
    pub(super) async fn begin(
        api: RolloutApi,
        namespace: Option<Namespace>,
        policy: Option<PolicyName>,
        filter: Filter,
    ) -> Result<Self, Status> {
        // Followed before it is read: what changes in between is seen.
        let (policies, lives) = (api.hub.subscribe(), api.rollouts.follow());
        let (known, events, seen) = (BTreeMap::new(), VecDeque::new(), Revision(0));
        let mut own = Self { api, namespace, policy, filter, policies, lives, known, seen, events, over: false };
        for stored in own.newest(pages::MOST.unsigned_abs()).await? {
            let shown = own.api.show(&stored).await;
            own.seen = own.seen.max(stored.candidate);
            own.tell(id(&stored), shown);
        }
        own.events.push_back(Event::Synced(true));
        Ok(own)
    }

    pub(super) async fn next(&mut self) -> Option<Result<Event, Status>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            let begun = self.api.shutdown.begun();
            let (ended, stored) = tokio::select! {
                changed = self.policies.changed() => (changed.is_err(), true),
                changed = self.lives.changed() => (changed.is_err(), false),
                () = begun => (true, false),
            };
            let looked =
                if ended { Err(status::unavailable("the server is shutting down")) } else { self.look(stored).await };
            if let Err(refusal) = looked {
                self.over = true;
                return Some(Err(refusal));
            }
        }
    }

    async fn newest(&self, limit: u32) -> Result<Vec<StoredRollout>, Status> {
        let (namespace, policy) = (self.namespace.clone(), self.policy.clone());
        let filter = RolloutFilter { namespace, policy, before: None, limit };
        self.api.rollouts.store.rollouts(filter).await.map_err(|error| status::store(&error))
    }

    /// Tells what the reader does not know yet. `stored`: what is stored has changed, too.
    async fn look(&mut self, stored: bool) -> Result<(), Status> {
        let lives = Arc::clone(&self.lives.borrow_and_update());
        let (snapshot, unseen) = {
            let policies = self.policies.borrow_and_update();
            (Arc::clone(&policies), policies.has_changed())
        };
        // Both may have changed, and this one is marked as seen here: nothing else would wake for it.
        if stored || unseen {
            let newest = self.newest(NEWEST).await?;
            for rollout in newest.into_iter().rev().filter(|rollout| rollout.candidate > self.seen).collect::<Vec<_>>()
            {
                let shown = self.api.show(&rollout).await;
                self.seen = rollout.candidate;
                self.tell(id(&rollout), shown);
            }
            let gone = self.known.keys().filter(|(_, _, candidate)| !in_progress(&snapshot, *candidate));
            for id in gone.cloned().collect::<Vec<_>>() {
                let rollout = self.api.stored(&id).await?;
                // One that has just begun is stored before it is shown.
                if !rollout.standing.state.in_progress() {
                    self.tell(id, wire::rollout(&rollout, None));
                }
            }
        }
        for staged in &snapshot.rollouts {
            let id = id(&staged.rollout);
            // What was seen of the stage before says nothing about this one: soon it will have been looked at.
            let live = lives.get(&id.2).filter(|live| live.is_of(staged));
            if let Some(live) = live.filter(|_| self.known.contains_key(&id)) {
                self.tell(id, wire::rollout(&staged.rollout, Some(live)));
            }
        }
        Ok(())
    }

    fn tell(&mut self, id: RolloutId, rollout: v1::Rollout) {
        use v1::RolloutState::{Aborted, Promoted};
        let ended = matches!(rollout.state(), Promoted | Aborted);
        let (before, was_told) = self.known.remove(&id).unzip();
        let was_told = was_told.unwrap_or_default();
        let admitted = self.filter.admits(&rollout);
        if admitted && (!was_told || before.as_ref() != Some(&rollout)) {
            self.events.push_back(Event::Upserted(rollout.clone()));
        }
        if was_told && !admitted {
            self.events.push_back(Event::Deleted(rollout.name.clone()));
        }
        if !ended {
            self.known.insert(id, (rollout, admitted));
        }
    }
}

fn id(rollout: &StoredRollout) -> RolloutId {
    (rollout.namespace.clone(), rollout.policy.clone(), rollout.candidate)
}

fn in_progress(snapshot: &Snapshot, candidate: Revision) -> bool {
    snapshot.rollouts.iter().any(|staged| staged.rollout.candidate == candidate)
}
