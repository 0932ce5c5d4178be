//! Overrides, transitions and decisions.

use super::*;

pub(super) async fn overrides_stay_until_they_are_ended(store: &dyn Store) {
    let new = forced("tb");
    let first = store.put_override(new.clone()).await.unwrap();
    let second = store.put_override(NewOverride { state: Forced::Closed, ..new.clone() }).await.unwrap();
    let third = store.put_override(NewOverride { state: Forced::Disabled, ..new }).await.unwrap();
    assert!(first.id < second.id && second.id < third.id);
    assert_eq!(store.overrides().await.unwrap(), [first.clone(), second.clone(), third.clone()]);
    store.end_overrides(vec![first.id, 999], Ending::Released, note()).await.unwrap();
    assert_eq!(store.overrides().await.unwrap(), [second, third]);
}

pub(super) async fn an_override_takes_the_place_of_others_in_one_step(store: &dyn Store) {
    let of_replaced = || async {
        let overrides = store.overrides().await.unwrap();
        overrides.into_iter().filter(|own| own.pattern.target.as_str() == "replaced").collect::<Vec<_>>()
    };
    let once =
        || Once::new(requests::request("o3", 1, 0), |stored: &StoredOverride| stored.id.to_string().into_bytes());
    let first = store.put_override(forced("replaced")).await.unwrap();
    let other = store.put_override(forced("replaced")).await.unwrap();
    let next = NewOverride { state: Forced::Closed, replaces: vec![first.id, 999], ..forced("replaced") };
    let second = store.put_override_once(next.clone(), Some(once())).await.unwrap();
    assert_eq!(of_replaced().await, [other.clone(), second.clone()]);
    let newest = AuditFilter { limit: 2, ..AuditFilter::default() };
    let told = store.audit(newest).await.unwrap().records;
    let told: Vec<_> = told.iter().map(|record| (record.action.as_str(), record.reason.as_str())).collect();
    let reason = format!("replaced by {}", second.id);
    assert_eq!(told, [("override.replace", reason.as_str()), ("override.set", "drill")]);

    let again = store.put_override_once(NewOverride { replaces: vec![other.id], ..next }, Some(once())).await;
    assert!(matches!(again, Err(StoreError::Repeated(id)) if id == second.id.to_string().into_bytes()));
    assert_eq!(of_replaced().await, [other, second], "what writes nothing ends nothing");
}

pub(super) async fn transitions_are_read_newest_first_and_filtered(store: &dyn Store) {
    let transition = |caller: &str, instance: Option<&str>| StoredTransition {
        id: 0,
        key: BreakerKey {
            namespace: Namespace::default_namespace(),
            caller: CallerName::try_new(caller).unwrap(),
            policy: PolicyName::try_new("b").unwrap(),
            strategy: StrategyName::try_new("circuit-breaker").unwrap(),
            target: TargetName::try_new("tb").unwrap(),
            zone: None,
        },
        instance: instance.map(|instance| InstanceId::try_new(instance).unwrap()),
        from: "closed".to_owned(),
        to: "open".to_owned(),
        cause: "consecutive_failures".to_owned(),
        detail: "5 of 5".to_owned(),
        at: moment(3),
        window_calls: 5,
        window_failures: 5,
        grounds: None,
    };
    let ids = store
        .append_transitions(vec![transition("x", Some("x-1")), transition("y", None), transition("x", Some("x-2"))])
        .await
        .unwrap();
    assert!(ids.is_sorted_by(|left, right| left < right));
    let read = |filter: TransitionFilter| async move { store.transitions(filter).await.unwrap() };
    let all = read(TransitionFilter { limit: 10, ..TransitionFilter::default() }).await;
    assert_eq!(all.iter().map(|stored| stored.id).rev().collect::<Vec<_>>(), ids);
    assert_eq!(all[2], StoredTransition { id: ids[0], ..transition("x", Some("x-1")) });
    let own = TransitionFilter {
        caller: Some("x".to_owned()),
        before: Some(ids[2]),
        limit: 10,
        ..TransitionFilter::default()
    };
    assert_eq!(read(own).await.len(), 1);
    let other = TransitionFilter { target: Some("else".to_owned()), limit: 10, ..TransitionFilter::default() };
    assert!(read(other).await.is_empty());
    let later = read(TransitionFilter { after: Some(ids[0]), limit: 10, ..TransitionFilter::default() }).await;
    assert_eq!(later.iter().map(|stored| stored.id).collect::<Vec<_>>(), [ids[2], ids[1]]);
}

