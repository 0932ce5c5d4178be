//! The simulated world: hosts, a network between them, and one run of a scenario.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fusebox_control_plane::{config::Limits, serve::serve, shutdown::Shutdown, store::StoreHandle};
use fusebox_policy::{
    Revision,
    breaker::LocalState,
    fleet::{CoordinationMode, invariants},
};

use crate::{
    disk::Slot,
    faults::{self, Fault},
    history::{Event, History, Shown, What},
    net,
    operator::{self, Order},
    properties::{self, Violation},
    relay::{self, Meddle},
    replica::{self, Home, Pauses, Replica, Replicas},
    tap::{End, Tap},
    target::{self, Health, Script},
};

/// The control plane's host.
pub(crate) const PLANE: &str = "plane";
pub(crate) const PLANE_PORT: u16 = 7443;
pub(crate) const PLANE_ADDRESS: &str = "http://plane:7443";
/// Service B's host.
pub(crate) const TARGET: &str = "target";
pub(crate) const TARGET_PORT: u16 = 80;
const OPERATOR: &str = "operator";

/// How long a verdict of the control plane holds without its word.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// One step of the simulation: hosts take turns of this length.
pub(crate) const STEP: Duration = Duration::from_millis(5);
/// What a message takes at least; at most four times as long.
pub(crate) const LATENCY: Duration = Duration::from_millis(5);
/// No policy of any story lets a breaker stay open for less.
pub(crate) const SHORTEST_DELAY: Duration = Duration::from_secs(1);
/// How long a state must last before it counts as settled.
const STEADY: Duration = Duration::from_secs(2);

/// A story.
pub(crate) struct Scenario {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) script: Script,
    pub(crate) orders: Vec<(Duration, Order)>,
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// From here on no fault happens and service B is well.
    pub(crate) calm: Duration,
    /// How long after that everything may take to be in order; `None` where it can't be, and the run ends at `calm`.
    pub(crate) settles_within: Option<Duration>,
    /// What the policy allows.
    pub(crate) terms: Terms,
    /// Whether replicas keep their policies on disk.
    pub(crate) caches: bool,
    /// Who stands between replicas and the control plane.
    pub(crate) meddle: Option<Meddle>,
    /// Whether replicas are told what the control plane says, so that what they do can be held against it.
    pub(crate) judged: bool,
    /// Whether decisions are on record as soon as they are told.
    pub(crate) recorded: bool,
}

/// What the policy of a story says, as far as it is judged by that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Probes at the same time.
    pub(crate) probes: u32,
    pub(crate) mode: CoordinationMode,
    /// Whether the breaker only says what it would do.
    pub(crate) shadow: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { probes: 1, mode: CoordinationMode::Balanced, shadow: false }
    }
}

impl Scenario {
    /// A target that is always well, and nothing that goes wrong.
    pub(crate) fn new(replicas: Vec<Replica>, policy: &str) -> Self {
        Self {
            replicas,
            script: Arc::new(|_, _| Health::Well),
            orders: vec![(Duration::from_millis(100), Order::Apply(policy.to_owned()))],
            faults: Vec::new(),
            calm: Duration::from_secs(30),
            settles_within: Some(Duration::from_secs(45)),
            terms: Terms::default(),
            caches: false,
            meddle: None,
            judged: true,
            recorded: true,
        }
    }

    pub(crate) fn script(mut self, script: impl Fn(Duration, &Replica) -> Health + Send + Sync + 'static) -> Self {
        self.script = Arc::new(script);
        self
    }
}

/// What came of it.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) events: Vec<Event>,
    /// When everything was in order after the calm had begun.
    pub(crate) settled: Option<Duration>,
    pub(crate) violations: Vec<Violation>,
}

