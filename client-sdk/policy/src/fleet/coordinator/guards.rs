//! What holds an opening back although the reports ask for it.
//!
//! | guard | holds back | until |
//! |---|---|---|
//! | `learning`, `frozen` | every opening | the mode ends |
//! | `dwell` | an opening of a breaker that was released less than a second ago | that second is over |
//! | `blast_radius` | an opening that would make more than `maxOpenPercent` (50) of a caller's targets not released, from four targets up | others close |
//! | `opening_rate` | an opening of the eleventh target of a caller within 10 s, however many breakers and zones the ten have | the 10 s are over |
//! | `denominator_shrink` | every opening of a caller of which more than 40 % of the replicas, in all or in the breaker's zone, have gone within one lease | the lease is over |
//! | `startup_grace` | an opening that needs the votes of newcomers | they have been there for 5 s |
//! | `sick_reporter` | an opening that needs the votes of replicas for which three or more targets fail that are well for the others | they are well |
//!
//! A breaker in shadow mode refuses nothing: it is neither counted nor held back by `blast_radius` and `opening_rate`.
//!
//! The blast radius counts from four targets up because below that one failing target is more than its share: of two targets one
//! is a half, of three a third, and a cap that forbids the second of three would leave real outages to themselves. From four up a
//! cap of 50 % leaves room for two.
//!
//! A **newcomer** is a replica that joined less than 5 s ago and more than 5 s after the replica of its service that has been there
//! longest. Cold caches and connections make a fresh replica fail alone; a service that starts as a whole is nobody's newcomer.
//!
//! | joined at | 0 s | 2 s | 4 s | at 5 s a vote has |
//! |---|---|---|---|---|
//! | all of a first start | a | b | c | a, b, c |
//! | joined at | 0 s | 60 s | 62 s | at 63 s a vote has |
//! | scaling up | a | b | c | a |
//! | | | | | at 65 s: a, b; at 67 s: a, b, c |

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use super::{Coordinator, Mode};
use crate::{
    TargetName, Timestamp, Zone,
    fleet::{
        BreakerKey, CoordinationScope,
        evidence::{Member, MemberId},
        rule,
        shared::{FleetState, SharedBreaker},
    },
};

/// Targets from which on the blast radius is capped.
pub(in crate::fleet) const CAPPED_FROM: usize = 4;
/// Targets of one caller of which breakers newly open within [`BURST_SPAN`]: a service has few, and more than this at once is a mistake
/// of its own or of ours. One target has a breaker in each zone, and a true outage of it may open all of them.
pub(in crate::fleet) const BURST: usize = 10;
pub(in crate::fleet) const BURST_SPAN: Duration = Duration::from_secs(10);
/// Share of a caller's replicas, in percent, that may go within one lease: a third is a rolling deploy, and of three one.
const SHRINK_PERCENT: usize = 40;
/// Failing targets that make a replica sick: two may have a common cause behind them.
const SICK_TARGETS: usize = 3;

