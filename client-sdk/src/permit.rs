//! Circuit breakers for calls that can't be given as a closure: ask before, tell after.
//!
//! Only the circuit breakers of the policy take part. A retry, a timeout or a fallback has to run the call, and can't.

use std::{fmt, sync::Arc, time::Duration};

use fusebox_policy::{
    Outcome, Rejection, Timestamp,
    breaker::Ending,
    condition::Class,
    fleet::gate::Pass,
    outcome::{ErrorKind, NoFacts, RetryHint},
    pipeline::{CallEnded, Cells as _, Event},
};

use crate::{
    pipeline::{Live, Stage},
    target::Target,
};

/// Leave to make one call. Say how the call ended; a permit that is dropped says that it counts for nothing.
///
/// It is as good as the policy that gave it: what it says reaches the same breakers, also after the policy has changed, and
/// changes nothing where the breaker has gone on to another state in the meantime.
#[must_use = "a permit that is dropped says that the call counts for nothing"]
pub struct Permit {
    /// None where no breaker is in the way.
    live: Option<Arc<Live>>,
    first: Option<(usize, Pass)>,
    /// Of pipelines with several breakers; empty for nearly all, and then without an allocation.
    others: Vec<(usize, Pass)>,
    begun: Timestamp,
    clock: crate::clock::Clock,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.live.as_ref().map(|live| &live.policy.name);
        f.debug_struct("Permit").field("policy", &policy).field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

impl Target {
    /// Asks all circuit breakers of this target's policy for leave to make one call, the outermost first. Without a policy, or
    /// where it has no breaker, the answer is always yes.
    ///
    /// ```
    /// # async fn send() -> Result<(), std::io::Error> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let client = fusebox::Client::builder("service-a").start().unwrap();
    /// let target = client.target("service-b");
    /// match target.try_acquire() {
    ///     Ok(permit) => match send().await {
    ///         Ok(()) => permit.success(),
    ///         Err(_) => permit.failure(),
    ///     },
    ///     Err(rejection) => println!("not now: {rejection}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Which breaker refuses, why, and for how long.
    pub fn try_acquire(&self) -> Result<Permit, Rejection> {
        let clock = self.client.clock;
        let now = clock.now();
        let live = self.snapshot.seen(self).live().cloned();
        // From here on, whatever has been acquired goes back if an inner breaker refuses.
        let mut permit = Permit { live: None, first: None, others: Vec::new(), begun: now, clock };
        let Some(live) = live else { return Ok(permit) };
        permit.live = Some(Arc::clone(&live));
        for (stage, state) in live.stages.iter().enumerate() {
            let Stage::Breaker(cell) = state else { continue };
            match cell.try_acquire(now) {
                Ok(pass) if permit.first.is_none() => permit.first = Some((stage, pass)),
                Ok(pass) => permit.others.push((stage, pass)),
                Err(reason) => {
                    live.event(Event::Rejected { stage, reason });
                    let outcome = Some(Outcome::Rejected(stage, reason));
                    live.call_ended(CallEnded { outcome, attempts: 0, replaced: false, took: Duration::ZERO });
                    permit.give_back();
                    return Err(live.rejection(stage, reason));
                }
            }
        }
        Ok(permit)
    }
}

impl Permit {
    /// The call was good; it may still count as slow.
    pub fn success(self) {
        self.end(Outcome::OK, |_| Class::Success);
    }

    /// The call has failed.
    pub fn failure(self) {
        self.end(Outcome::Error(ErrorKind::Other), |_| Class::Failure);
    }

    /// The call says nothing about the target. The same as dropping the permit.
    pub fn ignore(self) {
        drop(self);
    }

    /// The call ended in this: each breaker classifies it by its own `failureWhen` and `ignoreWhen`.
    pub fn record(self, outcome: Outcome) {
        let elapsed = self.elapsed();
        let live = self.live.clone();
        self.end(outcome, |stage| {
            let breaker =
                live.as_ref().and_then(|live| live.pipeline().strategies()[stage].spec().as_circuit_breaker());
            breaker.map_or(Class::Ignored, |breaker| breaker.classifier().classify(outcome, elapsed, &NoFacts))
        });
    }

    /// Since the permit was given.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.now().since(self.begun)
    }

    fn end(mut self, outcome: Outcome, class: impl Fn(usize) -> Class) {
        let now = self.clock.now();
        let elapsed = now.since(self.begun);
        let Some(live) = self.live.take() else { return };
        // Innermost first, as the outcome of a call travels.
        for (stage, pass) in self.others.drain(..).rev().chain(self.first.take()) {
            if let Stage::Breaker(cell) = &live.stages[stage] {
                let ending = Ending { class: class(stage), outcome, elapsed, hint: RetryHint::None };
                cell.record(pass, &ending, now);
            }
        }
        live.call_ended(CallEnded { outcome: Some(outcome), attempts: 1, replaced: false, took: elapsed });
    }

    fn give_back(&mut self) {
        let Some(live) = self.live.take() else { return };
        for (stage, pass) in self.others.drain(..).rev().chain(self.first.take()) {
            if let Stage::Breaker(cell) = &live.stages[stage] {
                cell.abandon(pass);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            live.call_ended(CallEnded { outcome: None, attempts: 1, replaced: false, took: self.elapsed() });
        }
        self.give_back();
    }
}
