//! What is wrong with a definition is told field by field, in bounds.

use std::num::NonZeroUsize;

use fusebox_control_plane::store::Quota;
use fusebox_proto::v1;
use tonic::Code;

use crate::server::{Server, fields, refusal, timeout};

#[tokio::test]
async fn a_bad_policy_names_its_fields() {
    let mut server = Server::start().await;
    let mut bad = timeout("b", "service-b", 0);
    bad.spec.as_mut().unwrap().pipeline.insert(0, v1::Strategy::default());
    let (code, reason, details) = refusal(server.create("b", bad.clone()).await);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "POLICY_INVALID"));
    assert_eq!(fields(&details), ["spec.pipeline[0]", "spec.pipeline[1].timeout.duration"]);
    let (_, _, details) = refusal(server.apply(vec![timeout("c", "service-c", 1), bad], false).await);
    assert_eq!(fields(&details)[0], "policies[1].spec.pipeline[0]");
    assert_eq!(server.revision().await, 0);
}

#[tokio::test]
async fn a_policy_for_the_calls_of_another_is_refused() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let (code, reason, details) = refusal(server.create("rival", timeout("rival", "service-b", 1)).await);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "POLICY_INVALID"));
    assert_eq!(fields(&details), ["spec.match"]);
    assert!(details.bad_request().unwrap().field_violations[0].description.contains("\"b\""));
    let (_, _, details) = refusal(server.apply(vec![timeout("rival", "service-b", 1)], true).await);
    assert_eq!(fields(&details), ["policies[0].spec.match"]);
}

#[tokio::test]
async fn a_flood_of_faults_is_told_in_part() {
    let mut server = Server::start().await;
    let bad = (0..50).map(|number| timeout(&format!("p{number}"), &"x y".repeat(10_000), 0)).collect();
    let (code, _, details) = refusal(server.apply(bad, false).await);
    assert_eq!(code, Code::InvalidArgument);
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 21);
    assert_eq!(violations[20].description, "and 80 more");
}

#[tokio::test]
async fn a_name_is_given_once_and_is_well_formed() {
    let mut server = Server::start().await;
    let twice = vec![timeout("b", "service-b", 1), timeout("b", "service-b", 2)];
    assert_eq!(fields(&refusal(server.apply(twice, false).await).2), ["policies[1].name"]);
    assert_eq!(fields(&refusal(server.apply(Vec::new(), false).await).2), ["policies"]);
    assert_eq!(fields(&refusal(server.create("Not-An-Id", timeout("b", "service-b", 1)).await).2), ["policy_id"]);
    assert_eq!(fields(&refusal(server.get("a/b").await).2), ["name"]);
    assert_eq!(fields(&refusal(server.list("somewhere", 0, "").await).2), ["parent"]);
}

#[tokio::test]
async fn a_policy_too_many_is_told_with_limit_and_measure_and_by_a_trial_too() {
    let one = NonZeroUsize::MIN;
    let mut server = Server::start_with(Quota { policies: one, ..Quota::default() }).await;
    server.create("a", timeout("a", "service-a", 1)).await.unwrap();
    for validate_only in [true, false] {
        let (code, reason, details) = refusal(server.apply(vec![timeout("b", "service-b", 1)], validate_only).await);
        assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "NAMESPACE_FULL"));
        let facts = &details.error_info().unwrap().metadata;
        let fact = |name: &str| facts[name].as_str();
        assert_eq!((fact("namespace"), fact("of"), fact("limit"), fact("would")), ("default", "policies", "1", "2"));
        let quota = &details.quota_failure().unwrap().violations[0];
        assert!(quota.subject == "default" && quota.description.contains("may hold 1"), "{quota:?}");
        assert!(details.retry_info().is_none(), "the same again is as much");
    }
    assert_eq!(refusal(server.create("b", timeout("b", "service-b", 1)).await).1, "NAMESPACE_FULL");
    server.update(timeout("a", "service-a", 2)).await.unwrap();
}
