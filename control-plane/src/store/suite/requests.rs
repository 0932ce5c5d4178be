//! Requests that come again.

use super::*;

pub(super) fn request(id: &str, digest: u8, seconds: u64) -> RequestKey {
    RequestKey { id: id.to_owned(), sha256: vec![digest; 32], at: moment(seconds) }
}

pub(super) async fn a_request_that_comes_again_writes_nothing_and_is_answered_as_before(store: &dyn Store) {
    let once = |key: RequestKey| Some(Once::new(key, |applied: &Applied| applied.revision.to_string().into_bytes()));
    let change = |duration: &str| vec![put(policy("once", "once", duration), Expect::Any(None))];
    let key = request("r1", 1, 0);
    assert_eq!(store.answered(key.clone()).await.unwrap(), None);
    store.apply_once(change("1s"), note(), true, once(key.clone())).await.unwrap();
    assert_eq!(store.answered(key.clone()).await.unwrap(), None, "what only looks is not kept");

    let first = store.apply_once(change("1s"), note(), false, once(key.clone())).await.unwrap().revision;
    store.apply(change("2s"), note(), false).await.unwrap();
    let again = store.apply_once(change("1s"), note(), false, once(key.clone())).await;
    let Err(StoreError::Repeated(answer)) = again else { panic!("{again:?}") };
    assert_eq!(answer, first.to_string().into_bytes());
    assert_eq!(store.answered(key.clone()).await.unwrap(), Some(answer));
    assert_eq!(store.load().await.unwrap().revision, Revision(first.0 + 1), "it was written once");

    let other = RequestKey { sha256: vec![2; 32], ..key.clone() };
    let reused = store.apply_once(change("3s"), note(), false, once(other.clone())).await;
    assert!(matches!(reused, Err(StoreError::RequestIdReused(id)) if id == "r1"));
    assert!(matches!(store.answered(other).await, Err(StoreError::RequestIdReused(_))));

    // A write that fails keeps nothing: it may be tried again under its id.
    let failed = vec![put(policy("once", "once", "3s"), Expect::Absent)];
    assert!(store.apply_once(failed, note(), false, once(request("r2", 1, 0))).await.is_err());
    assert!(store.apply_once(change("4s"), note(), false, once(request("r2", 3, 0))).await.is_ok());

    let a_day_later = RequestKey { at: key.at + REQUESTS_KEPT, ..key.clone() };
    assert_eq!(store.answered(a_day_later.clone()).await.unwrap(), None);
    assert!(store.apply_once(change("5s"), note(), false, once(a_day_later)).await.is_ok());
    // The others were removed with that: one that is asked for with its own time is not there any more.
    assert_eq!(store.answered(request("r2", 3, 0)).await.unwrap(), None);
}

pub(super) async fn a_repeated_override_is_set_and_ended_once(store: &dyn Store) {
    let new = forced("once");
    let before = store.overrides().await.unwrap().len();
    let set = |id: &str| Once::new(request(id, 1, 0), |stored: &StoredOverride| stored.id.to_string().into_bytes());
    let stored = store.put_override_once(new.clone(), Some(set("o1"))).await.unwrap();
    let again = store.put_override_once(new, Some(set("o1"))).await;
    assert!(matches!(again, Err(StoreError::Repeated(id)) if id == stored.id.to_string().into_bytes()));
    assert_eq!(store.overrides().await.unwrap().len(), before + 1);
    let end = || Some(Once::new(request("o2", 1, 0), |()| b"ended".to_vec()));
    store.end_overrides_once(vec![stored.id], Ending::Released, note(), end()).await.unwrap();
    let again = store.end_overrides_once(vec![stored.id], Ending::Released, note(), end()).await;
    assert!(matches!(again, Err(StoreError::Repeated(answer)) if answer == b"ended"));
}
