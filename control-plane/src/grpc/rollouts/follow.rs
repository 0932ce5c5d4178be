//! `WatchRollout`: one rollout until it ends.

use std::sync::Arc;

use fusebox_proto::v1;
use tokio::sync::watch;
use tonic::Status;

use super::RolloutApi;
use crate::{
    grpc::status,
    hub::Snapshot,
    rollouts::{Lives, RolloutId, wire},
};

/// One reader's place in the life of a rollout.
pub(super) struct Follow {
    pub(super) api: RolloutApi,
    pub(super) id: RolloutId,
    pub(super) policies: watch::Receiver<Arc<Snapshot>>,
    pub(super) lives: watch::Receiver<Arc<Lives>>,
    pub(super) told: Option<v1::Rollout>,
    pub(super) next: Option<v1::Rollout>,
    pub(super) over: bool,
}

impl Follow {
    pub(super) async fn next(&mut self) -> Option<Result<v1::WatchRolloutResponse, Status>> {
        loop {
            if self.over {
                return None;
            }
            if let Some(next) = self.next.take().filter(|next| self.told.as_ref() != Some(next)) {
                use v1::RolloutState::{Aborted, Promoted};
                self.over = matches!(next.state(), Promoted | Aborted);
                self.told = Some(next.clone());
                return Some(Ok(v1::WatchRolloutResponse { rollout: Some(next) }));
            }
            let begun = self.api.shutdown.begun();
            let ended = tokio::select! {
                changed = self.policies.changed() => changed.is_err(),
                changed = self.lives.changed() => changed.is_err(),
                () = begun => true,
            };
            if ended {
                self.over = true;
                return Some(Err(status::unavailable("the server is shutting down")));
            }
            self.next = match self.look().await {
                Ok(next) => next,
                Err(refusal) => {
                    self.over = true;
                    return Some(Err(refusal));
                }
            };
        }
    }

    /// The rollout as it is known at present.
    async fn look(&mut self) -> Result<Option<v1::Rollout>, Status> {
        let lives = Arc::clone(&self.lives.borrow_and_update());
        let snapshot = Arc::clone(&self.policies.borrow_and_update());
        let candidate = self.id.2;
        match snapshot.rollouts.iter().find(|staged| staged.rollout.candidate == candidate) {
            // What was seen of the stage before says nothing about this one: soon it will have been looked at.
            Some(staged) => Ok(lives
                .get(&candidate)
                .filter(|live| live.is_of(staged))
                .map(|live| wire::rollout(&staged.rollout, Some(live)))),
            None => {
                let stored = self.api.stored(&self.id).await?;
                Ok((!stored.standing.state.in_progress()).then(|| wire::rollout(&stored, None)))
            }
        }
    }
}
