//! A hedged call: several tries of the same inside, of which the first good one counts.

use std::{sync::Arc, time::Duration};

use fusebox_policy::{
    hedge::{HedgeRun, Race},
    pipeline::{Call, Cells as _, Event},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;

use super::{
    drive::{Begun, Underway, run},
    live::Live,
    operation::{Driven, Operation, judge},
};
use crate::clock::Clock;

/// Runs the race inside a hedge. Losers are dropped, and give back what they hold.
pub(super) async fn race<O: Operation>(
    clock: Clock,
    live: &Arc<Live>,
    call: &Call,
    stage: usize,
    operation: &Mutex<&mut O>,
) -> Driven<O::Value, O::Error> {
    let spec = live.hedge(stage);
    let rules = call.rules();
    let delay = if rules.idempotent && rules.replayable { live.hedge_delay(stage) } else { None };
    let begun = clock.now();
    let mut race = HedgeRun::start(delay, spec.max_hedges(), begun);
    let try_number = |number: u32| {
        let mut underway = Underway::new(call.branch(number), Arc::clone(live), clock);
        // The type of a try holds the type of a race: it lives on the heap, once for each try of a hedged call.
        Box::pin(async move { (number, run(&mut underway, Begun::New, operation).await) })
    };
    let mut tries = FuturesUnordered::new();
    tries.push(try_number(0));
    let mut attempts = 0;
    let mut primary = None;
    let (winner, failed, mut driven) = loop {
        let next = race.next_start();
        let due = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((number, driven)) = tries.next() => {
                attempts += driven.attempts;
                let took = clock.now().since(begun);
                let class = judge(&**operation.lock(), &driven.result, driven.outcome, |outcome, facts| {
                    spec.classifier().classify(outcome, took, facts)
                });
                match race.ended(class) {
                    Race::Won => break (number, false, driven),
                    Race::Lost => break primary.take().map_or((number, true, driven), |primary| (0, true, primary)),
                    Race::GoesOn if number == 0 => primary = Some(driven),
                    Race::GoesOn => {}
                }
            }
            () = due => {
                let now = clock.now();
                if spec.budget().is_none_or(|budget| live.try_retry(stage, budget, now)) {
                    let hedge = race.begin(now);
                    live.event(Event::HedgeStarted { stage, hedge });
                    tries.push(try_number(hedge));
                } else {
                    // Not an error: only no hedge.
                    race.give_up_starting();
                }
            }
        }
    };
    let hedges = race.started() - 1;
    // Tries that are cut count as one attempt at least.
    attempts += u32::try_from(tries.len()).unwrap_or(u32::MAX);
    drop(tries);
    live.hedge_took(stage, clock.now().since(begun).max(Duration::from_nanos(1)));
    if hedges > 0 {
        live.event(Event::HedgeEnded { stage, winner, hedges, failed });
    }
    driven.attempts = attempts;
    driven
}
