//! Replicas, the calls that are under way, and the list of what happens next.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use fusebox_policy::{
    Outcome, Policy, Timestamp,
    bulkhead::Ticket,
    fallback::{Answers, FallbackWith},
    hedge::{HedgeRun, Race},
    outcome::NoFacts,
    pipeline::{Call, Cells as _, Event, PipelineSpec, Step, StrategySpec},
    retry::CallRules,
    throttle::Priority,
};

use super::{
    Scenario, Simulated,
    replica::Replica,
    result::{Percentiles, is_good, ratio},
};

/// A call that is under way, or one try of a hedge.
struct Flight {
    replica: usize,
    call: Call,
    /// Grows with each step: what was planned for an earlier one does not happen any more.
    epoch: u64,
    /// The hedge that it is a try of, and its number there.
    parent: Option<(u64, u32)>,
    race: Option<Tries>,
}

/// The tries of a hedge.
struct Tries {
    stage: usize,
    begun: Timestamp,
    run: HedgeRun,
    /// Those that are under way, by number.
    flights: Vec<(u32, u64)>,
    primary: Option<Outcome>,
    attempts: u32,
}

enum What {
    /// A new call.
    Arrive,
    /// An attempt ends by itself.
    Ended(Outcome),
    /// A wait is over.
    Wake,
    /// Patience in a queue is over.
    Patience,
    /// The nearest deadline passes.
    Deadline,
    /// A hedge begins its next try.
    Hedge,
}

struct Due {
    at: Timestamp,
    /// In the order in which they were planned, if at the same time.
    order: u64,
    flight: u64,
    epoch: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The soonest is the greatest: a heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

pub(super) struct World<'a> {
    scenario: &'a Scenario,
    spec: Arc<PipelineSpec>,
    replicas: Vec<Replica>,
    flights: HashMap<u64, Flight>,
    waiting: HashMap<(usize, usize, Ticket), u64>,
    due: BinaryHeap<Due>,
    order: u64,
    next_flight: u64,
    random: fastrand::Rng,
    now: Timestamp,
    end: Timestamp,
    attempts: u64,
    bare: Vec<Duration>,
    bare_good: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(policy: &Policy, scenario: &'a Scenario) -> Self {
        let spec = Arc::new(policy.definition.pipeline.clone());
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let replicas = (0..scenario.replicas).map(|_| Replica::new(Arc::clone(&spec), random.u64(..))).collect();
        Self {
            scenario,
            spec,
            replicas,
            flights: HashMap::new(),
            waiting: HashMap::new(),
            due: BinaryHeap::new(),
            order: 0,
            next_flight: 0,
            random,
            now: Timestamp::ZERO,
            end: Timestamp::ZERO.plus(scenario.duration),
            attempts: 0,
            bare: Vec::new(),
            bare_good: 0,
        }
    }

    pub(super) fn run(mut self) -> Simulated {
        self.plan_arrival();
        while let Some(due) = self.due.pop() {
            self.now = due.at;
            self.happen(due);
            self.admit();
        }
        self.into_result()
    }

    fn plan(&mut self, at: Timestamp, flight: u64, epoch: u64, what: What) {
        self.order += 1;
        self.due.push(Due { at, order: self.order, flight, epoch, what });
    }

    /// Calls come as they do from many independent users: with exponential gaps.
    fn plan_arrival(&mut self) {
        let gap = -(1.0 - self.random.f64()).ln() / self.scenario.rate;
        let at = self.now.plus(Duration::from_secs_f64(gap.min(1e9)));
        if at < self.end {
            self.plan(at, 0, 0, What::Arrive);
        }
    }

    fn happen(&mut self, due: Due) {
        if let What::Arrive = due.what {
            self.plan_arrival();
            let replica = self.random.usize(..self.replicas.len());
            self.bare_attempt();
            let rules = CallRules {
                idempotent: self.scenario.idempotent,
                replayable: true,
                priority: Priority::Normal,
                answers: Answers::Anything,
            };
            let id = self.enlist(replica, Call::new(rules), None);
            return self.start(id);
        }
        // Of an earlier step, or of a try that has lost.
        if self.flights.get(&due.flight).is_none_or(|flight| flight.epoch != due.epoch) {
            return;
        }
        if let What::Hedge = due.what {
            return self.hedge(due.flight);
        }
        let (now, spec) = (self.now, Arc::clone(&self.spec));
        if matches!(due.what, What::Deadline) {
            self.drop_tries(due.flight);
        }
        self.step(due.flight, |call, cells| match due.what {
            What::Ended(outcome) => call.attempt_ended(&spec, cells, outcome, &NoFacts, now),
            What::Wake | What::Arrive | What::Hedge => call.wake(&spec, cells, now),
            What::Patience => call.queue_ended(&spec, cells, false, now),
            What::Deadline => call.deadline_passed(&spec, cells, now),
        });
    }

