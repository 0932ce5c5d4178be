//! When the owner does not trust itself: it says nothing, says why, and comes back by itself.

use fusebox_proto::v1::{FleetState, LocalState};

use crate::world::{Heard, World, lease};

/// The fleet is open, and everybody knows it.
async fn open() -> World {
    let mut world = World::start().await;
    let heard = world.beat(LocalState::Open).await;
    assert_eq!(heard.verdicts, [FleetState::Open; 2]);
    assert!(world.beat(LocalState::Open).await.renewed > 0, "leases are renewed");
    world
}

fn is_quiet(heard: &Heard) -> bool {
    heard.verdicts.is_empty() && heard.permits + heard.canvasses == 0 && heard.renewed == 0
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_stood_still_says_nothing_until_all_leases_have_ended_and_then_learns_anew() {
    let mut world = open().await;
    tokio::time::advance(lease() / 3).await;
    assert_eq!(world.explain().await.mode, "deciding", "a third of the lease is no reason yet");
    // Probing is due meanwhile, and is not begun by whoever has just woken up.
    tokio::time::advance(lease() / 3 + lease() / 100).await;
    let explained = world.explain().await;
    assert_eq!((explained.mode.as_str(), explained.suspicion.as_str()), ("frozen", "stall"));
    assert_eq!(fusebox_proto::duration::from_wire(explained.mode_ends_in.unwrap()).unwrap(), lease());

    let (frozen, mut heard) = world.until("learning", LocalState::Open).await;
    assert!(frozen >= lease(), "{frozen:?}");
    let thawed = heard.pop().unwrap();
    assert!(heard.iter().all(is_quiet), "{heard:?}");
    assert_eq!(thawed.verdicts, [FleetState::Released; 2], "nobody goes on with what it holds");

    let (_, heard) = world.until("deciding", LocalState::Open).await;
    let said = |state| heard.iter().any(|heard| heard.verdicts.contains(&state));
    let last = heard.last().unwrap();
    assert!(!said(FleetState::HalfOpen) && heard.iter().all(|heard| heard.permits == 0), "{heard:?}");
    let opened =
        if last.verdicts.is_empty() { world.beat(LocalState::Open).await.verdicts } else { last.verdicts.clone() };
    assert_eq!(opened, [FleetState::Open; 2], "what is seen now counts again");
    assert_eq!(world.explain().await.suspicion, "");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_writes_freezes_the_fleet_and_one_that_takes_them_again_lets_it_thaw() {
    let mut world = World::start().await;
    world.beat(LocalState::Closed).await;
    world.disk.set_full(true);
    // The first decision that can't be written down is the last one.
    world.beat(LocalState::Open).await;
    world.until("frozen", LocalState::Open).await;
    assert_eq!(world.explain().await.suspicion, "store_unwritable");
    // However long that lasts.
    for _ in 0..4 * lease().as_secs() {
        let heard = world.beat(LocalState::Open).await;
        assert!(is_quiet(&heard), "{heard:?}");
        assert_eq!(world.explain().await.mode, "frozen");
    }
    let refused = world.disk.refused();
    assert!(refused > 1, "it is tried again, {refused} times so far");
    let explained = world.explain().await;
    assert_eq!((explained.mode.as_str(), explained.suspicion.as_str()), ("frozen", "store_unwritable"));

    world.disk.set_full(false);
    let (thawing, mut heard) = world.until("learning", LocalState::Closed).await;
    assert!(thawing >= lease() - lease() / 10, "the last refusal was a moment ago: {thawing:?}");
    heard.pop();
    assert!(heard.iter().all(is_quiet), "{heard:?}");
    world.until("deciding", LocalState::Closed).await;
    assert_eq!(world.beat(LocalState::Open).await.verdicts, [FleetState::Open; 2]);
}
