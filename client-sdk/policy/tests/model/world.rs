//! Everything that can happen, and in any order: the state of the model and its steps.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

use fusebox_policy::{
    Revision, Timestamp,
    fleet::{
        history::Ledger,
        invariants::{self, Invariant},
        shared::FleetState,
        term::SeenTerm,
    },
};
use stateright::{Model, Property};

use crate::{
    check::HOLDS,
    mutation::Mutation,
    replica::{Does, Replica},
    rules::{Network, Rules, Start},
    server::{Says, Server},
    wire::{Happened, Letter, Up},
};

/// What must be reached: how the fleet's word gets into force, and how it ends.
pub(crate) const ALL_OPEN: &str = "every replica is held open";
pub(crate) const PROBED: &str = "a probe has passed";
pub(crate) const RELEASED: &str = "the fleet was released";

/// When it begins, by the control plane's clock.
const START: Timestamp = Timestamp::from_nanos(100_000_000_000);

/// All that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    now: Timestamp,
    server: Server,
    runs: u64,
    /// The newest term, in the store.
    term: u64,
    /// The newest policy, in the store.
    policy: Revision,
    replicas: Vec<Replica>,
    up: Vec<Vec<Up>>,
    down: Vec<Vec<Letter>>,
    cuts: u32,
    freezes: u32,
    forced: bool,
    ledger: Ledger<(), usize>,
    /// What does not hold any more.
    pub(crate) broken: Option<Invariant>,
    /// A probe has passed; and has led to a release.
    probed: bool,
    released: bool,
}

/// A step. Messages are named by their place among those under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Time passes.
    Tick,
    /// A replica sends a heartbeat.
    Beat(usize),
    /// A replica is asked to make a call, which succeeds or fails if it is made.
    Call(usize, bool),
    /// The control plane takes a message; with `true` it is going to come again.
    TakeUp(usize, usize, bool),
    /// A replica takes a message; with `true` it is going to come again.
    TakeDown(usize, usize, bool),
    /// A message to the control plane is lost.
    LoseUp(usize, usize),
    /// A message to a replica is lost.
    LoseDown(usize, usize),
    /// A stream breaks, and the replica opens another.
    Cut(usize),
    /// The control plane crashes and starts again; all replicas reach it.
    Restart,
    /// The control plane has reason not to trust itself.
    Freeze,
    /// An operator forces the breaker.
    Force,
    /// The policy changes.
    Change,
}

impl World {
    fn new(rules: &Rules) -> Self {
        let policy = Revision(1);
        let mut world = Self {
            now: START,
            server: Server::start_long_ago(rules, 1, 1, policy, START),
            runs: 1,
            term: 1,
            policy,
            replicas: (0..rules.replicas).map(|number| Replica::new(number, rules, START)).collect(),
            up: vec![Vec::new(); rules.replicas],
            down: vec![Vec::new(); rules.replicas],
            cuts: 0,
            freezes: 0,
            forced: false,
            ledger: Ledger::default(),
            broken: None,
            probed: false,
            released: false,
        };
        world.saw(Happened::Term { run: 1, term: 1, stored: true });
        for replica in 0..rules.replicas {
            world.join(replica, SeenTerm::default(), rules);
            world.down[replica].clear();
        }
        if rules.start != Start::Tripped {
            for replica in 0..rules.replicas {
                world.take(Step::Beat(replica), rules);
                world.take(Step::TakeUp(replica, 0, false), rules);
            }
        }
        if rules.start == Start::Open {
            for replica in 0..rules.replicas {
                while !world.down[replica].is_empty() {
                    world.take(Step::TakeDown(replica, 0, false), rules);
                }
            }
        }
        world
    }

    fn saw(&mut self, event: Happened) {
        if let Err(violation) = self.ledger.observe(self.now, event)
            && self.broken.is_none()
        {
            self.broken = Some(violation.invariant);
        }
    }

    fn carry(&mut self, says: Says, rules: &Rules) {
        for event in says.happened {
            self.saw(event);
        }
        for (replica, letter) in says.to {
            match rules.network {
                Network::Streams => self.down[replica].push(letter),
                Network::Chaos => self.down[replica].extend(letter.into_iter().map(|message| vec![message])),
            }
        }
    }

    fn did(&mut self, replica: usize, does: Does) {
        for event in does.happened {
            if let Happened::Called { probe: Some(_), .. } = event {
                self.probed = true;
            }
            self.saw(event);
        }
        self.up[replica].extend(does.says);
    }

