//! Tokens.

use super::*;

pub(super) fn token(name: &str, role: Role) -> NewToken {
    let secret = Secret::generate().unwrap();
    NewToken { id: secret.id().to_owned(), name: name.to_owned(), digest: secret.digest(), role, expires: moment(60) }
}

pub(super) async fn a_token_is_kept_as_it_was_made_until_it_is_revoked(store: &dyn Store) {
    let agent =
        Role::Agent { namespace: Namespace::default_namespace(), service: CallerName::try_new("service-a").unwrap() };
    let new = token("first", agent);
    let made = store.put_token(new.clone(), note()).await.unwrap();
    let NewToken { id, name, digest, role, expires } = new;
    let wanted = StoredToken {
        id,
        name,
        digest,
        role,
        expires,
        creator: "tester".to_owned(),
        created: moment(1),
        revoked: None,
    };
    assert_eq!(made, wanted);
    let second = store.put_token(token("second", Role::Viewer(Scope::Everything)), note()).await.unwrap();
    assert_eq!(store.tokens().await.unwrap(), [second, made.clone()]);

    let ended = store.revoke_token(made.id.clone(), note()).await.unwrap().unwrap();
    let revoked = Some(Revoked { at: moment(1), by: "tester".to_owned(), reason: "why".to_owned() });
    assert_eq!(ended, StoredToken { revoked, ..made });
    let later = Note { message: "again".to_owned(), ..note() };
    assert_eq!(store.revoke_token(ended.id.clone(), later).await.unwrap().unwrap(), ended, "an end is an end");
    assert_eq!(store.tokens().await.unwrap().pop().unwrap(), ended);
    let of_it = AuditFilter { object: Some(format!("tokens/{}", ended.id)), ..AuditFilter::default() };
    let told: Vec<_> =
        audit::read(store, of_it).await.into_iter().map(|record| (record.action, record.after)).collect();
    assert_eq!(told.iter().map(|(action, _)| action.as_str()).collect::<Vec<_>>(), ["token.revoke", "token.create"]);
    let said = told[1].1.as_ref().unwrap();
    assert!(said.contains("first") && said.contains("service-a") && !said.contains("digest"), "{said}");
    assert!(store.revoke_token("nobody".to_owned(), note()).await.unwrap().is_none());
}

pub(super) async fn a_name_is_one_token_in_force_at_a_time(store: &dyn Store) {
    let at = |seconds| Note { at: moment(seconds), ..note() };
    let made = store.put_token(token("again", Role::Admin(Scope::Everything)), at(1)).await.unwrap();
    let records = || async {
        audit::read(store, AuditFilter { action: Some("token".to_owned()), ..AuditFilter::default() }).await
    };
    let before = records().await.len();
    let refused = store.put_token(token("again", Role::Admin(Scope::Everything)), at(59)).await;
    assert!(matches!(refused, Err(StoreError::TokenExists(name)) if name == "again"));
    assert_eq!(records().await.len(), before, "what was not done is not told");
    let shop = || Role::Admin(Scope::Namespace(Namespace::try_new("shop").unwrap()));
    let other = store.put_token(token("again", shop()), at(2)).await.expect("a name of a namespace is of it alone");
    assert_eq!((other.identity().as_str(), other.role), ("shop/again", shop()));
    assert!(store.put_token(token("again", shop()), at(3)).await.is_err());
    let before = records().await.len();
    store.put_token(token("again", Role::Admin(Scope::Everything)), at(60)).await.expect("the first has expired");
    let expired = store.revoke_token(made.id, at(61)).await.unwrap().unwrap();
    assert_eq!(expired.revoked, None, "it had ended by itself");
    assert_eq!(records().await.len(), before + 1);
}
