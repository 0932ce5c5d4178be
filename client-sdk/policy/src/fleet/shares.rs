//! How one rate limit is divided over the replicas that share it.
//!
//! Driven by the control plane: replicas report how many calls they want to make, and are granted parts of the limit on leases. At
//! every moment the parts that may be acted on by anybody sum to at most the whole, also while parts move from one to another: each
//! member is booked with the largest grant that it may still hold, which is the newest one only after the member has acknowledged it or
//! the leases of the older ones have ended. What is not booked is free, and a grant grows only out of what is free.
//!
//! The algorithm is that of Doorman, with grants pushed and not asked for. Parts are max-min fair by demand (`level.rs`).

mod demand;
mod level;

use std::{collections::BTreeMap, time::Duration};

use arrayvec::ArrayVec;

use self::{demand::Demand, level::level};
use super::evidence::MemberId;
use crate::{InstanceId, Timestamp, rate_limiter::RateLimiterSpec};

/// All of a limit. Shares are in millionths.
pub const WHOLE: u32 = 1_000_000;

/// How often shares follow demand: as often as replicas report it.
const ROUND: Duration = Duration::from_secs(1);
/// How soon a division follows one that found a reason to hurry: somebody new, or a part given up that somebody waits for. Many who
/// come together are one reason.
const SOON: Duration = Duration::from_millis(250);
/// Members of one limit. Beyond it, a part would be too small to mean anything.
const MOST_MEMBERS: usize = 10_000;
/// Grants of one member of which it is not known which it holds. More are put together, with the largest part among them.
const MOST_OPEN: usize = 4;
/// What a member without demand keeps, so that its next calls pass: a hundredth of the limit, and not more than a quarter of the limit
/// for all members together.
const FLOOR: u32 = WHOLE / 100;
const FLOOR_OF_EVEN: u32 = 4;
/// A share changes only if it is off by more than one twentieth of itself, or of an equal part if that is more. But nobody is kept a
/// twentieth below what it wants and could have.
const BAND: u32 = 20;
/// What a member wants is taken for a tenth more than was counted, so that neither chance nor the band refuses its calls.
const HEADROOM: u32 = 10;

/// What a replica says it acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// No share on a lease.
    Nothing,
    /// A share on a lease that has not ended.
    Leased {
        /// Its number, if it is of this run of the server.
        rev: Option<u64>,
        /// The part, in millionths.
        ppm: u32,
    },
}

/// What a replica reports about a limit with each heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReport {
    /// Calls that wanted to be made since the report before: admitted, waiting or refused.
    pub wanted: u64,
    /// The time since the report before.
    pub over: Duration,
    /// What it acts on.
    pub holding: Holding,
}

/// A share to be told to a member. Its lease counts from the member's newest report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub member: MemberId,
    /// Its number.
    pub rev: u64,
    /// The part of the limit, in millionths. Zero: nothing is free yet.
    pub ppm: u32,
    /// Replicas that share the limit.
    pub members: u32,
}

/// A member, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareView {
    /// The part that was granted last, in millionths.
    pub ppm: u32,
    /// Whether the replica is known to act on it, and on no older one.
    pub acknowledged: bool,
    /// Calls that it wants to make per second; `None` while unknown.
    pub wanted_per_second: Option<f64>,
}

/// More replicas than a limit can be divided over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a limit is shared by at most {MOST_MEMBERS} replicas")]
pub struct Crowded;

/// The division of one limit.
#[derive(Clone, Debug)]
pub struct Shares {
    lease: Duration,
    /// Until then there may be shares of an earlier run of the server on their leases, of which nobody here knows.
    learning_until: Timestamp,
    /// One process for each name: a replica's new process takes the place, and the share, of its former one.
    members: BTreeMap<InstanceId, Member>,
    /// Who is here has changed: the next division is exact.
    fresh: bool,
    /// Somebody has less than it should have, because it is not free yet.
    short: bool,
    divided: Option<Timestamp>,
    due: Option<Timestamp>,
    rate: Option<(u32, Duration)>,
}

#[derive(Clone, Debug)]
struct Member {
    incarnation: u64,
    demand: Demand,
    /// Grants that it may hold, oldest first. The last is the newest, on the lease that ends at `ends`.
    open: ArrayVec<Open, MOST_OPEN>,
    /// How many members it was told of.
    told_members: u32,
    ends: Timestamp,
}

/// A grant that a member may hold.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Zero: of an earlier run of the server.
    rev: u64,
    ppm: u32,
    /// The end of its lease, once there is a newer grant.
    ends: Timestamp,
}

