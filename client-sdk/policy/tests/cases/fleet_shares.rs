//! One limit divided over replicas: fair by demand, and never more than the whole, whatever the network does.

use std::{collections::VecDeque, time::Duration};

use fusebox_policy::{
    InstanceId, Timestamp,
    fleet::{
        evidence::MemberId,
        held::Fence,
        held_share::{HeldShare, Share},
        shares::{Grant, Holding, LimitReport, Shares, WHOLE},
    },
    rate_limiter::{RateLimiterInput, RateLimiterSpec, RateScope},
};
use proptest::prelude::*;

use crate::driver::{at, ms};

const LEASE: Duration = Duration::from_secs(15);

fn spec(limit: u32) -> RateLimiterSpec {
    RateLimiterSpec::try_new(RateLimiterInput { limit, scope: RateScope::Fleet, ..RateLimiterInput::default() })
        .unwrap()
}

/// One process, its stream and what is on its way on it.
#[derive(Debug)]
struct Replica {
    id: MemberId,
    held: HeldShare,
    /// Calls per second that it wants.
    wants: u64,
    /// Calls in millionths that were not reported as whole ones.
    rest: u64,
    reported: u64,
    stream: u64,
    up: VecDeque<(u64, LimitReport)>,
    down: VecDeque<Down>,
    dead: bool,
}

#[derive(Clone, Copy, Debug)]
enum Down {
    Share { fence: Fence, ppm: u32, members: u32, anchor: u64 },
    Ack { term: u64, rev: u64, anchor: u64 },
}

/// A control plane and its replicas, on one clock.
#[derive(Debug)]
struct Net {
    now: u64,
    limit: RateLimiterSpec,
    shares: Shares,
    term: u64,
    rev: u64,
    replicas: Vec<Replica>,
    /// Of each replica: the stream and the sending time of its newest report.
    anchors: Vec<(u64, u64)>,
    /// Shares told.
    told: usize,
}

impl Net {
    fn new(limit: u32, wants: &[u64]) -> Self {
        let mut net = Self {
            now: 0,
            limit: spec(limit),
            shares: Shares::new(LEASE, Timestamp::ZERO),
            term: 1,
            rev: 0,
            replicas: Vec::new(),
            anchors: Vec::new(),
            told: 0,
        };
        wants.iter().for_each(|wants| net.join(*wants));
        net
    }

    fn join(&mut self, wants: u64) {
        let index = self.replicas.len();
        self.replicas.push(Replica {
            id: MemberId { instance: InstanceId::try_new(&format!("a-{index}")).unwrap(), incarnation: 7 },
            held: HeldShare::default(),
            wants,
            rest: 0,
            reported: self.now,
            stream: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            dead: false,
        });
        self.anchors.push((0, 0));
    }

    fn beat(&mut self, who: usize) {
        let (now, term) = (self.now, self.term);
        let replica = &mut self.replicas[who];
        if replica.dead {
            return;
        }
        let over = now - replica.reported;
        let calls = replica.rest + replica.wants * over * 1000;
        replica.rest = calls % 1_000_000;
        replica.reported = now;
        let holding = match replica.held.leased(at(now)) {
            None => Holding::Nothing,
            Some(share) => {
                Holding::Leased { rev: (share.fence.term == term).then_some(share.fence.rev), ppm: share.ppm }
            }
        };
        replica.up.push_back((now, LimitReport { wanted: calls / 1_000_000, over: ms(over), holding }));
    }

    /// The control plane reads one message of a replica.
    fn read(&mut self, who: usize) {
        let Some((sent, report)) = self.replicas[who].up.pop_front() else { return };
        self.anchors[who] = (self.replicas[who].stream, sent);
        let id = self.replicas[who].id.clone();
        let again = self.shares.report(&id, report, at(self.now)).unwrap();
        if let Some(again) = again {
            self.push(&again);
        }
        let ack = Down::Ack { term: self.term, rev: self.rev, anchor: sent };
        self.replicas[who].down.push_back(ack);
    }

    fn push(&mut self, grant: &Grant) {
        self.told += 1;
        let Grant { member, rev, ppm, members } = grant;
        let who = self.replicas.iter().position(|replica| replica.id == *member).unwrap();
        let (stream, anchor) = self.anchors[who];
        if stream == self.replicas[who].stream {
            let fence = Fence { term: self.term, rev: *rev };
            self.replicas[who].down.push_back(Down::Share { fence, ppm: *ppm, members: *members, anchor });
        }
    }

    fn divide(&mut self) {
        if self.shares.due().is_some_and(|due| due <= at(self.now)) {
            let grants = self.shares.divide(&self.limit, self.rev + 1, at(self.now));
            self.rev += 1;
            for grant in grants {
                self.push(&grant);
            }
        }
    }

