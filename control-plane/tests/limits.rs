//! Rate limits that fleets share, through the owner's door: what replicas report, and what they are told. On paused time.

#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fusebox_control_plane::{
    caller::Caller,
    fleet::{Fleet, Identity, Outbox, SessionId, Told, instance_key},
    hub::Hub,
    policies::Policies,
    shutdown::Shutdown,
    store::{Change, Expect, StoreHandle, memory::MemoryStore},
};
use fusebox_policy::{
    CallerName, InstanceId, Namespace, PolicyName,
    fleet::{evidence::MemberId, term::SeenTerm},
};
use fusebox_proto::{
    duration::to_wire,
    manifest,
    sync::v1::{self as sync, sync_response::Message as Down},
    v1,
};

/// How long a share holds.
const LEASE: Duration = Duration::from_secs(15);

const WHOLE: u32 = 1_000_000;
const SHARED: &str = "rateLimiter: { limit: 300, burst: 300, scope: fleet }";

struct Plane {
    store: StoreHandle,
    policies: Policies,
    fleet: Fleet,
    shutdown: Shutdown,
}

impl Plane {
    async fn over(store: StoreHandle) -> Self {
        let hub = Hub::start(&store).await.unwrap();
        let shutdown = Shutdown::new();
        let fleet = Fleet::start(Arc::clone(&store), hub.clone(), shutdown.clone()).await.unwrap();
        Self { policies: Policies::new(Arc::clone(&store), hub), store, fleet, shutdown }
    }

    async fn start() -> Self {
        Self::over(Arc::new(MemoryStore::new("store"))).await
    }

    /// Another run over the same data.
    async fn restart(self) -> Self {
        self.shutdown.begin();
        Self::over(self.store).await
    }

    async fn apply(&self, strategy: &str) {
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
             pipeline:\n    - {strategy}\n"
        );
        let policy = Box::new(manifest::parse("test", &text).unwrap().remove(0).policy);
        self.change(Change::Put { policy, expect: Expect::Any(None), rollback: false }).await;
    }

    async fn delete(&self) {
        let name = PolicyName::try_new("service-b").unwrap();
        let namespace = Namespace::default_namespace();
        self.change(Change::Delete { namespace, name, etag: None, allow_missing: false }).await;
    }

    async fn change(&self, change: Change) {
        self.policies.apply(vec![change], Caller::unauthenticated("tester"), String::new(), false, None).await.unwrap();
        // The owner hears of it before it answers this.
        settled(self).await;
    }

    async fn shown(&self, instance: &str) -> Vec<v1::LimitShare> {
        let view = self.fleet.view().await.unwrap();
        view.instances[&instance_key(&format!("services/service-a/instances/{instance}"), "default")].limits.clone()
    }
}

/// Lets everybody do what there is to do now.
async fn settled(plane: &Plane) {
    for _ in 0..10 {
        tokio::task::yield_now().await;
        plane.fleet.view().await.unwrap();
    }
}

/// A replica as the protocol wants it, but for calls.
struct Replica {
    instance: &'static str,
    session: SessionId,
    outbox: Arc<Outbox>,
    seq: u64,
    held: Option<sync::RateShare>,
    /// Calls per second that it wants.
    wants: u64,
}

impl Replica {
    async fn join(plane: &Plane, instance: &'static str, wants: u64) -> Self {
        Self::join_after(plane, instance, wants, 0).await
    }

    async fn join_after(plane: &Plane, instance: &'static str, wants: u64, highest_term: u64) -> Self {
        let outbox = Arc::new(Outbox::default());
        let session = connect(plane, instance, highest_term, &outbox).await;
        Self { instance, session, outbox, seq: 0, held: None, wants }
    }

    async fn reconnect(&mut self, plane: &Plane) {
        self.outbox = Arc::new(Outbox::default());
        self.session = connect(plane, self.instance, 0, &self.outbox).await;
        self.seq = 0;
    }