pub(super) async fn old_transitions_are_forgotten_and_their_numbers_not_given_again(store: &dyn Store) {
    let (oldest, newest) = store.transitions_kept().await.unwrap().unwrap();
    assert_eq!(store.forget_transitions(moment(3), 100).await.unwrap(), 0, "none is older");
    assert_eq!(store.forget_transitions(moment(4), 1).await.unwrap(), 1);
    assert_eq!(store.transitions_kept().await.unwrap(), Some((oldest + 1, newest)));
    store.forget_transitions(moment(4), 100).await.unwrap();
    assert_eq!(store.transitions_kept().await.unwrap(), Some((newest, newest)), "the newest stays");
    let last = store.transitions(TransitionFilter { limit: 1, ..TransitionFilter::default() }).await.unwrap().remove(0);
    let ids = store.append_transitions(vec![last]).await.unwrap();
    assert_eq!(ids, [newest + 1]);
}

pub(super) async fn decisions_are_kept_by_breaker_and_the_newest_stay(store: &dyn Store) {
    let key = |target: &str, zone: Option<&str>| BreakerKey {
        namespace: Namespace::default_namespace(),
        caller: CallerName::try_new("x").unwrap(),
        policy: PolicyName::try_new("b").unwrap(),
        strategy: StrategyName::try_new("circuit-breaker").unwrap(),
        target: TargetName::try_new(target).unwrap(),
        zone: zone.map(|zone| Zone::try_new(zone).unwrap()),
    };
    let decided = |run: u64, number: u64, target: &str, zone: Option<&str>| StoredDecision {
        id: DecisionId { run: RunId::new(run).unwrap(), number },
        key: key(target, zone),
        since: moment(number),
        until: moment(number),
        decision: v1::BreakerDecision {
            times: 1,
            cause: "quorum".to_owned(),
            term: 1,
            rev: number,
            ..Default::default()
        },
    };
    let (a, b) = (u64::MAX, 1);
    let own = [decided(a, 1, "tb", None), decided(a, 3, "tb", None)];
    let zoned = [decided(a, 2, "tb", Some("z1"))];
    store.put_decisions(vec![own[0].clone(), zoned[0].clone(), own[1].clone()]).await.unwrap();
    assert_eq!(store.decisions(key("tb", None)).await.unwrap(), own);
    assert_eq!(store.decisions(key("tb", Some("z1"))).await.unwrap(), zoned);
    assert!(store.decisions(key("tb", Some("z2"))).await.unwrap().is_empty());
    assert_eq!(store.decided_breakers().await.unwrap(), [key("tb", None), key("tb", Some("z1"))]);

    // The same one again, from another run one with the same number.
    let later = StoredDecision { until: moment(60), ..own[0].clone() };
    let other = decided(b, 1, "tb", None);
    store.put_decisions(vec![later.clone(), other.clone()]).await.unwrap();
    assert_eq!(store.decisions(key("tb", None)).await.unwrap(), [later, own[1].clone(), other]);

    let most = DECISIONS_OF_BREAKER as u64;
    store.put_decisions((2..most + 10).map(|number| decided(b, number, "tb", None)).collect()).await.unwrap();
    let kept: Vec<u64> = store.decisions(key("tb", None)).await.unwrap().iter().map(|own| own.id.number).collect();
    assert_eq!(kept, (10..most + 10).collect::<Vec<_>>());
    assert_eq!(store.decisions(key("tb", Some("z1"))).await.unwrap(), zoned, "each breaker for itself");
}