    /// A replica hears one message.
    fn hear(&mut self, who: usize) {
        let now = at(self.now);
        let replica = &mut self.replicas[who];
        match replica.down.pop_front() {
            None => {}
            Some(Down::Share { fence, ppm, members, anchor }) => {
                let share = Share { fence, ppm, members, expires: at(anchor).plus(LEASE), lease: LEASE };
                replica.held.apply(share, now);
            }
            Some(Down::Ack { term, rev, anchor }) => replica.held.renew(term, rev, at(anchor).plus(LEASE), now),
        }
    }

    /// The stream breaks: all that is on its way is lost. The next message goes over a new one.
    fn cut(&mut self, who: usize) {
        let replica = &mut self.replicas[who];
        replica.up.clear();
        replica.down.clear();
        replica.stream += 1;
    }

    fn restart(&mut self) {
        (0..self.replicas.len()).for_each(|who| self.cut(who));
        self.term += 1;
        self.rev = 0;
        self.shares = Shares::new(LEASE, at(self.now).plus(LEASE));
    }

    /// A second in which everything arrives at once.
    fn round(&mut self) {
        for _ in 0..4 {
            self.now += 250;
            for who in 0..self.replicas.len() {
                self.beat(who);
                while !self.replicas[who].up.is_empty() {
                    self.read(who);
                }
            }
            self.divide();
            for who in 0..self.replicas.len() {
                while !self.replicas[who].down.is_empty() {
                    self.hear(who);
                }
            }
        }
    }

    fn rounds(&mut self, rounds: usize) {
        (0..rounds).for_each(|_| self.round());
    }

    /// What each acts on.
    fn acts_on(&self) -> Vec<u32> {
        self.replicas.iter().map(|replica| replica.held.ppm(at(self.now))).collect()
    }

    /// All parts on leases in force.
    fn leased(&self) -> u32 {
        self.replicas.iter().filter_map(|replica| replica.held.leased(at(self.now))).map(|share| share.ppm).sum()
    }
}

