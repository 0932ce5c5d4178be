//! How much a namespace may hold.

use std::num::NonZeroUsize;

use super::*;

/// Policies whose definitions have one size, each.
fn sized(name: &str) -> Change {
    put(policy(name, &format!("t{name}"), "1s"), Expect::Any(None))
}

fn quota(policies: usize, bytes: usize) -> Quota {
    Quota { policies: NonZeroUsize::new(policies).unwrap(), bytes: NonZeroUsize::new(bytes).unwrap() }
}

fn full<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> (Measure, usize, usize) {
    let error = answer.unwrap_err();
    let StoreError::NamespaceFull { namespace, measure, limit, would } = error else { panic!("{error:?}") };
    assert_eq!(namespace, Namespace::default_namespace());
    (measure, limit, would)
}

/// Bytes of everything in force.
async fn bytes(store: &dyn Store) -> usize {
    store.load().await.unwrap().policies.iter().map(|stored| stored.size).sum()
}

/// `make` opens an empty store that takes so much.
pub(super) async fn a_namespace_takes_what_it_may_hold_and_nothing_more<S: Store>(make: impl AsyncFn(Quota) -> S) {
    let store = make(quota(3, 1 << 20)).await;
    let apply = async |changes, dry| store.apply(changes, note(), dry).await;
    apply(vec![sized("a"), sized("b")], false).await.expect("one less than the limit");
    assert_eq!(full(apply(vec![sized("c"), sized("d")], false).await), (Measure::Policies, 3, 4));
    assert_eq!(store.load().await.unwrap().policies.len(), 2, "nothing of it was written");
    apply(vec![sized("c")], false).await.expect("the limit itself");
    for dry in [true, false] {
        assert_eq!(full(apply(vec![sized("d")], dry).await), (Measure::Policies, 3, 4), "told by a trial too");
    }
    apply(vec![put(policy("a", "ta", "2s"), Expect::Any(None))], false).await.expect("a change is no addition");
    apply(vec![sized("d"), delete("b", None)], false).await.expect("what is there in the end counts");
    let mut elsewhere = policy("a", "ta", "1s");
    elsewhere.namespace = Namespace::try_new("elsewhere").unwrap();
    apply(vec![put(elsewhere, Expect::Absent)], false).await.expect("another namespace has its own room");

    // A candidate takes room too, of its own if nothing of its name is in force.
    let new = rollouts::rollout(policy("e", "te", "1s"), &[10]);
    assert_eq!(full(store.start_rollout(new, note(), true, None).await), (Measure::Policies, 3, 4));
    let known = rollouts::rollout(policy("c", "tc", "9s"), &[10]);
    store.start_rollout(known, note(), false, None).await.unwrap();
}

pub(super) async fn bytes_are_counted_to_the_last_one<S: Store>(make: impl AsyncFn(Quota) -> S) {
    let plenty = make(quota(10, 1 << 20)).await;
    plenty.apply(vec![sized("a"), sized("b")], note(), false).await.unwrap();
    let both = bytes(&plenty).await;
    for (limit, fits) in [(both + 1, true), (both, true), (both - 1, false)] {
        let store = make(quota(10, limit)).await;
        store.apply(vec![sized("a")], note(), false).await.unwrap();
        for dry in [true, false] {
            let added = store.apply(vec![sized("b")], note(), dry).await;
            if fits {
                added.unwrap();
            } else {
                assert_eq!(full(added), (Measure::Bytes, limit, both));
            }
        }
    }
}
