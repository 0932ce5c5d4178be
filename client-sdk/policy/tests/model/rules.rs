//! The configurations: how many replicas, which faults, how far.

use std::{sync::Arc, time::Duration};

use fusebox_policy::{
    breaker::{BreakerInput, BreakerSpec, HalfOpenSpec, TripRules, WindowSpec},
    fleet::{Coordination, CoordinationMode, CoordinationScope, gate::Forced},
};

use crate::mutation::Mutation;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// As in the product: one stream per replica keeps the order, and what is on it is lost when it is cut. Any delay.
    Streams,
    /// Worse than any stream: messages overtake each other, come twice, or never.
    Chaos,
}

/// Which calls replicas are asked to make, beside the refused one that every heartbeat of a replica that refuses tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// While the fleet is half-open.
    Probes,
    /// At any time.
    All,
}

/// What has happened before the model begins. Every replica has tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing else.
    Tripped,
    /// All have said so, and verdicts are on their way.
    Opening,
    /// All hold the fleet's verdict.
    Open,
}

/// A configuration. Time is counted in ticks; whatever is drawn at random is zero.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) name: &'static str,
    pub(crate) replicas: usize,
    pub(crate) network: Network,
    /// Length of a tick.
    pub(crate) tick: Duration,
    /// Ticks at most.
    pub(crate) ticks: u32,
    pub(crate) lease: Duration,
    pub(crate) permit_ttl: Duration,
    /// Verdicts of one run of the control plane at most.
    pub(crate) verdicts: u64,
    /// Crashes of the control plane at most. Streams break with it.
    pub(crate) restarts: u64,
    /// Its store is lost in a crash, or restored from before its first start: terms begin anew.
    pub(crate) wiped: bool,
    /// Replicas remember whose term they have seen, and say so.
    pub(crate) know_runs: bool,
    /// Streams that break by themselves, at most.
    pub(crate) cuts: u32,
    /// How often the control plane ceases to trust itself, at most.
    pub(crate) freezes: u32,
    /// Heartbeats of one stream at most.
    pub(crate) beats: usize,
    /// Messages under way at most, to and from one replica.
    pub(crate) under_way: usize,
    /// Which calls there are.
    pub(crate) calls: Calls,
    /// Outcomes that calls may have.
    pub(crate) outcomes: &'static [bool],
    /// Probes at the same time.
    pub(crate) probes: u32,
    /// An operator may force the breaker, once, for this long.
    pub(crate) force: Option<(Forced, Duration)>,
    /// The policy may change, once.
    pub(crate) change: bool,
    /// The last replica can't use the changed policy.
    pub(crate) refuses: bool,
    pub(crate) start: Start,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) breaker: Arc<BreakerSpec>,
    pub(crate) coordination: Coordination,
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

impl Rules {
    /// Two replicas on streams.
    pub(crate) fn streams() -> Self {
        Self {
            name: "streams as they are",
            replicas: 2,
            network: Network::Streams,
            tick: SECOND,
            ticks: 3,
            lease: Duration::from_secs(2),
            permit_ttl: SECOND * 2,
            verdicts: 3,
            restarts: 0,
            wiped: false,
            know_runs: true,
            cuts: 0,
            freezes: 0,
            beats: 2,
            under_way: 3,
            calls: Calls::Probes,
            outcomes: &[true],
            probes: 1,
            force: None,
            change: false,
            refuses: false,
            start: Start::Open,
            mutation: None,
            breaker: breaker(1, None),
            coordination: Coordination::try_new(CoordinationMode::Balanced, CoordinationScope::Zone, false, None, None)
                .expect("the settings fit together"),
        }
    }

    /// The control plane crashes.
    pub(crate) fn restart() -> Self {
        Self { name: "restart of the server", restarts: 1, ticks: 4, under_way: 2, ..Self::streams() }
    }

    /// The control plane crashes, and loses its store.
    pub(crate) fn wiped() -> Self {
        Self { name: "restart on a store that is wiped or restored", wiped: true, ..Self::restart() }
    }

    /// The same with replicas that know nothing of runs.
    pub(crate) fn wiped_before_runs() -> Self {
        Self { name: "the same, with replicas that know no run ids", know_runs: false, ..Self::wiped() }
    }

    /// Streams break and are opened anew.
    pub(crate) fn cuts() -> Self {
        Self { name: "streams that are cut", cuts: 2, under_way: 2, ..Self::streams() }
    }

    /// Messages overtake each other, come twice, or never.
    pub(crate) fn chaos() -> Self {
        Self {
            name: "chaos: reordered, repeated, lost",
            network: Network::Chaos,
            ticks: 2,
            under_way: 2,
            ..Self::streams()
        }
    }

