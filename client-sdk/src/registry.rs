//! From policies to what runs: which pipeline is for a call, and the live state that outlives a change of policy.
//!
//! Readers take a snapshot without a lock; one writer at a time swaps it. The rules of what survives a change are the core's
//! ([`Gate::apply_spec`](fusebox_policy::fleet::gate::Gate::apply_spec)); this file finds which cell is meant.

mod limits;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use fusebox_policy::{
    CallerName, Namespace, Policy, PolicySet, Revision, StrategyName, TargetName, Timestamp, Zone,
    breaker::BreakerSpec,
    fleet::{BreakerKey, gate::Forced, held::Override, key::KeyPattern},
    policy::OnChange,
};
use parking_lot::Mutex;

use crate::{
    clock::Clock,
    pipeline::{
        CacheStore, Limited, Live, Purse, Stage,
        cell::{Cell, draw},
    },
    report::Outbox,
    status::{BreakerStatus, PolicySource, PolicyStatus, RejectedPolicy},
};

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) namespace: Namespace,
    pub(crate) service: CallerName,
    pub(crate) zone: Option<Zone>,
    /// Whether trouble on purpose may happen here.
    pub(crate) allow_chaos: bool,
    /// Whether nothing is obeyed that the fleet, or an operator, says about breakers.
    pub(crate) ignore_fleet: bool,
}

/// The policies in force at one moment, ready for calls.
#[derive(Debug, Default)]
struct Table {
    by_target: HashMap<TargetName, Vec<Arc<Live>>>,
    version: Held,
}

/// What is held, and where it came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) origin: Option<Origin>,
    pub(crate) store_id: String,
    pub(crate) revision: Revision,
    pub(crate) policies: PolicySet,
    pub(crate) rejected: Vec<RejectedPolicy>,
}

/// Where a set came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Stream,
    Disk,
}

/// An override, as it is held for all breakers, present and to come.
#[derive(Clone, Debug)]
pub(crate) struct HeldOverride {
    pub(crate) id: u64,
    pub(crate) pattern: KeyPattern,
    pub(crate) effect: Forced,
    pub(crate) until: Timestamp,
    pub(crate) reason: String,
}

/// The live pipelines of a process.
#[derive(Debug)]
pub(crate) struct Registry {
    caller: Caller,
    clock: Clock,
    table: ArcSwap<Table>,
    /// Grows with each exchange of the table.
    version: AtomicU64,
    builtin: PolicySet,
    overrides: Mutex<Vec<HeldOverride>>,
    /// Id of the database that the overrides are from.
    overrides_from: Mutex<String>,
    /// Held while the table is exchanged.
    writer: Mutex<BTreeMap<TargetName, Arc<Purse>>>,
    #[cfg(feature = "test")]
    recorder: Option<Arc<crate::testing::Recorder>>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) connected: std::sync::atomic::AtomicBool,
    /// Times that the cache could not be written, or was ignored.
    pub(crate) cache_faults: AtomicU64,
    #[cfg(feature = "metrics")]
    meters: Option<Arc<crate::metrics::Meters>>,
}

impl Registry {
    pub(crate) fn new(caller: Caller, clock: Clock, builtin: PolicySet) -> Self {
        Self {
            caller,
            clock,
            table: ArcSwap::default(),
            version: AtomicU64::new(0),
            builtin,
            overrides: Mutex::default(),
            overrides_from: Mutex::default(),
            cache_faults: AtomicU64::new(0),
            writer: Mutex::default(),
            #[cfg(feature = "test")]
            recorder: None,
            outbox: Arc::default(),
            connected: std::sync::atomic::AtomicBool::new(false),
            #[cfg(feature = "metrics")]
            meters: None,
        }
    }

    /// Puts the built-in policies in force.
    pub(crate) fn ready(self) -> Self {
        self.hold(Held::default());
        self
    }

    /// Keeps a record of what happens.
    #[cfg(feature = "test")]
    pub(crate) fn recorded_by(mut self, recorder: Option<Arc<crate::testing::Recorder>>) -> Self {
        if let Some(outbox) = Arc::get_mut(&mut self.outbox) {
            outbox.recorder = recorder.clone().map(|recorder| (recorder, self.clock));
        }
        self.recorder = recorder;
        self
    }