impl Shares {
    /// Nobody is here. Until `learning_until` shares of an earlier run may be in force: replicas are granted what they say they hold, and
    /// nobody more.
    #[must_use]
    pub const fn new(lease: Duration, learning_until: Timestamp) -> Self {
        Self {
            lease,
            learning_until,
            members: BTreeMap::new(),
            fresh: false,
            short: false,
            divided: None,
            due: None,
            rate: None,
        }
    }

    /// Shares of an earlier run may be in force until then: see [`Shares::new`].
    pub fn learn(&mut self, until: Timestamp) {
        self.learning_until = self.learning_until.max(until);
    }

    /// A replica's heartbeat, which renews its lease. Answers with its newest grant if it does not hold that: it must be told again before
    /// the heartbeat is answered, since the answer renews what the replica holds.
    ///
    /// # Errors
    /// There are too many members for one more.
    pub fn report(&mut self, member: &MemberId, report: LimitReport, now: Timestamp) -> Result<Option<Grant>, Crowded> {
        let LimitReport { wanted, over, holding } = report;
        if self.members.get(&member.instance).is_some_and(|own| own.ends <= now) {
            self.members.remove(&member.instance);
            self.fresh = true;
        }
        let ends = now.plus(self.lease);
        let count = self.count();
        let Some(own) = self.members.get_mut(&member.instance) else {
            self.join(member, report, now)?;
            return Ok(None);
        };
        if own.incarnation != member.incarnation {
            own.incarnation = member.incarnation;
            own.demand = Demand::default();
        }
        own.demand.count(wanted, over);
        own.ends = ends;
        let held = match holding {
            Holding::Nothing => None,
            Holding::Leased { rev, ppm: _ } => rev,
        };
        let booked = own.booked();
        if let Some(rev) = held {
            own.acknowledge(rev);
        }
        let freed = own.booked() < booked;
        let newest = own.newest().copied().filter(|open| open.rev > 0 && held != Some(open.rev));
        let again = newest.map(|open| {
            own.told_members = count;
            Grant { member: member.clone(), rev: open.rev, ppm: open.ppm, members: count }
        });
        let wait = if freed && self.short { SOON } else { ROUND };
        self.hurry(wait, now);
        Ok(again)
    }

    fn join(&mut self, member: &MemberId, report: LimitReport, now: Timestamp) -> Result<(), Crowded> {
        let LimitReport { wanted, over, holding } = report;
        if self.members.len() >= MOST_MEMBERS {
            return Err(Crowded);
        }
        let mut own = Member {
            incarnation: member.incarnation,
            demand: Demand::default(),
            open: ArrayVec::new(),
            told_members: 0,
            ends: now.plus(self.lease),
        };
        own.demand.count(wanted, over);
        if let Holding::Leased { rev: _, ppm } = holding {
            // What it says is booked, as far as there is that much: else a wrong word could take from others what they hold.
            let ppm = ppm.min(self.free());
            own.open.push(Open { rev: 0, ppm, ends: own.ends });
        }
        self.members.insert(member.instance.clone(), own);
        self.fresh = true;
        self.hurry(SOON, now);
        Ok(())
    }

