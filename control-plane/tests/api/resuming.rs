//! Watches of transitions that begin where another was cut off.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_control_plane::{
    config::Limits,
    store::{StoreHandle, StoredTransition, memory::MemoryStore},
};
use fusebox_policy::{CallerName, Namespace, PolicyName, StrategyName, TargetName, fleet::BreakerKey};
use fusebox_proto::v1;
use tonic::Code;

use crate::server::{Server, refusal};

fn transition(age: Duration) -> StoredTransition {
    StoredTransition {
        id: 0,
        key: BreakerKey {
            namespace: Namespace::default_namespace(),
            caller: CallerName::try_new("service-a").unwrap(),
            policy: PolicyName::try_new("b").unwrap(),
            strategy: StrategyName::try_new("circuit-breaker").unwrap(),
            target: TargetName::try_new("service-b").unwrap(),
            zone: None,
        },
        instance: None,
        from: "released".to_owned(),
        to: "open".to_owned(),
        cause: "quorum".to_owned(),
        detail: String::new(),
        at: SystemTime::now() - age,
        window_calls: 0,
        window_failures: 0,
        grounds: None,
    }
}

#[tokio::test]
async fn who_was_cut_off_misses_no_transition_or_is_told_so() {
    let store: StoreHandle = Arc::new(MemoryStore::new("resuming"));
    let day = Duration::from_secs(24 * 3600);
    let all = [40 * day, 35 * day, day, Duration::ZERO, Duration::ZERO].map(transition);
    store.append_transitions(all.to_vec()).await.unwrap();
    let server = Server::start_on(Arc::clone(&store), Limits::default()).await;
    // What is older than it is kept goes soon after the start.
    while store.transitions_kept().await.unwrap() != Some((3, 5)) {
        tokio::task::yield_now().await;
    }
    let from = async |after_id: u64| {
        let request = v1::WatchBreakerTransitionsRequest { after_id, ..v1::WatchBreakerTransitionsRequest::default() };
        server.breakers().watch_breaker_transitions(request).await.map(tonic::Response::into_inner)
    };
    let mut stream = from(3).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().id, 4);
    assert_eq!(stream.message().await.unwrap().unwrap().id, 5);
    assert_eq!(from(2).await.unwrap().message().await.unwrap().unwrap().id, 3);
    let (code, reason, details) = refusal(from(1).await.map(|_| ()));
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "REVISION_COMPACTED"));
    assert_eq!(details.error_info().unwrap().metadata["oldest"], "2");
    let (code, reason, _) = refusal(from(6).await.map(|_| ()));
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "REVISION_UNKNOWN"));
}
