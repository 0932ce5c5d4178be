//! How many breakers are shared: who comes too late is told which bound is reached, and nothing grows beyond.

use fusebox_policy::{
    CallerName, Draw, Namespace, Revision,
    breaker::LocalState,
    fleet::{
        BreakerKey, CoordinationMode, Coordinator,
        coordinator::{Holding, Limits, NoRoom, Sighting},
        evidence::Report,
        held::Fence,
    },
};

use crate::{
    driver::at,
    fleet_driver::{key, run, settings},
    fleet_rule::{member, saw, tripped},
};

const SMALL: fn() -> Limits = || Limits {
    most_keys_of_replica: 2,
    most_keys: 3,
    most_keys_of_namespace: 4,
    most_keys_in_all: 6,
    ..Limits::default()
};

struct Server(Coordinator);

impl Server {
    fn new() -> Self {
        Self(Coordinator::new(1, run(1), at(0), SMALL()))
    }

    fn join(&mut self, key: &BreakerKey, number: usize) {
        self.0.join(&key.caller_id(), &member(number), None, at(0));
    }

    /// A replica tells of a breaker, if there is room.
    fn tell(&mut self, key: &BreakerKey, number: usize, report: Report, millis: u64) -> Result<(), NoRoom> {
        self.0.make_room(key, &member(number), at(millis))?;
        if self.0.breaker(key).is_none() {
            self.0.configure(key, settings(CoordinationMode::Balanced), at(millis));
        }
        let held = Holding { fence: Fence::default(), state: None, half_open_in: None };
        let sighting = Sighting { seq: millis, report, policy_revision: Revision(1), held };
        self.0.report(key, &member(number), sighting, at(millis), Draw::ZERO);
        Ok(())
    }

    fn leave(&mut self, key: &BreakerKey, number: usize, millis: u64) {
        self.0.leave(&key.caller_id(), &member(number), at(millis), Draw::ZERO);
    }

    fn count(&self) -> usize {
        self.0.keys().count()
    }
}

fn of(namespace: &str, caller: &str, target: &str) -> BreakerKey {
    BreakerKey {
        namespace: Namespace::try_new(namespace).unwrap(),
        caller: CallerName::try_new(caller).unwrap(),
        ..key(target, None)
    }
}

#[test]
fn a_replica_with_too_many_breakers_keeps_those_it_has_and_is_told_of_the_bound() {
    let mut server = Server::new();
    let [first, second, third] = ["b-1", "b-2", "b-3"].map(|target| of("n", "a", target));
    server.join(&first, 0);
    server.join(&first, 1);
    for key in [&first, &second] {
        server.tell(key, 0, saw(1, 0), 1).unwrap();
    }
    let refused = server.tell(&third, 0, saw(1, 0), 2).unwrap_err();
    assert_eq!(refused, NoRoom::Replica(2));
    assert_eq!(refused.to_string(), "this replica has 2 shared breakers, and no more are shared");
    server.tell(&first, 0, saw(2, 0), 3).unwrap();
    server.tell(&third, 1, saw(1, 0), 4).expect("another replica has room");
    assert_eq!(server.tell(&third, 0, saw(1, 0), 5), Err(NoRoom::Replica(2)), "also where others share it");
    server.0.drop_key(&second, &member(0), at(6), Draw::ZERO);
    server.tell(&third, 0, saw(1, 0), 7).expect("it has given one up");
}

#[test]
fn services_namespaces_and_the_server_have_bounds_of_their_own() {
    let mut server = Server::new();
    let mut tell = |namespace: &str, caller: &str, number: usize, target: &str| {
        let key = of(namespace, caller, target);
        if server.0.held_by(&key.caller_id(), &member(number)).next().is_none() {
            server.join(&key, number);
        }
        server.tell(&key, number, saw(1, 0), 1)
    };
    for (number, target) in [(0, "b-1"), (0, "b-2"), (1, "b-3")] {
        tell("n", "a", number, target).unwrap();
    }
    assert_eq!(tell("n", "a", 1, "b-4"), Err(NoRoom::Service(3)));
    tell("n", "c", 0, "b-1").unwrap();
    assert_eq!(tell("n", "c", 0, "b-2"), Err(NoRoom::Namespace(4)));
    // A service of the same name in another namespace is another one.
    tell("other", "a", 0, "b-1").unwrap();
    tell("other", "a", 0, "b-2").unwrap();
    assert_eq!(tell("third", "a", 0, "b-1"), Err(NoRoom::Server(6)));
    assert_eq!(server.count(), 6);
}

#[test]
fn what_no_replica_has_held_for_a_lease_gives_its_place_to_what_comes() {
    let mut server = Server::new();
    let [first, second, third, fourth] = ["b-1", "b-2", "b-3", "b-4"].map(|target| of("n", "a", target));
    for number in [0, 1] {
        server.join(&first, number);
        // Open, so that it is remembered when they have gone.
        server.tell(&first, number, tripped(9), 1).unwrap();
    }
    for number in [0, 1] {
        server.leave(&first, number, 2);
    }
    server.join(&first, 2);
    server.join(&first, 3);
    server.tell(&second, 2, saw(1, 0), 3).unwrap();
    server.tell(&third, 3, saw(1, 0), 3).unwrap();
    assert_eq!(server.count(), 3, "whoever comes back is told of the opening");
    assert_eq!(server.tell(&fourth, 3, saw(1, 0), 4), Err(NoRoom::Service(3)));
    server.tell(&fourth, 3, saw(1, 0), 20_004).expect("its lease has ended");
    assert_eq!(server.0.breaker(&first).map(|_| ()), None);
    assert_eq!(server.count(), 3);
}

#[test]
fn a_million_names_take_no_more_room_than_the_bounds() {
    let mut server = Server::new();
    for number in 0..1_000 {
        let key = of("n", &format!("a-{number}"), "b");
        server.join(&key, 0);
        for target in 0..10 {
            let key = of("n", &format!("a-{number}"), &format!("b-{target}"));
            let report = if target % 2 == 0 { tripped(9) } else { Report::disabled(LocalState::Closed) };
            let _ = server.tell(&key, 0, report, number * 100 + target + 1);
        }
        server.leave(&key, 0, number * 100 + 50);
    }
    assert!(server.count() <= 4, "{}", server.count());
}