/// Runs a story. All that is random comes from the seed.
pub(crate) fn run(seed: u64, scenario: Scenario) -> Run {
    fastrand::seed(seed);
    let history = History::default();
    let Scenario {
        replicas,
        script,
        orders,
        mut faults,
        calm,
        settles_within,
        terms,
        caches,
        meddle,
        judged,
        recorded,
    } = scenario;
    let limit = calm + settles_within.unwrap_or_default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(STEP)
        .min_message_latency(LATENCY)
        .max_message_latency(LATENCY * 4)
        .tcp_capacity(4096)
        .simulation_duration(limit + Duration::from_secs(3600))
        .build();

    let disk = Slot::new(history.clone());
    let ending = Ending::default();
    let folders = caches.then(|| tempfile::tempdir().expect("a temporary folder"));
    let outside = Replicas { pauses: Pauses::default(), folders };
    let replicas: Arc<[Replica]> = replicas.into();
    {
        let (disk, history, replicas) = (disk.clone(), history.clone(), Arc::clone(&replicas));
        let (pauses, ending) = (outside.pauses.clone(), ending.clone());
        sim.host(PLANE, move || {
            plane(disk.disk(), Arc::clone(&replicas), history.clone(), pauses.clone(), ending.anew())
        });
    }
    {
        let (history, replicas) = (history.clone(), Arc::clone(&replicas));
        sim.host(TARGET, move || target::run(Arc::clone(&replicas), Arc::clone(&script), history.clone()));
    }
    for (index, own) in replicas.iter().enumerate() {
        let (history, own) = (history.clone(), own.clone());
        let mut home = Home {
            index: u8::try_from(index).expect("few replicas"),
            control_plane: PLANE_ADDRESS.to_owned(),
            cache: outside.cache(own.name),
            pauses: outside.pauses.clone(),
        };
        if let Some(meddle) = meddle.clone().filter(|meddle| meddle(&own).is_some()) {
            let (relay, own) = (relay::host_of(own.name), own.clone());
            home.control_plane = format!("http://{relay}:{PLANE_PORT}");
            sim.host(relay, move || relay::run(own.clone(), Arc::clone(&meddle)));
        }
        sim.host(own.name, move || replica::run(own.clone(), home.clone(), history.clone()));
    }
    {
        let (history, orders): (_, Arc<[_]>) = (history.clone(), orders.into());
        sim.host(OPERATOR, move || operator::run(Arc::clone(&orders), history.clone()));
    }

    faults.sort_by_key(|(at, _)| *at);
    let mut faults = faults.into_iter().peekable();
    let mut in_order_since = None;
    let mut settled = None;
    while sim.elapsed() < limit {
        let now = sim.elapsed();
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
            history.record_at(now, What::Fault(fault));
            faults::cause(&mut sim, &disk, &outside, &ending, fault);
        }
        history.step(now + STEP);
        sim.step().unwrap_or_else(|error| panic!("a host failed: {error}"));
        if now >= calm && history.look(|shown, revision| in_order(shown, revision, &replicas)) {
            let since = *in_order_since.get_or_insert(now);
            if now - since >= STEADY {
                settled = Some(since);
                break;
            }
        } else {
            in_order_since = None;
        }
    }
    drop(sim);
    let events = history.events();
    let mut violations = if judged { properties::check(&events, &replicas, terms, recorded) } else { Vec::new() };
    violations.extend(properties::check_audit(&events, &disk.audits()));
    if settles_within.is_some() && settled.is_none() {
        violations.extend(properties::unsettled(&history, &replicas, limit));
    }
    Run { seed, events, settled, violations }
}

/// Everybody is connected, runs the newest policies, and is held back by nothing.
fn in_order(shown: &BTreeMap<String, Shown>, revision: u64, replicas: &[Replica]) -> bool {
    replicas.iter().all(|replica| shown.get(replica.name).is_some_and(|shown| is_in_order(shown, replica, revision)))
}

/// Whether a replica is connected, and runs the newest policies.
pub(crate) fn has_converged(shown: &Shown, revision: u64) -> bool {
    shown.connected && invariants::l4_converged(Revision(revision), [Revision(shown.revision)])
}

pub(crate) fn is_in_order(shown: &Shown, replica: &Replica, revision: u64) -> bool {
    has_converged(shown, revision)
        && shown.others_held == 0
        && invariants::l1_released([shown.fleet])
        && (replica.every.is_none() || shown.local == LocalState::Closed)
}

/// How the control plane's present process is asked to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<Mutex<Shutdown>>);

impl Ending {
    fn lock(&self) -> MutexGuard<'_, Shutdown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a process that begins.
    fn anew(&self) -> Shutdown {
        let shutdown = Shutdown::new();
        self.lock().clone_from(&shutdown);
        shutdown
    }

    pub(crate) fn begin(&self) {
        self.lock().begin();
    }
}

async fn plane(
    disk: StoreHandle,
    replicas: Arc<[Replica]>,
    history: History,
    pauses: Pauses,
    shutdown: Shutdown,
) -> turmoil::Result {
    history.record(What::ServerUp);
    tokio::spawn(pauses.keep(PLANE));
    let names: BTreeMap<String, &'static str> = replicas
        .iter()
        .flat_map(|replica| [(replica.name.to_owned(), replica.name), (relay::host_of(replica.name), replica.name)])
        .collect();
    let incoming = net::incoming(PLANE_PORT, move |host| {
        names.get(host).map(|name| Tap::new(history.clone(), (*name).to_owned(), End::Server))
    })
    .await?;
    serve(Box::pin(incoming), disk, Limits::default(), shutdown).await?;
    // The host stays where it is until another process begins on it.
    std::future::pending().await
}
