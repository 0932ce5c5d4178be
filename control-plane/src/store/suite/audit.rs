//! The audit log.

use super::*;

pub(super) async fn read(store: &dyn Store, filter: AuditFilter) -> Vec<AuditRecord> {
    store.audit(AuditFilter { limit: 1000, ..filter }).await.unwrap().records
}

pub(super) async fn every_change_is_recorded_as_it_was_made(store: &dyn Store) {
    let audit = |filter: AuditFilter| read(store, filter);
    let object = "namespaces/default/policies/audited";
    let of = |object: &str| AuditFilter {
        object: Some(object.to_owned()),
        order: AuditOrder::OldestFirst(0),
        ..AuditFilter::default()
    };
    let from =
        Caller { address: "10.0.0.7:5123".to_owned(), request_id: "r-1".to_owned(), ..Caller::unauthenticated("ada") };
    let note = |message: &str| Note { caller: from.clone(), message: message.to_owned(), at: moment(9) };
    let definition = |duration: &str| policy("audited", "audited", duration);
    store.apply(vec![put(definition("1s"), Expect::Any(None))], note("new"), true).await.unwrap();
    assert!(audit(of(object)).await.is_empty(), "a dry run is no change");
    let made = store.apply(vec![put(definition("1s"), Expect::Any(None))], note("new"), false).await.unwrap();
    store.apply(vec![put(definition("1s"), Expect::Any(None))], note("again"), false).await.unwrap();
    store.apply(vec![put(definition("2s"), Expect::Any(None))], note("longer"), false).await.unwrap();
    let older = Change::Put { policy: Box::new(definition("1s")), expect: Expect::Any(None), rollback: true };
    store.apply(vec![older], note("back"), false).await.unwrap();
    assert!(store.apply(vec![put(definition("9s"), Expect::Absent)], note("never"), false).await.is_err());
    store.apply(vec![delete("audited", None)], note("gone"), false).await.unwrap();
    let found = audit(of(object)).await;
    let told: Vec<_> = found.iter().map(|record| (record.action.as_str(), record.reason.as_str())).collect();
    let wanted =
        [("policy.create", "new"), ("policy.update", "longer"), ("policy.rollback", "back"), ("policy.delete", "gone")];
    assert_eq!(told, wanted);
    let text = |duration: &str| Some(manifest::to_json(&definition(duration)).to_string());
    let states: Vec<_> = found.iter().map(|record| (record.before.clone(), record.after.clone())).collect();
    assert_eq!(states, [(None, text("1s")), (text("1s"), text("2s")), (text("2s"), text("1s")), (text("1s"), None)]);
    let AuditRecord { actor, authentication, address, request_id, at, revision, .. } = &found[0];
    assert_eq!(
        (actor.as_str(), authentication.as_str(), address.as_str(), request_id.as_str(), *at, *revision),
        ("ada", "none", "10.0.0.7:5123", "r-1", moment(9), made.revision)
    );
    assert_eq!(audit(of("namespaces/default/policies/audit")).await, [], "a part of a name is another name");
    assert_eq!(audit(of("namespaces/default")).await.last(), found.last());
    let of_actor = AuditFilter { actor: Some("ada".to_owned()), ..of("namespaces") };
    assert_eq!(audit(of_actor).await, found);
    let of_noun = AuditFilter { action: Some("policy".to_owned()), ..of(object) };
    assert_eq!(audit(of_noun).await, found);
    let of_verb = AuditFilter { action: Some("policy.rollback".to_owned()), ..of(object) };
    assert_eq!(audit(of_verb).await, found[2..3]);
    let before = AuditFilter { until: Some(moment(9)), ..of(object) };
    let since = AuditFilter { from: Some(moment(9)), until: Some(moment(10)), ..of(object) };
    assert_eq!((audit(before).await, audit(since).await), (Vec::new(), found.clone()));
    let mut newest = audit(AuditFilter { order: AuditOrder::NewestFirst(None), ..of(object) }).await;
    newest.reverse();
    assert_eq!(newest, found);
    let page = store.audit(AuditFilter { limit: 2, ..of(object) }).await.unwrap();
    assert_eq!((page.records.as_slice(), page.more), (&found[..2], true));
    let next = AuditFilter { order: AuditOrder::OldestFirst(found[1].id), limit: 2, ..of(object) };
    let page = store.audit(next).await.unwrap();
    assert_eq!((page.records.as_slice(), page.more), (&found[2..], false));
}

