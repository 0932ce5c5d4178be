//! A call on its way, and the races inside of it, one step at a time.

use fusebox_policy::{
    Outcome, Timestamp,
    hedge::{HedgeRun, Race},
    outcome::NoFacts,
    pipeline::{Call, Cells as _, Finish, Step},
};

use super::world::World;

/// A call, or a branch of one.
#[derive(Debug)]
pub(super) struct Running {
    call: Call,
    step: Step,
    race: Option<Tries>,
    /// What the last attempt, fallback, cache or fault gave, as a driver keeps it for the caller.
    given: Option<Outcome>,
    /// Attempts begun, those of branches included.
    pub(super) attempts: u64,
    /// Steps made.
    pub(super) steps: u64,
}

/// The tries of a hedged call.
#[derive(Debug)]
struct Tries {
    run: HedgeRun,
    begun: Timestamp,
    primary: Option<Outcome>,
    running: Vec<(u32, Running)>,
    attempts: u32,
}

/// How one step went.
pub(super) enum Went {
    /// Somewhere.
    On,
    /// Nowhere: it waits for another call.
    Nowhere,
    /// To the end.
    Out(Outcome),
}

impl Running {
    pub(super) fn start(mut call: Call, world: &World<'_>) -> Self {
        let step = call.start(world.spec, world, world.now());
        Self { call, step, race: None, given: None, attempts: 0, steps: 0 }
    }

    /// Its caller drops it.
    pub(super) fn cancel(mut self, world: &World<'_>) -> u64 {
        self.drop_race(world);
        world.cancel(&mut self.call);
        self.attempts
    }

    fn drop_race(&mut self, world: &World<'_>) {
        for (_, running) in self.race.take().into_iter().flat_map(|race| race.running) {
            self.attempts += running.cancel(world);
        }
    }

    /// Does what the step asks for, in the way that the script says.
    pub(super) fn advance(&mut self, world: &World<'_>) -> Went {
        if let Step::Finish(finish) = self.step {
            self.is_well_finished(finish);
            return Went::Out(self.call.outcome());
        }
        self.steps += 1;
        // What is ready at the deadline counts; what is not is cut.
        if let Some(deadline) = self.call.deadline()
            && (world.now() >= deadline || world.script.next() > 200)
            && world.script.next() >= 64
        {
            return self.cut(world, deadline);
        }
        let (spec, call) = (world.spec, &mut self.call);
        self.step = match self.step {
            Step::Attempt => {
                self.attempts += 1;
                let (outcome, said) = (world.script.outcome(), world.script.said());
                world.pass_until(world.now().plus(world.script.span()));
                self.given = Some(outcome);
                call.attempt_ended(spec, world, outcome, &said, world.now())
            }
            Step::Wait { until } => {
                self.given = None;
                if let Some(deadline) = call.deadline()
                    && deadline < until
                {
                    return self.cut(world, deadline);
                }
                world.pass_until(until);
                call.wake(spec, world, world.now())
            }
            Step::Queue { stage, ticket, until } => {
                self.given = None;
                let admitted = world.is_granted(stage, ticket);
                if !admitted {
                    let ends = [until, call.deadline()].into_iter().flatten().min();
                    // Others may make room; only when the script is over is its patience put to the test.
                    let Some(end) = ends.filter(|_| world.script.is_over() || world.script.next() > 128) else {
                        return Went::Nowhere;
                    };
                    if Some(end) == call.deadline() {
                        return self.cut(world, end);
                    }
                    world.pass_until(end);
                }
                call.queue_ended(spec, world, admitted, world.now())
            }
            Step::Hedge { stage } => {
                self.given = None;
                return self.race(world, stage);
            }
            Step::Lookup { .. } => {
                self.given = None;
                match world.script.next() {
                    0..=99 => call.cache_missed(spec, world, true, world.now()),
                    100..=199 => call.cache_missed(spec, world, false, world.now()),
                    200.. => {
                        self.given = Some(Outcome::OK);
                        call.cache_hit(spec, world, Outcome::OK, &NoFacts, world.now())
                    }
                }
            }
            Step::Keep { .. } => {
                let outcome = self.given.expect("only what is there is kept");
                call.kept(spec, world, outcome, &NoFacts, world.now())
            }
            Step::Inject { fault, .. } => {
                self.given = Some(fault.outcome());
                call.injected(spec, world, fault.outcome(), &NoFacts, world.now())
            }
            Step::Fallback { .. } => {
                let outcome = world.script.outcome();
                self.given = Some(outcome);
                call.fallback_ended(spec, world, outcome, &NoFacts, world.now())
            }
            Step::Finish(_) => self.step,
        };
        Went::On
    }

