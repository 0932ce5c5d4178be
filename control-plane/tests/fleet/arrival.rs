//! Policies and what replicas say of them come to the owner by two ways.

use crate::world::World;

/// A quiet replica says once that it has a breaker. If that were lost, the fleet's verdicts would never reach it.
#[tokio::test(start_paused = true)]
async fn the_first_word_about_a_policy_that_has_just_come_is_heard() {
    let mut world = World::start().await;
    for round in 0..32 {
        assert_eq!(world.come(&format!("service-{round}")).await, 2, "round {round}");
    }
}
