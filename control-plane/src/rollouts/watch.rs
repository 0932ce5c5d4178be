//! The task that looks at the gates of rollouts in progress, and makes the steps that need no operator.
//!
//! A failed gate pauses the rollout, or aborts it if that was asked for; gates that all pass promote it, if that was asked for. Every step
//! goes through the store like an operator's, with the numbers as its reason. What can't be written is tried again at the next look.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Lives, Rollouts, by_itself, gates, live,
    machine::{State, Step},
};
use crate::{shutdown::Shutdown, store::Staged};

/// How often the gates are looked at when nothing tells of a change: windows come with heartbeats, every second.
const PERIOD: Duration = Duration::from_secs(1);
/// How often at most: many changes make one look.
const LEAST: Duration = Duration::from_millis(100);

/// Watches until the server ends.
pub async fn watch(rollouts: Rollouts, shutdown: Shutdown) {
    let mut policies = rollouts.hub.subscribe();
    // Followed only while there is a rollout: views of a large fleet are not made for nobody.
    let mut fleet = None;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    loop {
        let idle = policies.borrow_and_update().rollouts.is_empty();
        if idle {
            let had_some = !rollouts.lives.borrow().is_empty();
            if had_some {
                rollouts.lives.send_replace(Arc::default());
            }
            fleet = None;
        } else if fleet.is_none() {
            let Ok(views) = rollouts.fleet.follow().await else { return };
            fleet = Some(views);
        }
        let news = async {
            match &mut fleet {
                Some(views) => views.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.begun() => return,
            changed = policies.changed() => if changed.is_err() { return },
            goes_on = news => if !goes_on { return },
            _ = ticks.tick(), if !idle => {}
        }
        tokio::time::sleep_until(looked + LEAST).await;
        looked = Instant::now();
        if !look(&rollouts).await {
            return;
        }
        // What the look itself has brought about is no news of the fleet.
        if let Some(views) = &mut fleet {
            views.mark_unchanged();
        }
    }
}

/// Looks at all rollouts once; says whether the server goes on.
async fn look(rollouts: &Rollouts) -> bool {
    let snapshot = rollouts.hub.current();
    if snapshot.rollouts.is_empty() {
        return true;
    }
    let Ok(view) = rollouts.fleet.view().await else { return false };
    let mut lives = Lives::new();
    for staged in &snapshot.rollouts {
        let trial = view.trials.get(&staged.rollout.candidate).cloned().unwrap_or_default();
        lives.insert(staged.rollout.candidate, live(staged, trial));
    }
    let lives = Arc::new(lives);
    rollouts.lives.send_replace(Arc::clone(&lives));
    if snapshot.regressed().is_some() {
        return true;
    }
    for staged in &snapshot.rollouts {
        let Some((step, why)) = lives.get(&staged.rollout.candidate).and_then(|live| due(staged, &live.gates)) else {
            continue;
        };
        let rollout = &staged.rollout;
        let id = (rollout.namespace.clone(), rollout.policy.clone(), rollout.candidate);
        if let Err(error) = rollouts.step(id, step, by_itself(why), false, None).await {
            tracing::warn!(%error, rollout = rollout.name(), step = step.name(), "a rollout does not go on");
        }
    }
    true
}

/// The step that is due, and why.
fn due(staged: &Staged, gates: &[gates::Gate]) -> Option<(Step, String)> {
    let (spec, standing) = (&staged.rollout.spec, &staged.rollout.standing);
    if standing.state != State::Running {
        return None;
    }
    match gates::failed(gates) {
        Some(gate) => {
            let step = if spec.abort_on_failure { Step::Abort } else { Step::Pause };
            Some((step, format!("gate {} failed: {}", gate.name, gate.detail)))
        }
        None if spec.auto && gates::holding(gates).is_empty() => {
            Some((Step::Promote { from: standing.stage, force: false }, "all gates pass".to_owned()))
        }
        None => None,
    }
}