    /// Sends a heartbeat about a limiter of this policy, `over` after the one before it.
    async fn beat_about(&mut self, plane: &Plane, policy: &str, over: Duration) {
        self.seq += 1;
        let held = self.held.as_ref();
        let report = sync::LimitReport {
            key: Some(v1::BreakerKey {
                // Not its own: nobody speaks for another service.
                caller: "service-z".to_owned(),
                policy: policy.to_owned(),
                strategy: "rate-limiter".to_owned(),
                target: "service-b".to_owned(),
                ..v1::BreakerKey::default()
            }),
            wanted: self.wants * over.as_secs(),
            over: Some(to_wire(over)),
            held_term: held.map_or(0, |share| share.term),
            held_rev: held.map_or(0, |share| share.rev),
            held_ppm: held.map_or(0, |share| share.ppm),
        };
        let heartbeat = sync::Heartbeat { seq: self.seq, limits: vec![report], ..sync::Heartbeat::default() };
        plane.fleet.tell(self.session, Told::Heartbeat(heartbeat)).await.unwrap();
    }

    /// Reads all that has come. A share comes before the answer that would renew it.
    fn read(&mut self) {
        let mut answered = false;
        for message in self.outbox.take().messages {
            match message {
                Down::RateShare(share) => {
                    assert!(!answered, "a share comes first");
                    assert!(share.anchor_seq <= self.seq && share.anchor_seq > 0, "{share:?}");
                    assert_eq!(share.key.as_ref().unwrap().caller, "service-a");
                    self.held = Some(share);
                }
                Down::HeartbeatAck(_) => answered = true,
                Down::Welcome(_)
                | Down::SnapshotBegin(_)
                | Down::PolicyChunk(_)
                | Down::SnapshotEnd(_)
                | Down::Delta(_)
                | Down::Verdict(_)
                | Down::ProbePermit(_)
                | Down::Canvass(_)
                | Down::Overrides(_)
                | Down::BreakerRefused(_)
                | Down::GoAway(_) => {}
            }
        }
    }

    fn ppm(&self) -> Option<u32> {
        self.held.as_ref().map(|share| share.ppm)
    }
}

async fn connect(plane: &Plane, instance: &str, highest_term: u64, outbox: &Arc<Outbox>) -> SessionId {
    let identity = Identity {
        namespace: Namespace::default_namespace(),
        caller: CallerName::try_new("service-a").unwrap(),
        member: MemberId { instance: InstanceId::try_new(instance).unwrap(), incarnation: 7 },
        zone: None,
        labels: BTreeMap::new(),
        sdk_version: "test".to_owned(),
        policy_source: "stream".to_owned(),
        seen: SeenTerm { term: highest_term, run: None },
        ignores_fleet: false,
        knows_disabled: true,
    };
    plane.fleet.join(identity, Arc::clone(outbox)).await.unwrap().unwrap().session
}