pub(super) async fn records_of_a_namespace_are_those_of_its_things_and_no_others(store: &dyn Store) {
    let namespace = |name: &str| Namespace::try_new(name).unwrap();
    // One name begins like the other.
    for own in ["ten", "tenant", "ten-ant"] {
        let named = |name: &str| format!("{own}-{name}");
        let mut policy = policy(&named("p"), &named("t"), "1s");
        policy.namespace = namespace(own);
        store.apply(vec![put(policy, Expect::Absent)], note(), false).await.unwrap();
        let role = Role::Viewer(Scope::Namespace(namespace(own)));
        let made = store.put_token(tokens::token(&named("k"), role), note()).await.unwrap();
        store.revoke_token(made.id, note()).await.unwrap();
        let of_all = forced(&named("t"));
        let pattern = KeyPattern { namespace: Some(namespace(own)), ..of_all.pattern.clone() };
        let new = NewOverride { pattern, reason: named("why"), ..of_all };
        let set = store.put_override(new).await.unwrap();
        store.end_overrides(vec![set.id], Ending::Released, note()).await.unwrap();
    }
    let all = read(store, AuditFilter::default()).await;
    let kinds = ["policy.create", "token.create", "token.revoke", "override.set", "override.release"];
    for own in ["ten", "tenant", "ten-ant"] {
        let found = read(store, AuditFilter { namespace: Some(namespace(own)), ..AuditFilter::default() }).await;
        let told: Vec<_> = found.iter().rev().map(|record| record.action.as_str()).collect();
        assert_eq!(told, kinds, "{own}");
        let by_hand: Vec<_> = all.iter().filter(|record| record.is_of(&namespace(own))).cloned().collect();
        assert_eq!(found, by_hand, "{own}: the filter of the store says what the record says");
    }
    let nobody = AuditFilter { namespace: Some(namespace("nobody")), ..AuditFilter::default() };
    assert_eq!(read(store, nobody).await, []);
}

/// Runs last: the whole of what the others did.
pub(super) async fn the_audit_log_tells_of_everything_and_is_whole_without_its_oldest(store: &dyn Store) {
    let whole = || AuditFilter { order: AuditOrder::OldestFirst(0), ..AuditFilter::default() };
    let all = read(store, whole()).await;
    let is_told = |action: &str| all.iter().any(|record| record.action == action);
    for action in ["store.regress", "store.adopt", "term.raise", "override.set", "override.release", "fleet.verdict"] {
        assert!(is_told(action), "no {action} in {all:#?}");
    }
    let verdicts: Vec<_> = all.iter().filter(|record| record.action == "fleet.verdict").collect();
    let [verdict] = verdicts.as_slice() else {
        panic!("replicas' own breakers decide nothing for others: {verdicts:?}")
    };
    assert_eq!((verdict.actor.as_str(), verdict.authentication.as_str()), ("fleet", "server"));
    assert_eq!(verdict.object, "breakers/default/y/b/circuit-breaker/tb/-");
    let check = |records: &[AuditRecord], chain: &crate::store::audit::AuditChain| {
        let mut walk = Walk::from(chain.dropped);
        records.iter().try_for_each(|record| walk.step(record))?;
        walk.end(chain.last)
    };
    let chain = store.audit(AuditFilter { limit: 1, ..whole() }).await.unwrap().chain;
    assert_eq!(check(&all, &chain), Ok(()));

    // What is older than the ninth second goes, up to the first that is not: what is out of order stays with it.
    let first_kept = all.iter().position(|record| record.at >= moment(9)).unwrap();
    assert!(first_kept > 1, "nothing to drop");
    assert_eq!(store.truncate_audit(moment(9), 1, note()).await.unwrap(), 1, "no more than asked for");
    let rest = first_kept as u64 - 1;
    assert_eq!(store.truncate_audit(moment(9), u32::MAX, note()).await.unwrap(), rest);
    assert_eq!(store.truncate_audit(moment(9), u32::MAX, note()).await.unwrap(), 0, "and then nothing is said of it");
    let kept = read(store, whole()).await;
    let chain = store.audit(AuditFilter { limit: 1, ..whole() }).await.unwrap().chain;
    assert_eq!(check(&kept, &chain), Ok(()));
    assert_eq!(chain.dropped.hash, all[first_kept - 1].hash);
    let added: Vec<_> = kept.iter().skip(all.len() - first_kept).map(|record| record.action.as_str()).collect();
    assert_eq!(added, ["audit.truncate", "audit.truncate"]);
    assert!(kept.last().unwrap().after.as_ref().unwrap().contains(&chain.dropped.hash.to_string()));
}