/// What holds an opening back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// The coordinator learns what a former run had decided.
    Learning,
    /// The coordinator does not trust itself.
    Frozen,
    /// The breaker was released a moment ago.
    Dwell,
    /// Too many of the caller's targets would be open.
    BlastRadius,
    /// Breakers of too many of the caller's targets have opened in a few seconds.
    OpeningRate,
    /// Too many of the caller's replicas have gone: the rest is a biased sample.
    DenominatorShrink,
    /// The votes are of replicas that have just come.
    StartupGrace,
    /// The votes are of replicas that fail everywhere where others do not.
    SickReporter,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 8] = [
        Self::Learning,
        Self::Frozen,
        Self::Dwell,
        Self::BlastRadius,
        Self::OpeningRate,
        Self::DenominatorShrink,
        Self::StartupGrace,
        Self::SickReporter,
    ];

    /// In lower case with underscores, as it is shown everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Frozen => "frozen",
            Self::Dwell => "dwell",
            Self::BlastRadius => "blast_radius",
            Self::OpeningRate => "opening_rate",
            Self::DenominatorShrink => "denominator_shrink",
            Self::StartupGrace => "startup_grace",
            Self::SickReporter => "sick_reporter",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Coordinator {
    /// What holds back any opening of this breaker now, whoever asks for it.
    pub(super) fn held_back(
        &self,
        key: &BreakerKey,
        breaker: &SharedBreaker,
        now: Timestamp,
    ) -> Option<(Guard, String)> {
        match self.mode {
            Mode::Learning { until } => {
                let left = now.until(until).as_secs_f64();
                return Some((
                    Guard::Learning,
                    format!("what a former run decided is in force for another {left:.1} s"),
                ));
            }
            Mode::Frozen { suspicion, until } => {
                let left = now.until(until).as_secs_f64();
                return Some((Guard::Frozen, format!("{suspicion}: nothing is decided for another {left:.1} s")));
            }
            Mode::Deciding => {}
        }
        if let Some(released) = breaker.released_at()
            && now.since(released) < self.limits.dwell
        {
            return Some((Guard::Dwell, "it was released a moment ago".to_owned()));
        }
        let scope = breaker.settings().coordination.scope();
        // What refuses nothing takes nobody's place.
        let counted =
            if breaker.is_shadow() { None } else { self.blast_radius(key, breaker).or_else(|| self.burst(key, now)) };
        counted.or_else(|| self.shrunk(key, scope, now))
    }

    fn blast_radius(&self, key: &BreakerKey, breaker: &SharedBreaker) -> Option<(Guard, String)> {
        let (total, open) = self.targets(key);
        if open.contains(&key.target) || total.len() < CAPPED_FROM {
            return None;
        }
        let percent = usize::from(breaker.settings().coordination.max_open_percent());
        let would_be = open.len() + 1;
        (would_be * 100 > percent * total.len()).then(|| {
            let detail =
                format!("{would_be} of {} targets of {} would be open, {percent} % may", total.len(), key.caller);
            (Guard::BlastRadius, detail)
        })
    }

    /// The targets of a breaker's caller, and those of them that are not released somewhere. Breakers in shadow mode are left out.
    pub(in crate::fleet) fn targets(&self, key: &BreakerKey) -> (BTreeSet<&TargetName>, BTreeSet<&TargetName>) {
        let same =
            self.entries.iter().filter(|(other, _)| other.namespace == key.namespace && other.caller == key.caller);
        let same = same.filter(|(_, entry)| !entry.breaker.is_shadow());
        let (mut total, mut open) = (BTreeSet::new(), BTreeSet::new());
        for (other, entry) in same {
            total.insert(&other.target);
            if entry.breaker.state() != FleetState::Released {
                open.insert(&other.target);
            }
        }
        (total, open)
    }

    fn burst(&self, key: &BreakerKey, now: Timestamp) -> Option<(Guard, String)> {
        let burst = self.callers.get(&key.caller_id())?.lately_opened(now);
        (burst.len() >= BURST && !burst.contains(&key.target)).then(|| {
            let (count, span) = (burst.len(), BURST_SPAN.as_secs());
            (Guard::OpeningRate, format!("breakers of {count} targets of {} have opened in {span} s", key.caller))
        })
    }

    fn shrunk(&self, key: &BreakerKey, scope: CoordinationScope, now: Timestamp) -> Option<(Guard, String)> {
        let caller = self.callers.get(&key.caller_id())?;
        // Whoever comes and goes without a zone is a zone of its own.
        let of_zone = (scope == CoordinationScope::Zone).then_some(&key.zone);
        for (zone, whose) in [(None, String::new()), (of_zone, format!(" in {}", zone_name(key)))] {
            let (left, peak) = caller.left_of_peak(zone, self.limits.lease, now);
            if (peak - left.min(peak)) * 100 > SHRINK_PERCENT * peak {
                let detail = format!("{left} of {peak} replicas of {}{whose} are left", key.caller);
                return Some((Guard::DenominatorShrink, detail));
            }
        }
        None
    }

    /// Those whose votes do not count for this opening, and why.
    pub(super) fn without_vote(&self, key: &BreakerKey, now: Timestamp) -> BTreeMap<MemberId, Guard> {
        let (Some(entry), Some(caller)) = (self.entries.get(key), self.callers.get(&key.caller_id())) else {
            return BTreeMap::new();
        };
        let longest = caller.replicas.values().map(|replica| replica.joined).min().unwrap_or(now);
        let grace = self.limits.grace;
        let mut mute = BTreeMap::new();
        for id in entry.breaker.members().keys() {
            let Some(replica) = caller.replicas.get(id) else { continue };
            if now.since(replica.joined) < grace && replica.joined > longest.plus(grace) {
                mute.insert(id.clone(), Guard::StartupGrace);
            }
        }
        for (id, member) in entry.breaker.members() {
            if entry.breaker.speaks_against(member, now) && self.is_sick(caller.keys_of(id), id, now) {
                mute.insert(id.clone(), Guard::SickReporter);
            }
        }
        mute
    }

    /// Whether several targets fail for this replica that are well for the others of its zone.
    fn is_sick<'a>(&self, keys: impl Iterator<Item = &'a BreakerKey>, id: &MemberId, now: Timestamp) -> bool {
        let failing: Vec<(&BreakerKey, &SharedBreaker, &Member)> = keys
            .filter_map(|key| {
                let breaker = &self.entries.get(key)?.breaker;
                let member = breaker.members().get(id)?;
                breaker.speaks_against(member, now).then_some((key, breaker, member))
            })
            .collect();
        let targets =
            |found: &mut dyn Iterator<Item = &BreakerKey>| found.map(|key| key.target.clone()).collect::<BTreeSet<_>>();
        if targets(&mut failing.iter().map(|(key, ..)| *key)).len() < SICK_TARGETS {
            return false;
        }
        let alone = failing.iter().filter(|(_, breaker, member)| {
            let others = breaker.members().iter().filter(|(other, own)| {
                *other != id && own.zone == member.zone && rule::is_eligible(own, &breaker.settings().breaker, now)
            });
            let (mut well, mut ill) = (0_usize, 0_usize);
            for (_, other) in others {
                if breaker.speaks_against(other, now) {
                    ill += 1;
                } else {
                    well += 1;
                }
            }
            well > ill
        });
        targets(&mut alone.map(|(key, ..)| *key)).len() >= SICK_TARGETS
    }
}

/// As it is told to people.
pub(super) fn zone_name(key: &BreakerKey) -> &str {
    key.zone.as_ref().map_or("no zone", Zone::as_str)
}