    /// The policy changes.
    pub(crate) fn change() -> Self {
        Self { name: "a policy changes", change: true, under_way: 2, ..Self::streams() }
    }

    /// The policy changes, and one replica can't use the new revision.
    pub(crate) fn refused() -> Self {
        Self { name: "a policy is refused by a replica", refuses: true, ..Self::change() }
    }

    /// An operator stops all calls for a while.
    pub(crate) fn forced() -> Self {
        Self {
            name: "an override, told late",
            force: Some((Forced::Open, SECOND)),
            ticks: 2,
            under_way: 2,
            calls: Calls::All,
            ..Self::streams()
        }
    }

    /// An operator disables the breaker for a while.
    pub(crate) fn disabled() -> Self {
        Self {
            name: "an override that disables the breaker",
            force: Some((Forced::Disabled, SECOND)),
            ..Self::forced()
        }
    }

    /// Two probes at the same time, which may fail, with permits that live longer than the breaker is open.
    pub(crate) fn two_probes() -> Self {
        Self {
            name: "two probes at a time",
            probes: 2,
            breaker: breaker(2, None),
            outcomes: &[true, false],
            under_way: 2,
            ..Self::streams()
        }
    }

    /// Calls at any time, which may fail.
    pub(crate) fn calls() -> Self {
        Self { name: "calls", calls: Calls::All, outcomes: &[true, false], ticks: 2, under_way: 2, ..Self::streams() }
    }

    /// One replica more.
    pub(crate) fn three() -> Self {
        Self { name: "three replicas", replicas: 3, ticks: 2, under_way: 2, ..Self::streams() }
    }

    /// The control plane crashes, and on its streams messages overtake each other, come twice, or never. What is on a stream ends
    /// with it.
    pub(crate) fn chaos_and_restart() -> Self {
        Self { name: "chaos and a restart", restarts: 1, ticks: 4, ..Self::chaos() }
    }

    /// One replica more, and the control plane crashes.
    pub(crate) fn three_and_restart() -> Self {
        Self { name: "three replicas and a restart", restarts: 1, ticks: 4, ..Self::three() }
    }

    /// One replica more, on streams that break.
    pub(crate) fn three_and_cuts() -> Self {
        Self { name: "three replicas, streams that are cut", cuts: 2, ..Self::three() }
    }

    /// One replica more, and everything at once.
    pub(crate) fn three_and_all() -> Self {
        Self { name: "three replicas, chaos and a restart", replicas: 3, ..Self::chaos_and_restart() }
    }

    /// The control plane ceases to trust itself: it says nothing until all leases have ended, learns, and decides again.
    pub(crate) fn freeze() -> Self {
        Self { name: "the server freezes", freezes: 1, ticks: 6, under_way: 2, ..Self::streams() }
    }

    /// The same where messages overtake each other, come twice, or never.
    pub(crate) fn chaos_and_freeze() -> Self {
        Self { name: "chaos, and the server freezes", freezes: 1, ticks: 6, ..Self::chaos() }
    }

    /// All that must hold.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::streams(),
            Self::restart(),
            Self::wiped(),
            Self::wiped_before_runs(),
            Self::cuts(),
            Self::chaos(),
            Self::change(),
            Self::refused(),
            Self::forced(),
            Self::disabled(),
            Self::two_probes(),
            Self::calls(),
            Self::three(),
            Self::chaos_and_restart(),
            Self::three_and_restart(),
            Self::three_and_cuts(),
            Self::three_and_all(),
            Self::freeze(),
            Self::chaos_and_freeze(),
        ]
    }

    /// The same, without one of the guards.
    pub(crate) fn without(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    /// The end of time.
    pub(crate) fn last(&self) -> Duration {
        self.tick * self.ticks
    }
}

/// Trips on the first failure, is open for a second; as many successes as there are probes release.
fn breaker(probes: u32, half_open_limit: Option<Duration>) -> Arc<BreakerSpec> {
    let input = BreakerInput {
        window: WindowSpec::Count(1),
        trip: TripRules { failure_rate: None, failures: None, consecutive_failures: Some(1), slow_call_rate: None },
        delay: SECOND,
        delay_factor: 1.0,
        delay_jitter: 0.0,
        half_open: HalfOpenSpec { probes, concurrent_probes: probes, successes: probes, max_duration: half_open_limit },
        ..BreakerInput::default()
    };
    Arc::new(BreakerSpec::try_new(input).expect("the numbers are in range"))
}
