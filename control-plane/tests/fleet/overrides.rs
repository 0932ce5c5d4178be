//! Operators' words over a restart of the server.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_control_plane::{
    caller::Caller,
    fleet::Fleet,
    hub::Hub,
    shutdown::Shutdown,
    store::{NewOverride, StoreHandle, memory::MemoryStore},
};
use fusebox_policy::{
    TargetName,
    fleet::{gate::Forced, key::KeyPattern},
};
use fusebox_proto::duration::from_wire;

const LASTS: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_before_a_restart_makes_no_override_longer() {
    let store: StoreHandle = Arc::new(MemoryStore::new("overrides"));
    // As of a clock that was an hour ahead.
    let created = SystemTime::now() + Duration::from_secs(3600);
    let pattern = KeyPattern {
        namespace: None,
        caller: None,
        policy: None,
        strategy: None,
        target: TargetName::try_new("service-b").unwrap(),
        zone: None,
    };
    let new = NewOverride {
        pattern,
        state: Forced::Open,
        reason: "drill".to_owned(),
        caller: Caller::unauthenticated("tester"),
        created,
        expires: created + LASTS,
        replaces: Vec::new(),
    };
    store.put_override(new).await.unwrap();
    let (hub, shutdown) = (Hub::start(&store).await.unwrap(), Shutdown::new());
    let fleet = Fleet::start(Arc::clone(&store), hub, shutdown.clone()).await.unwrap();

    let left = fleet.view().await.unwrap().overrides[0].remaining.unwrap();
    assert!(from_wire(left).unwrap() <= LASTS, "{left:?}");
    tokio::time::sleep(LASTS + Duration::from_secs(1)).await;
    assert!(fleet.view().await.unwrap().overrides.is_empty());
    assert!(store.overrides().await.unwrap().is_empty());
    shutdown.begin();
}
