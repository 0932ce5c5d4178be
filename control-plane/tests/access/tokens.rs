//! Tokens from their making to their end.

use std::time::{Duration, SystemTime};

use fusebox_proto::{
    duration::to_wire,
    v1::{self, Role},
};
use tonic::Code;

use crate::server::{BOOTSTRAP, Server, reason, refusal};

fn asked(name: &str, role: Role) -> v1::Token {
    v1::Token { display_name: name.to_owned(), role: role.into(), ..v1::Token::default() }
}

#[tokio::test]
async fn a_token_counts_from_its_making_to_its_end_and_its_secret_is_shown_once() {
    let server = Server::with_tokens().await;
    let (made, secret) = server.token("alice", Role::Operator, None).await;
    assert!(secret.starts_with("fbx_") && secret.contains(made.name.strip_prefix("tokens/").unwrap()));
    assert_eq!((made.creator.as_str(), made.role()), ("bootstrap", Role::Operator));
    let who = server.caller(Some(&secret)).await.who().await.unwrap();
    assert_eq!((who.name.as_str(), who.expire_time), ("alice", made.expire_time));

    let mut admin = server.admin().await;
    let list = admin.admin.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.tokens, std::slice::from_ref(&made));
    assert!(!format!("{list:?}").contains(&secret[17..]));

    let ended = server.revoke(&made).await;
    assert_eq!((ended.revoker.as_str(), ended.revoke_reason.as_str()), ("bootstrap", "lost"));
    let refused = server.caller(Some(&secret)).await.who().await;
    assert_eq!(reason(refused), (Code::Unauthenticated, "CREDENTIALS_REVOKED".to_owned()));
    let list = admin.admin.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner();
    assert!(list.tokens.is_empty());
    let list = admin
        .admin
        .list_tokens(v1::ListTokensRequest { show_ended: true, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(list.tokens, [ended]);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_token_of_this_server_is_refused_alike() {
    let server = Server::with_tokens().await;
    let (made, secret) = server.token("alice", Role::Admin, None).await;
    let id = made.name.strip_prefix("tokens/").unwrap();
    let other = format!("fbx_{id}_{}", "0".repeat(64));
    let unknown = secret.replace(id, "000000000000");
    for text in [other.as_str(), unknown.as_str(), "fbx_", "x.y.z", &secret[..80]] {
        let refused = server.caller(Some(text)).await.who().await;
        assert_eq!(reason(refused), (Code::Unauthenticated, "TOKEN_UNKNOWN".to_owned()));
    }
    let refused = server.caller(None).await.who().await;
    assert_eq!(reason(refused), (Code::Unauthenticated, "CREDENTIALS_MISSING".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn requests_that_can_not_be_are_told_field_by_field() {
    let server = Server::with_tokens().await;
    let mut admin = server.admin().await.admin;
    let mut ask = async |token: v1::Token, life: Option<Duration>| {
        let request = v1::CreateTokenRequest { token: Some(token), life: life.map(to_wire), ..Default::default() };
        let (code, _, details) = refusal(admin.create_token(request).await);
        assert_eq!(code, Code::InvalidArgument);
        details.bad_request().unwrap().field_violations.iter().map(|fault| fault.field.clone()).collect::<Vec<_>>()
    };
    let day = Duration::from_secs(86400);
    assert_eq!(
        ask(asked("Alice!", Role::Unspecified), Some(day * 91)).await,
        ["token.display_name", "token.role", "life"]
    );
    assert_eq!(ask(asked("a", Role::Agent), Some(Duration::from_secs(1))).await.last().unwrap(), "life");
    assert_eq!(ask(asked("a", Role::Agent), Some(day * 364)).await, ["token.namespace", "token.service"]);
    let bound = v1::Token { service: "service-a".to_owned(), ..asked("a", Role::Viewer) };
    assert_eq!(ask(bound, None).await, ["token.service"]);
    let nowhere = v1::Token { namespace: "No Where".to_owned(), ..asked("a", Role::Operator) };
    assert_eq!(ask(nowhere, None).await, ["token.namespace"]);
    let request = v1::RevokeTokenRequest { name: "tokens/".to_owned(), ..Default::default() };
    assert_eq!(refusal(admin.revoke_token(request).await).0, Code::InvalidArgument);
    let request =
        v1::RevokeTokenRequest { name: "tokens/none".to_owned(), reason: "why".to_owned(), ..Default::default() };
    assert_eq!(reason(admin.revoke_token(request).await), (Code::NotFound, "TOKEN_NOT_FOUND".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_name_is_given_once_at_a_time_and_lives_are_bounded() {
    let server = Server::with_tokens().await;
    let (made, _) = server.token("alice", Role::Viewer, None).await;
    let mut admin = server.admin().await.admin;
    let again = v1::CreateTokenRequest { token: Some(asked("alice", Role::Admin)), ..Default::default() };
    let refused = admin.create_token(again.clone()).await;
    assert_eq!(reason(refused), (Code::AlreadyExists, "TOKEN_EXISTS".to_owned()));
    server.revoke(&made).await;
    let made = admin.create_token(again).await.unwrap().into_inner().token.unwrap();
    let expires = SystemTime::try_from(made.expire_time.unwrap()).unwrap();
    let left = expires.duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(29 * 86400) && left <= Duration::from_secs(30 * 86400), "{left:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_bootstrap_token_counts_as_long_as_it_is_there() {
    let server = Server::with_tokens().await;
    let who = server.admin().await.who().await.unwrap();
    assert_eq!((who.name.as_str(), who.role(), who.method.as_str()), ("bootstrap", Role::Admin, "bootstrap-token"));
    server.bootstrap.set(Some("another-one-that-is-long-enough-too"));
    assert_eq!(server.caller(Some(BOOTSTRAP)).await.who().await.unwrap_err().code(), Code::Unauthenticated);
    server.bootstrap.set(None);
    server.stop().await;
}

#[tokio::test]
async fn a_token_can_be_tried_and_is_made_once_however_often_it_is_asked_for() {
    let server = Server::with_tokens().await;
    let mut admin = server.admin().await.admin;
    let request = v1::CreateTokenRequest {
        token: Some(asked("alice", Role::Viewer)),
        request_id: "6f1c0a52-7d0e-4c3b-9a68-00000000000b".to_owned(),
        ..Default::default()
    };
    let tried = v1::CreateTokenRequest { validate_only: true, ..request.clone() };
    let would = admin.create_token(tried.clone()).await.unwrap().into_inner();
    assert_eq!((would.token.unwrap().name.as_str(), would.secret.as_str()), ("", ""));
    let first = admin.create_token(request.clone()).await.unwrap().into_inner();
    assert_eq!(reason(admin.create_token(tried).await).1, "TOKEN_EXISTS", "it fails when the real one would");
    let again = admin.create_token(request).await.unwrap().into_inner();
    assert_eq!((again.token.as_ref(), again.secret.as_str()), (first.token.as_ref(), ""), "no secret is kept");
    let made = first.token.unwrap();

    let revoke = v1::RevokeTokenRequest {
        name: made.name.clone(),
        reason: "lost".to_owned(),
        request_id: "6f1c0a52-7d0e-4c3b-9a68-00000000000c".to_owned(),
        ..Default::default()
    };
    let tried = v1::RevokeTokenRequest { validate_only: true, ..revoke.clone() };
    assert_eq!(admin.revoke_token(tried).await.unwrap().into_inner(), made);
    let mut alice = server.caller(Some(&first.secret)).await;
    assert_eq!(alice.who().await.unwrap().name, "alice", "only tried");
    let ended = admin.revoke_token(revoke.clone()).await.unwrap().into_inner();
    assert_eq!(admin.revoke_token(revoke).await.unwrap().into_inner(), ended);
    assert!(ended.revoke_time.is_some() && alice.who().await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_listed_in_pages_and_read_by_their_names() {
    let server = Server::with_tokens().await;
    for name in ["a", "b", "c"] {
        server.token(name, if name == "b" { Role::Operator } else { Role::Viewer }, None).await;
    }
    let mut admin = server.admin().await.admin;
    let mut request = v1::ListTokensRequest { page_size: 2, ..Default::default() };
    let first = admin.list_tokens(request.clone()).await.unwrap().into_inner();
    request.page_token.clone_from(&first.next_page_token);
    let second = admin.list_tokens(request.clone()).await.unwrap().into_inner();
    let names: Vec<_> = first.tokens.iter().chain(&second.tokens).map(|token| token.display_name.as_str()).collect();
    assert_eq!((names, second.next_page_token.as_str()), (vec!["c", "b", "a"], ""));
    request.show_ended = true;
    assert_eq!(refusal(admin.list_tokens(request).await).0, Code::InvalidArgument, "another list");
    let filter = v1::ListTokensRequest { filter: "role = OPERATOR".to_owned(), ..Default::default() };
    assert_eq!(admin.list_tokens(filter).await.unwrap().into_inner().tokens[..], first.tokens[1..2]);
    let get = v1::GetTokenRequest { name: first.tokens[1].name.clone() };
    assert_eq!(admin.get_token(get).await.unwrap().into_inner(), first.tokens[1]);
    let none = v1::GetTokenRequest { name: "tokens/none".to_owned() };
    assert_eq!(reason(admin.get_token(none).await), (Code::NotFound, "TOKEN_NOT_FOUND".to_owned()));
    server.stop().await;
}