    /// Tells metrics.
    #[cfg(feature = "metrics")]
    pub(crate) fn metered_by(mut self, meters: Option<Arc<crate::metrics::Meters>>) -> Self {
        if let Some(outbox) = Arc::get_mut(&mut self.outbox) {
            outbox.meters.clone_from(&meters);
        }
        self.meters = meters;
        self
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn meters(&self) -> Option<&crate::metrics::Meters> {
        self.meters.as_deref()
    }

    /// Tells all gauges.
    #[cfg(feature = "metrics")]
    pub(crate) fn gauge(&self, seen: &mut crate::metrics::Seen) {
        if let Some(meters) = &self.meters {
            let table = self.table.load_full();
            let lives: Vec<&Live> = table.by_target.values().flatten().map(|live| &**live).collect();
            seen.tell(meters, &lives, self.connected.load(Ordering::Relaxed), self.clock.now());
        }
    }

    pub(crate) const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Changes when the answers of [`Registry::resolve`] may have changed.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The policy of a call, with its live state.
    pub(crate) fn resolve(&self, target: &str, route: Option<&str>) -> Option<Arc<Live>> {
        let table = self.table.load();
        let candidates = table.by_target.get(target)?;
        candidates
            .iter()
            .filter_map(|live| {
                let selector = &live.policy.definition.selector;
                Some((selector.matches(&self.caller.service, target, route)?, live))
            })
            .max_by(|(left, _), (right, _)| left.cmp(right))
            .map(|(_, live)| Arc::clone(live))
    }

    /// What is held.
    pub(crate) fn held(&self) -> Held {
        self.table.load().version.clone()
    }

    /// Puts a whole set in force. Calls that run finish on the set that they began with.
    pub(crate) fn hold(&self, held: Held) {
        let mut budgets = self.writer.lock();
        let now = self.clock.now();
        let old = self.table.load_full();
        let old_keys: Vec<Arc<BreakerKey>> = old.cells().map(|cell| cell.key()).collect();
        let source = match held.origin {
            Some(Origin::Stream) => PolicySource::Stream,
            Some(Origin::Disk) => PolicySource::Disk,
            None => PolicySource::None,
        };
        // A built-in policy protects a target until something is known about that target.
        let known =
            |target: &TargetName| held.policies.iter().any(|policy| policy.definition.selector.target() == target);
        let chosen = held
            .policies
            .iter()
            .map(|policy| (policy, source))
            .chain(
                self.builtin
                    .iter()
                    .filter(|policy| !known(policy.definition.selector.target()))
                    .map(|policy| (policy, PolicySource::Builtin)),
            )
            .filter(|(policy, _)| policy.definition.selector.admits_caller(&self.caller.service));
        let mut by_target: HashMap<TargetName, Vec<Arc<Live>>> = HashMap::new();
        for (policy, source) in chosen {
            let target = policy.definition.selector.target();
            let before =
                old.by_target.get(target).and_then(|lives| lives.iter().find(|live| live.policy.name == policy.name));
            let live = match before {
                Some(live) if live.policy == *policy && live.source == source => Arc::clone(live),
                before => {
                    let budget = budgets.entry(target.clone()).or_default();
                    Arc::new(self.revive(policy, source, before.map(Arc::as_ref), budget, now))
                }
            };
            by_target.entry(target.clone()).or_default().push(live);
        }
        budgets.retain(|target, _| by_target.contains_key(target));
        let table = Table { by_target, version: held };
        let keys: Vec<Arc<BreakerKey>> = table.cells().map(|cell| cell.key()).collect();
        for gone in old_keys.iter().filter(|key| !keys.contains(key)) {
            self.outbox.dropped(BreakerKey::clone(gone));
        }
        self.table.store(Arc::new(table));
        // After the exchange: who sees the new number finds the new table.
        self.version.fetch_add(1, Ordering::Release);
        drop(budgets);
    }

    /// A policy with the cells of its former self.
    fn revive(
        &self,
        policy: &Arc<Policy>,
        source: PolicySource,
        before: Option<&Live>,
        budget: &Arc<Purse>,
        now: Timestamp,
    ) -> Live {
        let reset = policy.definition.on_change == OnChange::Reset
            && before.is_some_and(|live| live.policy.definition != policy.definition);
        let stages = policy
            .definition
            .pipeline
            .strategies()
            .iter()
            .enumerate()
            .map(|(index, strategy)| {
                let spec = strategy.spec();
                let former = before.and_then(|live| live.former_stage(&policy.definition.pipeline, index));
                if let Some(breaker) = spec.as_circuit_breaker() {
                    return Stage::Breaker(self.revive_breaker(policy, strategy.name(), breaker, former, reset, now));
                }
                let kept = former.filter(|_| !reset);
                if let Some(cache) = spec.as_cache() {
                    return Stage::Cache(match kept {
                        Some(Stage::Cache(store)) => {
                            store.adapt(cache);
                            Arc::clone(store)
                        }
                        _ => Arc::new(CacheStore::new(cache)),
                    });
                }
                let chaos_until = spec.as_chaos().map_or(Timestamp::ZERO, |chaos| self.clock.at_date(chaos.until()));
                match kept {
                    Some(Stage::Limited(limited)) if limited.is_for(spec) => {
                        limited.adapt(spec, chaos_until, now);
                        Stage::Limited(Arc::clone(limited))
                    }
                    _ => Limited::new(spec, chaos_until).map_or(Stage::Stateless, |limited| {
                        let limited = match former {
                            Some(Stage::Limited(former)) => limited.inheriting(former, now),
                            _ => limited,
                        };
                        Stage::Limited(Arc::new(limited))
                    }),
                }
            })
            .collect();
        Live {
            policy: Arc::clone(policy),
            source,
            stages,
            budget: Arc::clone(budget),
            #[cfg(feature = "test")]
            recorder: self.recorder.clone().map(|recorder| (recorder, self.clock)),
            #[cfg(feature = "metrics")]
            meter: self.meters.as_deref().map(|meters| crate::metrics::CallMeter::new(meters, policy)),
        }
    }

    fn revive_breaker(
        &self,
        policy: &Policy,
        name: &StrategyName,
        spec: &BreakerSpec,
        former: Option<&Stage>,
        reset: bool,
        now: Timestamp,
    ) -> Arc<Cell> {
        let key = self.key(policy, name);
        let spec = Arc::new(spec.clone());
        match former {
            Some(Stage::Breaker(cell)) => {
                if *cell.key() != key {
                    let forced = self.override_for(&key);
                    cell.rename(key);
                    cell.with(|gate| {
                        gate.set_override(forced);
                        ((), gate.rekey(now, draw()))
                    });
                }
                adapt(cell, &spec, policy.revision, reset, now);
                Arc::clone(cell)
            }
            Some(Stage::Limited(_) | Stage::Cache(_) | Stage::Stateless) | None => {
                self.fresh(key, spec, policy.revision)
            }
        }
    }

    fn key(&self, policy: &Policy, strategy: &StrategyName) -> BreakerKey {
        BreakerKey {
            namespace: self.caller.namespace.clone(),
            caller: self.caller.service.clone(),
            policy: policy.name.clone(),
            strategy: strategy.clone(),
            target: policy.definition.selector.target().clone(),
            zone: None,
        }
        .in_scope(policy.definition.coordination.scope(), self.caller.zone.as_ref())
    }

    fn fresh(&self, key: BreakerKey, spec: Arc<BreakerSpec>, revision: Revision) -> Arc<Cell> {
        let forced = self.override_for(&key);
        let cell = Cell::new(key, spec, revision, Arc::clone(&self.outbox));
        if self.caller.ignore_fleet {
            cell.with(|gate| (gate.ignore_fleet(), Vec::new()));
        }
        if forced.is_some() {
            cell.with(|gate| (gate.set_override(forced), Vec::new()));
        }
        Arc::new(cell)
    }

    /// Every breaker in force.
    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        self.table.load().cells().cloned().collect()
    }