    fn enlist(&mut self, replica: usize, call: Call, parent: Option<(u64, u32)>) -> u64 {
        self.next_flight += 1;
        let flight = Flight { replica, call, epoch: 0, parent, race: None };
        self.flights.insert(self.next_flight, flight);
        self.next_flight
    }

    fn start(&mut self, id: u64) {
        let (now, spec) = (self.now, Arc::clone(&self.spec));
        self.step(id, |call, cells| call.start(&spec, cells, now));
    }

    /// Tells a call what became of it, and does what it says until that takes time.
    fn step(&mut self, id: u64, tell: impl FnOnce(&mut Call, &Replica) -> Step) {
        let Some(mut flight) = self.flights.remove(&id) else { return };
        flight.epoch += 1;
        flight.race = None;
        let (now, spec) = (self.now, Arc::clone(&self.spec));
        let mut step = tell(&mut flight.call, &self.replicas[flight.replica]);
        loop {
            let cells = &self.replicas[flight.replica];
            step = match step {
                Step::Attempt => {
                    let (outcome, took) = self.attempt();
                    self.attempts += 1;
                    return self.wait(id, flight, now.plus(took), What::Ended(outcome));
                }
                Step::Wait { until } => return self.wait(id, flight, until, What::Wake),
                Step::Queue { stage, ticket, until } => {
                    self.waiting.insert((flight.replica, stage, ticket), id);
                    return self.wait(id, flight, until.unwrap_or(Timestamp::MAX), What::Patience);
                }
                Step::Hedge { stage } => return self.race(id, flight, stage),
                // Each call asks for something else: what a cache would save depends on what is asked.
                Step::Lookup { .. } => flight.call.cache_missed(&spec, cells, false, now),
                Step::Keep { .. } => flight.call.kept(&spec, cells, Outcome::OK, &NoFacts, now),
                Step::Inject { fault, .. } => flight.call.injected(&spec, cells, fault.outcome(), &NoFacts, now),
                Step::Fallback { stage, .. } => {
                    let outcome = answer(&spec, stage);
                    flight.call.fallback_ended(&spec, cells, outcome, &NoFacts, now)
                }
                Step::Finish(_) => return self.finish(flight),
            };
        }
    }

    /// Plans the next event of a call: this, or its deadline if that comes first.
    fn wait(&mut self, id: u64, flight: Flight, until: Timestamp, what: What) {
        let epoch = flight.epoch;
        match flight.call.deadline() {
            Some(deadline) if deadline <= until => self.plan(deadline.max(self.now), id, epoch, What::Deadline),
            Some(_) | None if until < Timestamp::MAX => self.plan(until.max(self.now), id, epoch, what),
            Some(_) | None => {}
        }
        self.flights.insert(id, flight);
    }

    fn attempt(&mut self) -> (Outcome, Duration) {
        let took = self.scenario.latency.at(self.random.f64());
        let since = self.now.since_origin();
        let is_out = self.scenario.outage.is_some_and(|(begin, end)| (begin..end).contains(&since));
        let fails = is_out || self.random.f64() < self.scenario.failure_rate;
        (if fails { self.scenario.failure } else { Outcome::status(200) }, took)
    }

    /// What the call would have met with without a policy. Drawn apart, so that it costs the policy nothing.
    fn bare_attempt(&mut self) {
        let (outcome, took) = self.attempt();
        self.bare.push(took);
        self.bare_good += u64::from(is_good(outcome));
    }

    fn race(&mut self, id: u64, mut flight: Flight, stage: usize) {
        let replica = flight.replica;
        let spec = Arc::clone(&self.spec);
        let Some(hedge) = spec.strategies()[stage].spec().as_hedge() else { return };
        let rules = flight.call.rules();
        let may_repeat = rules.idempotent && rules.replayable;
        let delay = if may_repeat { self.replicas[replica].hedge_delay(stage, hedge) } else { None };
        let run = HedgeRun::start(delay, hedge.max_hedges(), self.now);
        let first = self.enlist(replica, flight.call.branch(0), Some((id, 0)));
        flight.race =
            Some(Tries { stage, begun: self.now, run, flights: vec![(0, first)], primary: None, attempts: 0 });
        let (epoch, deadline) = (flight.epoch, flight.call.deadline());
        self.flights.insert(id, flight);
        if let Some(deadline) = deadline {
            self.plan(deadline.max(self.now), id, epoch, What::Deadline);
        }
        if let Some(at) = run.next_start() {
            self.plan(at, id, epoch, What::Hedge);
        }
        self.start(first);
    }