    fn take(&mut self, step: Step, rules: &Rules) {
        let now = self.now;
        match step {
            Step::Tick => {
                self.now = now.plus(rules.tick);
                let says = self.server.tick(rules, self.now);
                self.carry(says, rules);
                for replica in 0..rules.replicas {
                    let does = self.replicas[replica].tick(self.now);
                    self.did(replica, does);
                }
            }
            Step::Beat(replica) => {
                let beat = self.replicas[replica].beat(now, rules);
                self.up[replica].push(beat);
            }
            Step::Call(replica, succeeds) => {
                let does = self.replicas[replica].call(succeeds, now);
                self.did(replica, does);
            }
            Step::TakeUp(replica, place, again) => {
                let message = if again { self.up[replica][place] } else { self.up[replica].remove(place) };
                let before = self.server.state();
                let says = self.server.hear(replica, message, rules, now);
                self.released |= before == FleetState::HalfOpen && self.server.state() == FleetState::Released;
                self.carry(says, rules);
                if matches!(message, Up::Beat { .. }) {
                    let mut twice = self.server.clone();
                    twice.hear(replica, message, rules, now);
                    if !invariants::s12_idempotence(&self.server.decision(), &twice.decision()) {
                        self.broken = self.broken.or(Some(Invariant::S12));
                    }
                }
            }
            Step::TakeDown(replica, place, again) => {
                let down = &mut self.down[replica];
                let letter = if again { down[place].clone() } else { down.remove(place) };
                for message in letter {
                    let does = self.replicas[replica].hear(message, now, rules);
                    self.did(replica, does);
                }
            }
            Step::LoseUp(replica, place) => {
                self.up[replica].remove(place);
            }
            Step::LoseDown(replica, place) => {
                self.down[replica].remove(place);
            }
            Step::Cut(replica) => {
                self.cuts += 1;
                self.connect(replica, rules);
            }
            Step::Restart => {
                self.runs += 1;
                // The store hands out a term of its own to each run, as far as it remembers.
                let stored = rules.mutation != Some(Mutation::TermNotStored);
                let last = if rules.wiped { 0 } else { self.term };
                let term = if stored { last + 1 } else { 1 };
                self.term = term;
                let overrides = self.server.stored_overrides();
                self.server = Server::start(rules, self.runs, term, self.policy, now);
                self.server.restore(overrides);
                self.saw(Happened::Term { run: self.runs, term, stored });
                for replica in 0..rules.replicas {
                    self.connect(replica, rules);
                }
            }
            Step::Freeze => {
                self.freezes += 1;
                let says = self.server.freeze(rules, now);
                self.carry(says, rules);
            }
            Step::Force => {
                if let Some((effect, lasts)) = rules.force {
                    self.forced = true;
                    let says = self.server.force(effect, lasts, now);
                    self.carry(says, rules);
                }
            }
            Step::Change => {
                self.policy = Revision(self.policy.0 + 1);
                let says = self.server.change(self.policy, rules, now);
                self.carry(says, rules);
            }
        }
        for replica in 0..rules.replicas {
            for event in self.replicas[replica].enforces() {
                self.saw(event);
            }
        }
        self.ledger.forget(self.now);
        if rules.network == Network::Chaos {
            // A set: in which order they were sent says nothing.
            for links in &mut self.up {
                as_set(links);
            }
            for links in &mut self.down {
                as_set(links);
            }
        }
    }

    fn connect(&mut self, replica: usize, rules: &Rules) {
        self.up[replica].clear();
        self.down[replica].clear();
        let seen = self.replicas[replica].connect(self.now);
        self.join(replica, seen, rules);
    }

    fn join(&mut self, replica: usize, seen: SeenTerm, rules: &Rules) {
        let says = self.server.join(replica, seen, rules, self.now);
        self.term = self.server.term();
        self.replicas[replica].welcome(self.server.run(), rules);
        self.carry(says, rules);
    }

    fn offers(&self, rules: &Rules, steps: &mut Vec<Step>) {
        if self.broken.is_some() {
            return;
        }
        let chaos = rules.network == Network::Chaos;
        for replica in 0..rules.replicas {
            let places = |count: usize| if chaos { 0..count } else { 0..count.min(1) };
            for place in places(self.up[replica].len()) {
                steps.push(Step::TakeUp(replica, place, false));
                if chaos {
                    steps.extend([Step::TakeUp(replica, place, true), Step::LoseUp(replica, place)]);
                }
            }
            for place in places(self.down[replica].len()) {
                steps.push(Step::TakeDown(replica, place, false));
                if chaos {
                    steps.extend([Step::TakeDown(replica, place, true), Step::LoseDown(replica, place)]);
                }
            }
            if self.replicas[replica].beats() < rules.beats {
                steps.push(Step::Beat(replica));
            }
            if self.replicas[replica].may_call(rules.calls, self.now) {
                steps.extend(rules.outcomes.iter().map(|succeeds| Step::Call(replica, *succeeds)));
            }
            if self.cuts < rules.cuts {
                steps.push(Step::Cut(replica));
            }
        }
        if self.now < START.plus(rules.last()) {
            steps.push(Step::Tick);
        }
        if self.runs <= rules.restarts {
            steps.push(Step::Restart);
        }
        if self.freezes < rules.freezes {
            steps.push(Step::Freeze);
        }
        if rules.force.is_some() && !self.forced {
            steps.push(Step::Force);
        }
        if rules.change && self.policy == Revision(1) {
            steps.push(Step::Change);
        }
    }

    fn is_within(&self, rules: &Rules) -> bool {
        let few = |under_way: usize| under_way <= rules.under_way;
        self.server.revs() <= rules.verdicts
            && self.up.iter().all(|links| few(links.len()))
            && self.down.iter().all(|links| few(links.len()))
    }
}

fn as_set<T: Hash + Eq>(links: &mut Vec<T>) {
    let hash = BuildHasherDefault::<DefaultHasher>::default();
    links.sort_by_key(|message| hash.hash_one(message));
    links.dedup();
}

impl Model for Rules {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.offers(self, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.take(step, self);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all: Vec<Property<Self>> = vec![
            Property::always(HOLDS, |_, world: &World| world.broken.is_none()),
            Property::sometimes(ALL_OPEN, |_, world: &World| {
                world.replicas.iter().all(|own| own.fleet_state() == FleetState::Open)
            }),
        ];
        if self.outcomes.contains(&true) && self.mutation.is_none() {
            all.push(Property::sometimes(PROBED, |_, world: &World| world.probed));
            all.push(Property::sometimes(RELEASED, |_, world: &World| {
                world.released && world.replicas.iter().all(|own| own.fleet_state() == FleetState::Released)
            }));
        }
        all
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.is_within(self)
    }
}