    /// The breaker of a key. The zone may be left out by those who speak to this process only.
    pub(crate) fn cell(&self, key: &BreakerKey) -> Option<Arc<Cell>> {
        let table = self.table.load();
        let cells = table.by_target.get(&key.target)?.iter().flat_map(|live| live.cells());
        cells.into_iter().find(|cell| cell.has_key(key)).cloned()
    }

    /// Replaces all overrides with those of a database. None are held where the fleet is ignored. Another database that has none ends
    /// nothing: it may have been wiped, and a human's word ends at its own time. Says whether they are held.
    pub(crate) fn set_overrides(&self, overrides: Vec<HeldOverride>, store_id: &str) -> bool {
        if self.caller.ignore_fleet {
            return false;
        }
        {
            let mut from = self.overrides_from.lock();
            if overrides.is_empty() && *from != store_id && !self.overrides().is_empty() {
                return false;
            }
            store_id.clone_into(&mut from);
            *self.overrides.lock() = overrides;
        }
        for cell in self.cells() {
            let forced = self.override_for(&cell.key());
            cell.with(|gate| (gate.set_override(forced), Vec::new()));
        }
        true
    }

    /// Id of the database that the overrides are from.
    pub(crate) fn overrides_from(&self) -> String {
        self.overrides_from.lock().clone()
    }