/// The max-min fair parts, by bisection of the level: another way than that of the code under test.
fn fair(limit: u64, wants: &[u64]) -> Vec<f64> {
    let floor = (1.0 / wants.len() as f64 / 4.0).min(0.01);
    // A tenth more than is counted.
    let parts: Vec<f64> = wants.iter().map(|wants| (1.1 * *wants as f64 / limit as f64).clamp(floor, 1.0)).collect();
    let sum: f64 = parts.iter().sum();
    if sum <= 1.0 {
        let spare = (1.0 - sum) / parts.len() as f64;
        return parts.iter().map(|part| part + spare).collect();
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..100 {
        let level = f64::midpoint(low, high);
        if parts.iter().map(|part| part.min(level)).sum::<f64>() <= 1.0 {
            low = level;
        } else {
            high = level;
        }
    }
    parts.iter().map(|part| part.min(low)).collect()
}

fn near(found: u32, part: f64, even: f64) -> bool {
    (f64::from(found) / f64::from(WHOLE) - part).abs() <= 0.06 * part.max(even)
}

#[test]
fn a_lone_member_gets_everything() {
    for wants in [0, 5, 100, 10_000] {
        let mut net = Net::new(100, &[wants]);
        net.rounds(3);
        assert_eq!(net.acts_on(), [WHOLE], "{wants}");
    }
}

#[test]
fn equal_demands_get_equal_shares() {
    for wants in [0, 10, 1000] {
        let mut net = Net::new(100, &[wants; 7]);
        net.rounds(4);
        assert!(net.acts_on().iter().all(|ppm| *ppm == WHOLE / 7), "{:?}", net.acts_on());
    }
}

#[test]
fn the_hungry_get_what_the_idle_leave_and_the_idle_keep_enough_for_a_call() {
    let mut net = Net::new(300, &[1000, 0, 30]);
    net.rounds(5);
    assert_eq!(net.acts_on(), [880_000, 10_000, 110_000]);
}

#[test]
fn a_small_limit_over_many_starves_nobody() {
    let mut net = Net::new(1, &[10; 10]);
    net.rounds(4);
    assert!(net.acts_on().iter().all(|ppm| *ppm == 100_000), "a tenth of a call per second each");
}

#[test]
fn a_newcomer_gets_its_part_as_soon_as_the_others_have_given_it_up() {
    let mut net = Net::new(100, &[1000, 1000]);
    net.rounds(4);
    net.join(1000);
    net.round();
    let thirds = net.acts_on();
    assert!(thirds.iter().all(|ppm| near(*ppm, 1.0 / 3.0, 1.0 / 3.0)), "{thirds:?}");
}

#[test]
fn a_share_grows_only_after_the_shrink_of_another_is_known() {
    let mut net = Net::new(100, &[1000, 0]);
    net.rounds(5);
    assert_eq!(net.acts_on(), [990_000, 10_000]);
    // They change places, but the first one's stream is stuck: it holds what it holds.
    net.replicas[0].wants = 0;
    net.replicas[1].wants = 1000;
    for _ in 0..15 {
        assert_eq!(net.acts_on()[1], 10_000, "the other has not given anything up");
        net.now += 1000;
        net.beat(1);
        net.read(1);
        net.divide();
        while !net.replicas[1].down.is_empty() {
            net.hear(1);
        }
        assert!(net.leased() <= WHOLE);
    }
    // Its lease has ended.
    net.now += 1000;
    net.beat(1);
    net.read(1);
    net.divide();
    while !net.replicas[1].down.is_empty() {
        net.hear(1);
    }
    assert_eq!(net.acts_on()[1], WHOLE);
}

#[test]
fn a_member_that_is_gone_leaves_its_part_at_the_end_of_its_lease() {
    let mut net = Net::new(100, &[1000, 1000]);
    net.rounds(4);
    net.replicas[1].dead = true;
    net.rounds(14);
    assert_eq!(net.acts_on()[0], WHOLE / 2);
    net.rounds(3);
    assert_eq!(net.acts_on()[0], WHOLE);
}

#[test]
fn a_new_process_of_the_same_name_takes_the_place_of_its_former_one() {
    let mut net = Net::new(100, &[1000, 1000]);
    net.rounds(4);
    net.cut(0);
    net.replicas[0].id.incarnation = 8;
    net.replicas[0].held = HeldShare::default();
    net.round();
    assert_eq!(net.acts_on(), [WHOLE / 2, WHOLE / 2]);
}

#[test]
fn a_modest_member_gets_all_that_it_wants_beside_hungry_ones() {
    let mut net = Net::new(1000, &[9000, 9000, 20]);
    net.rounds(10);
    // Up by small steps, each within the band of an equal part.
    for wants in 20..60 {
        net.replicas[2].wants = wants;
        net.rounds(3);
        let has = u64::from(net.acts_on()[2]) * 1000;
        assert!(has >= wants * u64::from(WHOLE), "{has} for {wants}");
    }
}

#[test]
fn small_changes_of_demand_move_nothing() {
    let mut net = Net::new(1000, &[900, 900, 40]);
    net.rounds(10);
    let told = net.told;
    for round in 0..30 {
        net.replicas[2].wants = 38 + round % 5;
        net.round();
    }
    assert_eq!(net.told, told);
}

#[test]
fn a_new_run_of_the_server_gives_everybody_what_it_holds_and_learns_for_one_lease() {
    let mut net = Net::new(300, &[1000, 0, 30]);
    net.rounds(6);
    let before = net.acts_on();
    net.restart();
    net.replicas[1].wants = 1000;
    net.rounds(14);
    assert_eq!(net.acts_on(), before, "somebody who has not connected yet may hold something");
    assert!(net.replicas.iter().all(|replica| replica.held.leased(at(net.now)).unwrap().fence.term == 2));
    net.rounds(5);
    assert!(net.acts_on().into_iter().zip(fair(300, &[1000, 1000, 30])).all(|(ppm, part)| near(ppm, part, 0.33)));
}

#[test]
fn without_a_control_plane_all_fall_to_equal_parts_and_never_above_the_whole_on_the_way() {
    let mut net = Net::new(300, &[1000, 0, 30]);
    net.rounds(6);
    assert_eq!(net.acts_on(), [880_000, 10_000, 110_000]);
    let ends = net.now + 15_000;
    while net.now < ends + 15_000 {
        net.now += 100;
        let sum: u32 = net.acts_on().iter().sum();
        assert!(sum <= WHOLE, "{:?} at {}", net.acts_on(), net.now);
    }
    assert_eq!(net.acts_on(), [WHOLE / 3; 3]);
}

#[test]
fn what_was_never_told_anything_has_the_whole_limit() {
    let held = HeldShare::default();
    assert_eq!((held.ppm(at(0)), held.leased(at(0)), held.next_change(at(0)), held.members()), (WHOLE, None, None, 0));
}

#[test]
fn a_newcomer_for_whom_nothing_is_free_acts_on_an_equal_part() {
    let mut held = HeldShare::default();
    let share = |rev, ppm, expires| Share {
        fence: Fence { term: 1, rev },
        ppm,
        members: 4,
        expires: at(expires),
        lease: ms(100),
    };
    assert!(held.apply(share(2, 0, 100), at(0)));
    assert_eq!(held.ppm(at(0)), WHOLE / 4);
    assert!(!held.apply(share(1, 900_000, 100), at(1)), "it is older");
    assert!(held.apply(share(3, 400_000, 100), at(1)));
    assert_eq!(held.ppm(at(1)), 400_000);
    held.renew(1, 2, at(500), at(50));
    assert_eq!(held.next_change(at(50)), Some(at(100)), "the answer knew an older one only");
    held.renew(1, 3, at(120), at(50));
    assert_eq!((held.ppm(at(119)), held.ppm(at(120)), held.ppm(at(220))), (400_000, WHOLE / 4, WHOLE / 4));
    held.renew(1, 3, at(500), at(120));
    assert_eq!(held.leased(at(120)), None, "what has ended is told again, not renewed");
    assert!(held.apply(share(3, 400_000, 300), at(130)), "the same share on a new lease");
    assert_eq!(held.ppm(at(130)), 400_000);
}

#[test]
fn a_crumb_stays_a_crumb_until_nobody_can_hold_more_than_an_equal_part() {
    let mut held = HeldShare::default();
    let fence = Fence { term: 1, rev: 1 };
    assert!(held.apply(Share { fence, ppm: 10_000, members: 2, expires: at(100), lease: ms(100) }, at(0)));
    assert_eq!((held.ppm(at(100)), held.next_change(at(100))), (10_000, Some(at(200))));
    assert_eq!((held.ppm(at(200)), held.next_change(at(200))), (WHOLE / 2, None));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Beat(usize),
    Read(usize),
    Hear(usize),
    Divide,
    Pass(u64),
    Cut(usize),
    Die(usize),
    Join(u64),
    Wants(usize, u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..5_usize).prop_map(Step::Beat),
        10 => (0..5_usize).prop_map(Step::Read),
        12 => (0..5_usize).prop_map(Step::Hear),
        8 => Just(Step::Divide),
        8 => (0..3000_u64).prop_map(Step::Pass),
        1 => Just(Step::Pass(16_000)),
        1 => (0..5_usize).prop_map(Step::Cut),
        1 => (0..5_usize).prop_map(Step::Die),
        1 => (0..500_u64).prop_map(Step::Join),
        3 => ((0..5_usize), (0..500_u64)).prop_map(|(who, wants)| Step::Wants(who, wants)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever is lost or late, and whoever comes, goes or restarts: the parts on leases in force are never more than the whole.
    #[test]
    fn shares_never_sum_to_more_than_the_whole(
        wants in prop::collection::vec(0..500_u64, 1..4),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut net = Net::new(100, &wants);
        for step in steps {
            let among = |who: usize, net: &Net| who % net.replicas.len();
            match step {
                Step::Beat(who) => net.beat(among(who, &net)),
                Step::Read(who) => net.read(among(who, &net)),
                Step::Hear(who) => net.hear(among(who, &net)),
                Step::Divide => net.divide(),
                Step::Pass(millis) => net.now += millis,
                Step::Cut(who) => net.cut(among(who, &net)),
                Step::Die(who) => {
                    let who = among(who, &net);
                    net.cut(who);
                    net.replicas[who].dead = true;
                }
                Step::Join(wants) if net.replicas.len() < 8 => net.join(wants),
                Step::Wants(who, wants) => {
                    let who = among(who, &net);
                    net.replicas[who].wants = wants;
                }
                Step::Join(_) => {}
                Step::Restart => net.restart(),
            }
            prop_assert!(net.leased() <= WHOLE, "{step:?}: {net:#?}");
        }
    }

    /// With steady demand everybody comes to its max-min fair part within a few rounds, and then nothing moves any more.
    #[test]
    fn steady_demand_comes_to_rest_at_the_fair_parts(
        limit in 1..2000_u32,
        wants in prop::collection::vec(prop_oneof![Just(0), 0..300_u64, 0..5000_u64], 1..20),
    ) {
        // Rates below are counted over ten seconds; let them be rates that a second tells.
        let wants: Vec<u64> = wants.into_iter().map(|wants| if wants < 20 { 0 } else { wants }).collect();
        let mut net = Net::new(limit, &wants);
        net.rounds(6);
        let even = 1.0 / wants.len() as f64;
        for (ppm, part) in net.acts_on().into_iter().zip(fair(u64::from(limit), &wants)) {
            prop_assert!(near(ppm, part, even), "{ppm} is not {part}: {:?} of {limit}, {wants:?}", net.acts_on());
        }
        let told = net.told;
        net.rounds(10);
        prop_assert_eq!(net.told, told, "nothing flaps");
    }
}