    fn hurry(&mut self, wait: Duration, now: Timestamp) {
        let at = self.divided.map_or(now, |divided| divided.plus(wait).max(now));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When to divide.
    #[must_use]
    pub const fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether nobody holds anything any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// One member.
    #[must_use]
    pub fn member(&self, instance: &InstanceId) -> Option<ShareView> {
        self.members.get(instance).map(Member::view)
    }

    /// Forgets members and grants whose leases have ended.
    pub fn expire(&mut self, now: Timestamp) {
        let before = self.members.len();
        self.members.retain(|_, own| now < own.ends);
        self.fresh |= self.members.len() != before;
        for own in self.members.values_mut() {
            own.expire(now);
        }
        self.divided = Some(now);
        self.due = (!self.members.is_empty()).then(|| now.plus(ROUND));
    }

    /// Divides anew. Returns the shares that have changed, all of number `rev`, which must be greater than any before.
    pub fn divide(&mut self, spec: &RateLimiterSpec, rev: u64, now: Timestamp) -> Vec<Grant> {
        self.expire(now);
        if self.members.is_empty() {
            return Vec::new();
        }
        let rate = Some((spec.limit(), spec.period()));
        self.fresh |= self.rate != rate;
        self.rate = rate;
        let goals = self.goals(spec, now);
        let count = self.count();
        let mut free = self.free();
        self.short = false;
        let mut order: Vec<(u32, (&InstanceId, &mut Member))> = goals.into_iter().zip(&mut self.members).collect();
        // Whoever has least is served first.
        order.sort_by_key(|(_, (_, own))| own.told());
        let mut changed = Vec::new();
        for (goal, (instance, own)) in order {
            let (told, booked) = (own.told(), own.booked());
            let ppm = next(goal, told, booked.saturating_add(free), count);
            self.short |= ppm < goal;
            free -= ppm.saturating_sub(booked);
            let is_told = own.newest().is_some_and(|open| open.rev > 0);
            if ppm != told || !is_told || own.told_members != count {
                own.tell(Open { rev, ppm, ends: own.ends });
                own.told_members = count;
                let member = MemberId { instance: instance.clone(), incarnation: own.incarnation };
                changed.push(Grant { member, rev, ppm, members: count });
            }
        }
        changed
    }

    /// What each should have, in the order of the members. They sum to at most the whole.
    fn goals(&mut self, spec: &RateLimiterSpec, now: Timestamp) -> Vec<u32> {
        if now < self.learning_until {
            self.fresh = true;
            self.hurry_to(self.learning_until);
            return self.members.values().map(Member::booked).collect();
        }
        let even = WHOLE / self.count();
        let floor = FLOOR.min(even / FLOOR_OF_EVEN);
        let want = |own: &Member| {
            let counted = own.demand.ppm(spec).unwrap_or(even);
            (counted + counted / HEADROOM).clamp(floor, WHOLE)
        };
        let wants: Vec<u32> = self.members.values().map(want).collect();
        let exact = level(&wants, WHOLE);
        if std::mem::take(&mut self.fresh) {
            return exact;
        }
        let goal = |(own, (want, exact)): (&Member, (&u32, &u32))| {
            let told = own.told();
            let near = told.abs_diff(*exact) <= told.max(even) / BAND;
            let fed = told + exact / BAND >= *want.min(exact);
            if near && fed { told } else { *exact }
        };
        let goals: Vec<u32> = self.members.values().zip(wants.iter().zip(&exact)).map(goal).collect();
        if goals.iter().map(|goal| u64::from(*goal)).sum::<u64>() <= u64::from(WHOLE) {
            return goals;
        }
        // What some keep above their part is what others need.
        goals.into_iter().zip(exact).map(|(goal, exact)| goal.min(exact)).collect()
    }

    fn hurry_to(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1)
    }

    fn free(&self) -> u32 {
        WHOLE.saturating_sub(self.members.values().map(Member::booked).sum())
    }
}

/// The next share of a member that has `told` and should have `goal`, where it can have at most `most`.
fn next(goal: u32, told: u32, most: u32, count: u32) -> u32 {
    let possible = goal.min(most);
    if goal <= told || possible == goal {
        return goal;
    }
    // Crumbs are not worth a message; to a newcomer, an equal part for the time being is worth more.
    let worthwhile =
        if told == 0 { possible >= goal / 2 } else { possible.saturating_sub(told) > told.max(WHOLE / count) / BAND };
    if worthwhile { possible } else { told }
}

impl Member {
    fn newest(&self) -> Option<&Open> {
        self.open.last()
    }

    fn told(&self) -> u32 {
        self.newest().map_or(0, |open| open.ppm)
    }

    /// The largest part that it may act on.
    fn booked(&self) -> u32 {
        self.open.iter().map(|open| open.ppm).max().unwrap_or(0)
    }

    fn tell(&mut self, grant: Open) {
        if let Some(newest) = self.open.last_mut() {
            newest.ends = self.ends;
        }
        if self.open.is_full() {
            let oldest = self.open.remove(0);
            let merged = &mut self.open[0];
            merged.ppm = merged.ppm.max(oldest.ppm);
            merged.ends = merged.ends.max(oldest.ends);
        }
        self.open.push(grant);
    }

    /// It holds this one: it will never act on an older one again.
    fn acknowledge(&mut self, rev: u64) {
        if self.open.iter().any(|open| open.rev == rev) {
            self.open.retain(|open| open.rev >= rev);
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let newest = self.newest().map_or(0, |open| open.rev);
        self.open.retain(|open| open.rev == newest || now < open.ends);
    }

    fn view(&self) -> ShareView {
        ShareView {
            ppm: self.told(),
            acknowledged: self.open.len() == 1 && self.newest().is_some_and(|open| open.rev > 0),
            wanted_per_second: self.demand.per_second(),
        }
    }
}