    /// The next try of a hedge is due.
    fn hedge(&mut self, id: u64) {
        let (now, spec) = (self.now, Arc::clone(&self.spec));
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let (replica, epoch) = (flight.replica, flight.epoch);
        let Some(race) = &mut flight.race else { return };
        let Some(hedge) = spec.strategies()[race.stage].spec().as_hedge() else { return };
        let cells = &self.replicas[replica];
        if !hedge.budget().is_none_or(|budget| cells.try_retry(race.stage, budget, now)) {
            race.run.give_up_starting();
            return;
        }
        let number = race.run.begin(now);
        cells.event(Event::HedgeStarted { stage: race.stage, hedge: number });
        let next = race.run.next_start();
        let branch = flight.call.branch(number);
        let own = self.enlist(replica, branch, Some((id, number)));
        if let Some(race) = self.flights.get_mut(&id).and_then(|flight| flight.race.as_mut()) {
            race.flights.push((number, own));
        }
        if let Some(at) = next {
            self.plan(at, id, epoch, What::Hedge);
        }
        self.start(own);
    }

    fn finish(&mut self, flight: Flight) {
        let Some((parent, number)) = flight.parent else { return };
        let (now, spec) = (self.now, Arc::clone(&self.spec));
        let outcome = flight.call.outcome();
        let Some(race) = self.flights.get_mut(&parent).and_then(|flight| flight.race.as_mut()) else { return };
        let Some(hedge) = spec.strategies()[race.stage].spec().as_hedge() else { return };
        race.flights.retain(|(own, _)| *own != number);
        race.attempts += flight.call.attempts();
        let class = hedge.classifier().classify(outcome, now.since(race.begun), &NoFacts);
        let decided = match race.run.ended(class) {
            Race::Won => outcome,
            Race::Lost => race.primary.unwrap_or(outcome),
            Race::GoesOn => {
                if number == 0 {
                    race.primary = Some(outcome);
                }
                return;
            }
        };
        // Tries that are cut count as one attempt at least.
        let attempts = race.attempts + u32::try_from(race.flights.len()).unwrap_or(u32::MAX);
        let (stage, took) = (race.stage, now.since(race.begun));
        self.drop_tries(parent);
        self.step(parent, |call, cells| {
            cells.hedge_took(stage, took);
            call.hedge_ended(&spec, cells, decided, attempts, &NoFacts, now)
        });
    }

    /// Drops the tries of a hedge that are still under way.
    fn drop_tries(&mut self, id: u64) {
        let Some(race) = self.flights.get_mut(&id).and_then(|flight| flight.race.take()) else { return };
        for (_, own) in race.flights {
            self.drop_tries(own);
            if let Some(mut flight) = self.flights.remove(&own) {
                flight.call.cancel(&self.replicas[flight.replica], self.now);
            }
        }
    }

    /// Lets those run that have got a place.
    fn admit(&mut self) {
        loop {
            let next = self.replicas.iter().enumerate().find_map(|(index, replica)| {
                replica.admitted.borrow_mut().pop().map(|(stage, ticket)| (index, stage, ticket))
            });
            let Some((replica, stage, ticket)) = next else { return };
            let (now, spec) = (self.now, Arc::clone(&self.spec));
            if let Some(id) = self.waiting.remove(&(replica, stage, ticket)) {
                self.step(id, |call, cells| call.queue_ended(&spec, cells, true, now));
            }
        }
    }

    fn into_result(self) -> Simulated {
        let mut result = Simulated { attempts: self.attempts, ..Simulated::default() };
        let mut times = Vec::new();
        let mut open = 0.0;
        for replica in &self.replicas {
            for call in replica.ended.borrow().iter() {
                result.count(call);
                times.push(call.took);
            }
            for reason in replica.rejections.borrow().iter() {
                *result.rejections.entry(reason.to_string()).or_default() += 1;
            }
            let (openings, time) = replica.breakers(self.end);
            result.openings += openings;
            open += time.as_secs_f64() / self.scenario.duration.as_secs_f64();
        }
        result.open_share = (open / f64::from(self.scenario.replicas)).min(1.0);
        result.latency = Percentiles::of(times);
        result.bare_success = ratio(self.bare_good, self.bare.len() as u64);
        result.bare_latency = Percentiles::of(self.bare);
        result
    }
}

/// What a fallback gives, as far as the policy says it: functions, other targets and kept answers are taken to work.
fn answer(spec: &PipelineSpec, stage: usize) -> Outcome {
    let StrategySpec::Fallback(fallback) = spec.strategies()[stage].spec() else { return Outcome::OK };
    match fallback.with() {
        FallbackWith::Response(response) => Outcome::status(response.status),
        FallbackWith::Error(_) => Outcome::Error(fusebox_policy::outcome::ErrorKind::Other),
        FallbackWith::Function(_) | FallbackWith::Target(_) | FallbackWith::Stale(_) => Outcome::status(200),
    }
}