/// Seconds in which all report and read.
async fn rounds(plane: &Plane, replicas: &mut [&mut Replica], rounds: usize) {
    for _ in 0..rounds {
        tokio::time::advance(Duration::from_secs(1)).await;
        settled(plane).await;
        for replica in replicas.iter_mut() {
            replica.read();
            replica.beat_about(plane, "service-b", Duration::from_secs(1)).await;
        }
        settled(plane).await;
        replicas.iter_mut().for_each(|replica| replica.read());
        let sum: u32 = replicas.iter().filter_map(|replica| replica.ppm()).sum();
        assert!(sum <= WHOLE, "{sum}");
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_are_told_their_shares_and_operators_see_them() {
    let plane = Plane::start().await;
    plane.apply(SHARED).await;
    let mut hungry = Replica::join(&plane, "a-1", 1000).await;
    let mut modest = Replica::join(&plane, "a-2", 30).await;
    rounds(&plane, &mut [&mut hungry, &mut modest], 6).await;
    assert_eq!((hungry.ppm(), modest.ppm()), (Some(890_000), Some(110_000)));
    let share = hungry.held.clone().unwrap();
    assert_eq!((share.term, share.members, share.lease), (1, 2, Some(to_wire(LEASE))));
    let shown = plane.shown("a-1").await.remove(0);
    assert_eq!((shown.policy.as_str(), shown.strategy.as_str()), ("service-b", "rate-limiter"));
    assert_eq!((shown.ppm, shown.acknowledged, shown.wanted_per_second), (890_000, true, Some(1000.0)));

    plane.fleet.leave(modest.session).await;
    rounds(&plane, &mut [&mut hungry], 14).await;
    assert_eq!(hungry.ppm(), Some(890_000), "it may be there still");
    rounds(&plane, &mut [&mut hungry], 4).await;
    assert_eq!(hungry.ppm(), Some(WHOLE));
}

#[tokio::test(start_paused = true)]
async fn a_new_run_leaves_everybody_what_it_holds_and_gives_nothing_away_for_one_lease() {
    let plane = Plane::start().await;
    plane.apply(SHARED).await;
    let mut hungry = Replica::join(&plane, "a-1", 1000).await;
    let mut idle = Replica::join(&plane, "a-2", 0).await;
    rounds(&plane, &mut [&mut hungry, &mut idle], 8).await;
    assert_eq!((hungry.ppm(), idle.ppm()), (Some(990_000), Some(10_000)));

    let plane = plane.restart().await;
    hungry.reconnect(&plane).await;
    idle.reconnect(&plane).await;
    let mut newcomer = Replica::join(&plane, "a-3", 1000).await;
    rounds(&plane, &mut [&mut hungry, &mut idle, &mut newcomer], 13).await;
    assert_eq!((hungry.ppm(), idle.ppm(), newcomer.ppm()), (Some(990_000), Some(10_000), Some(0)));
    assert_eq!(hungry.held.as_ref().unwrap().term, 2, "told again by this run");
    rounds(&plane, &mut [&mut hungry, &mut idle, &mut newcomer], 6).await;
    assert_eq!((hungry.ppm(), idle.ppm(), newcomer.ppm()), (Some(495_000), Some(10_000), Some(495_000)));
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_lost_with_its_stream_is_told_again() {
    let plane = Plane::start().await;
    plane.apply(SHARED).await;
    let mut first = Replica::join(&plane, "a-1", 1000).await;
    let mut second = Replica::join(&plane, "a-2", 1000).await;
    rounds(&plane, &mut [&mut first, &mut second], 5).await;
    assert_eq!((first.ppm(), second.ppm()), (Some(500_000), Some(500_000)));
    first.wants = 30;
    // What the stream brings in these seconds is never read.
    for _ in 0..8 {
        rounds(&plane, &mut [&mut second], 1).await;
        first.beat_about(&plane, "service-b", Duration::from_secs(1)).await;
    }
    assert_eq!(second.ppm(), Some(500_000), "nothing is known to be given up");
    first.reconnect(&plane).await;
    rounds(&plane, &mut [&mut first, &mut second], 4).await;
    assert!(second.ppm() >= Some(850_000), "{:?}", second.ppm());
}

#[tokio::test(start_paused = true)]
async fn a_raised_term_makes_all_shares_new() {
    let plane = Plane::start().await;
    plane.apply(SHARED).await;
    let mut first = Replica::join(&plane, "a-1", 1000).await;
    rounds(&plane, &mut [&mut first], 3).await;
    rounds(&plane, &mut [&mut first], 20).await;
    let mut second = Replica::join_after(&plane, "a-2", 1000, 9).await;
    rounds(&plane, &mut [&mut first, &mut second], 13).await;
    assert_eq!((first.ppm(), second.ppm()), (Some(WHOLE), Some(0)), "another server may have given something away");
    rounds(&plane, &mut [&mut first, &mut second], 5).await;
    for replica in [&first, &second] {
        let share = replica.held.as_ref().unwrap();
        assert_eq!((share.term, share.ppm), (10, 500_000));
    }
    assert!(plane.shown("a-1").await[0].acknowledged);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_shared_no_more_is_told_to_nobody() {
    let plane = Plane::start().await;
    plane.apply(SHARED).await;
    let mut one = Replica::join(&plane, "a-1", 1000).await;
    one.beat_about(&plane, "elsewhere", Duration::ZERO).await;
    settled(&plane).await;
    one.read();
    assert!(plane.shown("a-1").await.is_empty(), "no policy has such a limiter");
    rounds(&plane, &mut [&mut one], 2).await;
    assert_eq!(one.ppm(), Some(WHOLE));

    for gone in ["rateLimiter: { limit: 300 }", "timeout: 1s"] {
        plane.apply(gone).await;
        one.held = None;
        rounds(&plane, &mut [&mut one], 18).await;
        assert_eq!(one.ppm(), None, "{gone}");
        assert!(plane.shown("a-1").await.is_empty(), "{gone}");
        plane.apply(SHARED).await;
        rounds(&plane, &mut [&mut one], 2).await;
        assert_eq!(one.ppm(), Some(WHOLE), "after {gone}");
    }
    plane.delete().await;
    one.held = None;
    rounds(&plane, &mut [&mut one], 18).await;
    assert_eq!(one.ppm(), None);
}
