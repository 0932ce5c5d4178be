//! A fleet in virtual time: the coordinator and the gates that run in production, with messages that take their time between them.
//!
//! No network and no clock: an agenda says what happens next, and a seed what is random. Streams keep their order, as TCP's do. What the
//! server's owner and the SDK's link do around the two machines is done here in the same way: what goes out at once, what waits for the
//! next heartbeat, what anchors a lease.

mod agenda;
mod plane;
mod replica;
mod target;

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use fusebox_policy::{
    Draw, Revision, Timestamp,
    breaker::{BreakerSpec, HalfOpenSpec},
    fleet::{Coordination, held::Fence, shared::FleetState},
};

use agenda::{Agenda, Event};
use plane::Plane;
use replica::Replica;
pub(crate) use target::{Kind, Target, Trouble};

/// The policy's revision, which never changes here.
const REVISION: Revision = Revision(1);

/// What makes one run different from another.
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) breaker: Arc<BreakerSpec>,
    pub(crate) coordination: Coordination,
    /// Calls in a second, of each replica.
    pub(crate) rates: Vec<f64>,
    /// Attempts of one call, the first included.
    pub(crate) attempts: u32,
    /// The longest that a message takes; the shortest is a tenth.
    pub(crate) latency: Duration,
    pub(crate) target: Target,
}

/// What has been seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When the fleet opened, and why, each time.
    pub(crate) opened: Vec<(Timestamp, String)>,
    /// When the fleet was released, each time.
    pub(crate) released: Vec<Timestamp>,
    /// Failed attempts of replicas that nothing had protected yet.
    pub(crate) wasted: u32,
    /// The most probes that were under way at the same time.
    pub(crate) most_at_once: u32,
    /// The most probes of one half-open period.
    pub(crate) most_of_a_period: u32,
    /// Attempts of replicas that should have known better: the fleet had been open for long enough that all had heard.
    pub(crate) astray: u32,
}

/// One run.
pub(crate) struct Fleet {
    now: Timestamp,
    agenda: Agenda,
    rng: Rng,
    latency: Duration,
    attempts: u32,
    target: Target,
    plane: Plane,
    replicas: Vec<Replica>,
    /// The half-open period, by the fence of its verdict, and its probes so far.
    period: (Fence, u32),
    probes_under_way: u32,
    seen: Seen,
}

impl Fleet {
    pub(crate) fn new(setting: Setting) -> Self {
        let Setting { seed, breaker, coordination, rates, attempts, latency, target } = setting;
        let mut rng = Rng::with_seed(seed);
        let mut agenda = Agenda::default();
        let replicas: Vec<Replica> =
            rates.into_iter().map(|rate| Replica::new(Arc::clone(&breaker), rate, rng.fork())).collect();
        for who in 0..replicas.len() {
            agenda.put(random(&mut rng, Duration::from_secs(1)), Event::Joins(who));
        }
        let plane = Plane::new(breaker, coordination, replicas.len());
        Self {
            now: Timestamp::ZERO,
            agenda,
            rng,
            latency,
            attempts,
            target,
            plane,
            replicas,
            period: (Fence::default(), 0),
            probes_under_way: 0,
            seen: Seen::default(),
        }
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, end: Timestamp) {
        while let Some((at, event)) = self.agenda.next_before(end) {
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// The same, and stops when the fleet has opened.
    pub(crate) fn run_until_open(&mut self, end: Timestamp) {
        while self.seen.opened.is_empty()
            && let Some((at, event)) = self.agenda.next_before(end)
        {
            self.now = at;
            self.happen(event);
        }
    }

    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Replicas that keep calls back since the fleet says so.
    pub(crate) fn held_back(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.gate.held().verdict_state() != FleetState::Released).count()
    }

    /// Nothing is wrong any more.
    pub(crate) const fn heal(&mut self) {
        self.target.heal(self.now);
    }

    /// Whether every replica has been kept back at least once, by its own breaker or by the fleet.
    pub(crate) fn all_protected(&self) -> bool {
        self.replicas.iter().all(|replica| !replica.bare)
    }

    /// The server dies.
    pub(crate) const fn kill_plane(&mut self) {
        self.plane.alive = false;
    }

    /// The budget of probes.
    pub(crate) fn half_open(&self) -> HalfOpenSpec {
        self.replicas[0].gate.breaker().spec().half_open()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Joins(who) => self.join(who),
            Event::Beats(who) => self.beat(who),
            Event::Calls(who) => self.call(who),
            Event::Attempts { who, left } => self.attempt(who, left),
            Event::Ended(ended) => self.ended(ended),
            Event::Tells(who) => self.tell(who),
            Event::GateIsDue(who) => self.gate_is_due(who),
            Event::PlaneIsDue => self.plane_is_due(),
            Event::Up(who, message) => self.plane_hears(who, message),
            Event::Down(who, message) => self.replica_hears(who, message),
        }
    }

    fn draw(&mut self) -> Draw {
        Draw::new(self.rng.f64())
    }

    /// When a message that leaves now is there, if the one before it was there at `last`.
    fn arrival(&mut self, last: Timestamp) -> Timestamp {
        let takes = self.latency.mul_f64(0.1 + 0.9 * self.rng.f64());
        self.now.plus(takes).max(last)
    }
}

fn random(rng: &mut Rng, most: Duration) -> Timestamp {
    Timestamp::ZERO.plus(most.mul_f64(rng.f64()))
}