    /// The cache could not be written, or was ignored.
    pub(crate) fn count_cache_fault(&self) {
        self.cache_faults.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        if let Some(meters) = &self.meters {
            meters.count(crate::metrics::CACHE_FAULTS, 1);
        }
    }

    /// The overrides that have not ended.
    pub(crate) fn overrides(&self) -> Vec<HeldOverride> {
        let now = self.clock.now();
        self.overrides.lock().iter().filter(|own| own.until > now).cloned().collect()
    }

    /// The override on a breaker; the newest, if several match.
    fn override_for(&self, key: &BreakerKey) -> Option<Override> {
        let now = self.clock.now();
        self.overrides
            .lock()
            .iter()
            .filter(|own| own.until > now && own.pattern.matches(key, self.caller.zone.as_ref()))
            .max_by_key(|own| own.id)
            .map(|own| Override { effect: own.effect, until: own.until, reason: own.reason.clone() })
    }

    /// Makes happen what is due in all breakers, and says when there is more to do.
    pub(crate) fn tick(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        self.cells().iter().filter_map(|cell| cell.tick(now)).min()
    }

    /// What there is to show: source, revision, refused policies, policies, breakers.
    pub(crate) fn show(
        &self,
    ) -> (bool, PolicySource, Revision, Vec<RejectedPolicy>, Vec<PolicyStatus>, Vec<BreakerStatus>) {
        let table = self.table.load_full();
        let now = self.clock.now();
        let mut lives: Vec<&Arc<Live>> = table.by_target.values().flatten().collect();
        lives.sort_by(|left, right| left.policy.name.cmp(&right.policy.name));
        let source = match table.version.origin {
            Some(Origin::Stream) => PolicySource::Stream,
            Some(Origin::Disk) => PolicySource::Disk,
            None if lives.is_empty() => PolicySource::None,
            None => PolicySource::Builtin,
        };
        let policies = lives
            .iter()
            .map(|live| PolicyStatus {
                name: live.policy.name.clone(),
                revision: live.policy.revision,
                target: live.policy.definition.selector.target().clone(),
                source: live.source,
            })
            .collect();
        let breakers = lives.iter().flat_map(|live| live.cells()).map(|cell| shown(cell, now)).collect();
        let connected = self.connected.load(Ordering::Relaxed);
        (connected, source, table.version.revision, table.version.rejected.clone(), policies, breakers)
    }
}

impl Table {
    fn cells(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.by_target.values().flatten().flat_map(|live| live.cells())
    }
}

fn adapt(cell: &Cell, spec: &Arc<BreakerSpec>, revision: Revision, reset: bool, now: Timestamp) {
    cell.with(|gate| ((), gate.apply_spec(Arc::clone(spec), revision, reset, now, draw())));
}

fn shown(cell: &Cell, now: Timestamp) -> BreakerStatus {
    // What is due is shown without waiting for traffic.
    cell.tick(now);
    let key = cell.key();
    cell.look(now, |gate| BreakerStatus {
        policy: key.policy.clone(),
        revision: gate.revision(),
        strategy: key.strategy.clone(),
        target: key.target.clone(),
        local: gate.local_state(),
        fleet: gate.fleet_state(),
        fleet_reason: gate.fleet_reason().map(str::to_owned),
        vetoed: gate.vetoes(),
        admission: gate.admission(now),
        half_open_in: gate.half_open_in(now),
        unshared: gate.is_unshared(),
    })
}