    /// A deadline passes.
    fn cut(&mut self, world: &World<'_>, deadline: Timestamp) -> Went {
        self.attempts += u64::from(self.step == Step::Attempt);
        self.drop_race(world);
        world.pass_until(deadline);
        self.step = self.call.deadline_passed(world.spec, world, world.now());
        Went::On
    }

    /// One step of one try, or a further try.
    fn race(&mut self, world: &World<'_>, stage: usize) -> Went {
        let spec = world.strategy(stage).as_hedge().expect("the step is that of a hedge");
        let call = &self.call;
        let race = self.race.get_or_insert_with(|| {
            let rules = call.rules();
            let delay = if rules.idempotent && rules.replayable { world.hedge_delay(stage) } else { None };
            let primary = (0, Self::start(call.branch(0), world));
            let run = HedgeRun::start(delay, spec.max_hedges(), world.now());
            Tries { run, begun: world.now(), primary: None, running: vec![primary], attempts: 0 }
        });
        if let Some(due) = race.run.next_start()
            && (world.now() >= due || world.script.next() > 128)
        {
            world.pass_until(due);
            if spec.budget().is_none_or(|budget| world.try_retry(stage, budget, world.now())) {
                let number = race.run.begin(world.now());
                race.running.push((number, Self::start(call.branch(number), world)));
            } else {
                race.run.give_up_starting();
            }
            return Went::On;
        }
        let count = race.running.len();
        let first = world.script.index(count);
        for index in (first..count).chain(0..first) {
            let outcome = match race.running[index].1.advance(world) {
                Went::On => return Went::On,
                Went::Nowhere => continue,
                Went::Out(outcome) => outcome,
            };
            let (number, ended) = race.running.swap_remove(index);
            self.attempts += ended.attempts;
            race.attempts += ended.call.attempts();
            let class = spec.classifier().classify(outcome, world.now().since(race.begun), &NoFacts);
            let decided = match race.run.ended(class) {
                Race::Won => outcome,
                Race::Lost if number == 0 => outcome,
                Race::Lost => race.primary.expect("the primary has ended, and was no good"),
                Race::GoesOn => {
                    if number == 0 {
                        race.primary = Some(outcome);
                    }
                    return Went::On;
                }
            };
            world.hedge_took(stage, world.now().since(race.begun));
            let attempts = race.attempts;
            self.drop_race(world);
            self.given = Some(decided);
            self.step = self.call.hedge_ended(world.spec, world, decided, attempts, &NoFacts, world.now());
            return Went::On;
        }
        Went::Nowhere
    }

    fn is_well_finished(&self, finish: Finish) {
        assert!(self.call.is_over(), "a call that is over is inside of nothing");
        let stages = match (finish, self.call.outcome()) {
            (Finish::Value, _) => {
                assert!(self.given.is_some(), "a value is handed out that nothing gave");
                0
            }
            (Finish::Timeout { stage }, Outcome::Timeout(own)) => stage.abs_diff(own),
            (Finish::Rejected { stage, .. }, Outcome::Rejected(own, _)) => stage.abs_diff(own),
            (Finish::Exhausted { .. }, _) => 0,
            (finish, outcome) => panic!("{finish:?} after {outcome:?}"),
        };
        assert_eq!(stages, 0, "{finish:?} after {:?}", self.call.outcome());
    }
}
