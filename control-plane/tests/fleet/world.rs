//! The owner with two replicas, which say what the test says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fusebox_control_plane::{
    caller::Caller,
    fleet::{Fleet, HEARTBEAT, Identity, Outbox, SessionId, Told},
    hub::Hub,
    policies::Policies,
    shutdown::Shutdown,
    store::{Change, Expect, Note, StoreHandle},
};
use fusebox_policy::{
    CallerName, InstanceId, Namespace,
    fleet::{coordinator::Limits, evidence::MemberId, term::SeenTerm},
};
use fusebox_proto::{
    manifest,
    sync::v1::{self as sync, sync_response::Message as Down},
    v1::{self, FleetState, LocalState},
};
use tokio::time::Instant;

use crate::disk::Disk;

const POLICY: &str = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: service-b }\nspec:\n  \
                      match: { target: service-b }\n  pipeline: [{ circuitBreaker: { delay: 8s } }]\n  \
                      coordination: { mode: balanced, scope: fleet }\n";
/// Longer than anything takes on this clock.
const LIMIT: Duration = Duration::from_secs(300);

struct Replica {
    session: SessionId,
    outbox: Arc<Outbox>,
    beats: u64,
    /// The newest verdict.
    held: sync::Verdict,
}

pub(crate) struct World {
    pub(crate) disk: Arc<Disk>,
    fleet: Fleet,
    policies: Policies,
    shutdown: Shutdown,
    replicas: Vec<Replica>,
}

/// What one round of heartbeats brought to all replicas.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) verdicts: Vec<FleetState>,
    pub(crate) permits: usize,
    pub(crate) canvasses: usize,
    /// Up to which verdict leases are renewed, as of the newest answer.
    pub(crate) renewed: u64,
}

impl World {
    pub(crate) async fn start() -> Self {
        let disk = Arc::new(Disk::new());
        let store: StoreHandle = Arc::clone(&disk) as StoreHandle;
        let policy = Box::new(manifest::parse("policy", POLICY).unwrap().remove(0).policy);
        let note = Note {
            caller: Caller::unauthenticated("operator"),
            message: String::new(),
            at: std::time::SystemTime::now(),
        };
        let put = Change::Put { policy, expect: Expect::Absent, rollback: false };
        store.apply(vec![put], note, false).await.unwrap();
        let hub = Hub::start(&store).await.unwrap();
        let shutdown = Shutdown::new();
        let policies = Policies::new(Arc::clone(&store), hub.clone());
        let fleet = Fleet::start(store, hub, shutdown.clone()).await.unwrap();
        let mut replicas = Vec::new();
        for instance in ["a-1", "a-2"] {
            let outbox = Arc::new(Outbox::default());
            let joined = fleet.join(identity(instance), Arc::clone(&outbox)).await.unwrap().unwrap();
            replicas.push(Replica { session: joined.session, outbox, beats: 0, held: sync::Verdict::default() });
        }
        Self { disk, fleet, policies, shutdown, replicas }
    }

    /// A second passes, and every replica tells what it sees: a breaker of its own that is in this state.
    pub(crate) async fn beat(&mut self, local: LocalState) -> Heard {
        tokio::time::sleep(HEARTBEAT).await;
        for replica in &mut self.replicas {
            replica.beats += 1;
            let beat =
                sync::Heartbeat { seq: replica.beats, windows: vec![replica.window(local)], ..Default::default() };
            self.fleet.tell(replica.session, Told::Heartbeat(beat)).await.unwrap();
        }
        // Its answer comes after everything that was told before.
        self.fleet.view().await.unwrap();
        let mut heard = Heard::default();
        for replica in &mut self.replicas {
            replica.hear(&mut heard);
        }
        heard
    }

    /// A policy comes, and with it the first that the replicas say of its breaker; how many of them the breaker knows then.
    pub(crate) async fn come(&mut self, name: &str) -> usize {
        let text = POLICY.replace("service-b", name);
        let policy = Box::new(manifest::parse("policy", &text).unwrap().remove(0).policy);
        let put = Change::Put { policy, expect: Expect::Absent, rollback: false };
        let caller = Caller::unauthenticated("operator");
        let applied = self.policies.apply(vec![put], caller, String::new(), false, None).await.unwrap();
        for replica in &mut self.replicas {
            replica.beats += 1;
            let window = replica.window(LocalState::Closed);
            let key = v1::BreakerKey { policy: name.to_owned(), target: name.to_owned(), ..window.key.unwrap() };
            let window =
                sync::BreakerWindow { key: Some(key), policy_revision: applied.revision.0, calls: 0, ..window };
            let beat = sync::Heartbeat { seq: replica.beats, windows: vec![window], ..Default::default() };
            self.fleet.tell(replica.session, Told::Heartbeat(beat)).await.unwrap();
        }
        let view = self.fleet.view().await.unwrap();
        let known = view.breakers.values().find(|breaker| breaker.key.as_ref().unwrap().target == name);
        known.map_or(0, |breaker| breaker.instances.len())
    }

    /// Heartbeats until the fleet is in this mode; everything that was heard meanwhile.
    pub(crate) async fn until(&mut self, mode: &str, local: LocalState) -> (Duration, Vec<Heard>) {
        let began = Instant::now();
        let mut all = Vec::new();
        while self.explain().await.mode != mode {
            assert!(began.elapsed() < LIMIT, "never {mode}");
            all.push(self.beat(local).await);
        }
        (began.elapsed(), all)
    }

    pub(crate) async fn explain(&self) -> v1::ExplainBreakerResponse {
        let name = self.fleet.view().await.unwrap().breakers.keys().next().unwrap().clone();
        self.fleet.explain(name).await.unwrap().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl Replica {
    fn window(&self, local: LocalState) -> sync::BreakerWindow {
        let key = v1::BreakerKey {
            policy: "service-b".to_owned(),
            strategy: "circuit-breaker".to_owned(),
            target: "service-b".to_owned(),
            ..v1::BreakerKey::default()
        };
        let tripped = local == LocalState::Open;
        sync::BreakerWindow {
            key: Some(key),
            policy_revision: 1,
            local_state: local.into(),
            own_trip: tripped,
            calls: 20,
            failures: if tripped { 20 } else { 0 },
            causes: Some(sync::CauseCounts { target_error: if tripped { 20 } else { 0 }, ..Default::default() }),
            held_term: self.held.term,
            held_rev: self.held.rev,
            held_state: self.held.state,
            ..sync::BreakerWindow::default()
        }
    }

    fn hear(&mut self, heard: &mut Heard) {
        for message in self.outbox.take().messages {
            if let Down::Verdict(verdict) = &message {
                heard.verdicts.push(verdict.state());
                self.held = verdict.clone();
            }
            heard.permits += usize::from(matches!(message, Down::ProbePermit(_)));
            heard.canvasses += usize::from(matches!(message, Down::Canvass(_)));
            if let Down::HeartbeatAck(ack) = message {
                heard.renewed = ack.rev;
            }
        }
    }
}

pub(crate) fn lease() -> Duration {
    Limits::default().lease
}

fn identity(instance: &str) -> Identity {
    Identity {
        namespace: Namespace::default_namespace(),
        caller: CallerName::try_new("service-a").unwrap(),
        member: MemberId { instance: InstanceId::try_new(instance).unwrap(), incarnation: 1 },
        zone: None,
        labels: BTreeMap::new(),
        sdk_version: String::new(),
        policy_source: String::new(),
        seen: SeenTerm::default(),
        ignores_fleet: false,
        knows_disabled: true,
    }
}
