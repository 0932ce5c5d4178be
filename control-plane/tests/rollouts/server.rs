//! A server on a free port that can be started again on the same data, and replicas that keep their policies as an SDK does.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use fusebox_control_plane::{
    config::Limits,
    serve::serve,
    shutdown::Shutdown,
    store::{StoreError, StoreHandle, sqlite::SqliteStore},
};
use fusebox_proto::{
    manifest,
    sync::v1::{
        self as sync, sync_request::Message as Up, sync_response::Message as Down,
        sync_service_client::SyncServiceClient,
    },
    v1::{
        self, breaker_service_client::BreakerServiceClient, policy_service_client::PolicyServiceClient,
        rollout_service_client::RolloutServiceClient, rollout_stage::Selector,
    },
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Status, Streaming, transport::Channel};

/// Nothing here takes long; what takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) channel: Channel,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(folder: &Path) -> Self {
        let store: StoreHandle = Arc::new(timeout(LIMIT, free(folder)).await.expect("the folder is free in time"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let end = shutdown.clone();
        let serving =
            async move { serve(TcpListenerStream::new(listener), store, Limits::default(), end).await.unwrap() };
        let task = tokio::spawn(serving);
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        Self { channel, shutdown, task }
    }

    pub(crate) async fn stop(self) {
        let Self { channel, shutdown, task, .. } = self;
        drop(channel);
        shutdown.begin();
        timeout(LIMIT, task).await.expect("the server ends in time").unwrap();
    }

    pub(crate) fn policies(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel.clone())
    }

    pub(crate) fn rollouts(&self) -> RolloutServiceClient<Channel> {
        RolloutServiceClient::new(self.channel.clone())
    }

    pub(crate) fn breakers(&self) -> BreakerServiceClient<Channel> {
        BreakerServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn apply(&self, policy: v1::Policy) -> Result<u64, Status> {
        let request = v1::ApplyPoliciesRequest { policies: vec![policy], ..Default::default() };
        Ok(self.policies().apply_policies(request).await?.into_inner().revision)
    }

    pub(crate) async fn start_rollout(&self, policy: v1::Policy, spec: v1::RolloutSpec) -> Result<v1::Rollout, Status> {
        let message = "try it".to_owned();
        let request =
            v1::CreateRolloutRequest { policy: Some(policy), spec: Some(spec), message, ..Default::default() };
        Ok(self.rollouts().create_rollout(request).await?.into_inner())
    }

    pub(crate) async fn get(&self, name: &str) -> v1::Rollout {
        let request = v1::GetRolloutRequest { name: name.to_owned() };
        self.rollouts().get_rollout(request).await.unwrap().into_inner()
    }

    pub(crate) async fn force(&self, name: &str) -> v1::Rollout {
        let request = v1::PromoteRolloutRequest {
            name: name.to_owned(),
            force: true,
            reason: "I know".to_owned(),
            ..Default::default()
        };
        self.rollouts().promote_rollout(request).await.unwrap().into_inner()
    }

    pub(crate) async fn promote(&self, name: &str) -> Result<v1::Rollout, Status> {
        let request = v1::PromoteRolloutRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.rollouts().promote_rollout(request).await?.into_inner())
    }

    pub(crate) async fn abort(&self, name: &str) -> v1::Rollout {
        let request =
            v1::AbortRolloutRequest { name: name.to_owned(), reason: "it is no good".to_owned(), ..Default::default() };
        self.rollouts().abort_rollout(request).await.unwrap().into_inner()
    }

    /// The rollout as soon as it is as wanted.
    pub(crate) async fn until(&self, name: &str, what: &str, wanted: impl Fn(&v1::Rollout) -> bool) -> v1::Rollout {
        let request = v1::WatchRolloutRequest { name: name.to_owned() };
        let mut events = self.rollouts().watch_rollout(request).await.unwrap().into_inner();
        let mut last = None;
        let found = timeout(LIMIT, async {
            while let Some(event) = events.message().await.unwrap() {
                let rollout = event.rollout.unwrap();
                if wanted(&rollout) {
                    return Some(rollout);
                }
                last = Some(rollout);
            }
            None
        });
        let found = found.await.unwrap_or_default();
        found.unwrap_or_else(|| panic!("it never was {what}: {last:#?}"))
    }
}

async fn free(folder: &Path) -> SqliteStore {
    loop {
        match SqliteStore::open(folder).await {
            Err(StoreError::InUse(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
}

/// A replica that does what it is told. It outlives its streams, as a process outlives the server's.
pub(crate) struct Replica {
    hello: sync::Hello,
    /// What it runs: timeout or breaker of the policy by its revision, by name.
    pub(crate) policies: BTreeMap<String, v1::Policy>,
    pub(crate) revision: u64,
    store_id: String,
    seq: u64,
    /// Whether it refuses policies of this revision.
    pub(crate) refuses: Option<u64>,
    up: Option<mpsc::Sender<sync::SyncRequest>>,
    down: Option<Streaming<sync::SyncResponse>>,
}

impl Replica {
    /// One that starts, connects and has what it is to have.
    pub(crate) async fn join(server: &Server, instance: &str, zone: &str) -> Self {
        let hello = sync::Hello {
            protocol: 1,
            namespace: "default".to_owned(),
            service: "service-a".to_owned(),
            instance: instance.to_owned(),
            incarnation: 1,
            zone: zone.to_owned(),
            ..sync::Hello::default()
        };
        let policies = BTreeMap::new();
        let store_id = String::new();
        let mut own = Self { hello, policies, revision: 0, store_id, seq: 0, refuses: None, up: None, down: None };
        own.connect(server).await;
        own
    }

    /// Comes again with what it holds, perhaps moved to another zone.
    pub(crate) async fn rejoin(&mut self, server: &Server, zone: &str) {
        zone.clone_into(&mut self.hello.zone);
        self.connect(server).await;
    }

    async fn connect(&mut self, server: &Server) {
        self.hello.store_id.clone_from(&self.store_id);
        self.hello.policy_revision = self.revision;
        let (up, messages) = mpsc::channel(64);
        up.send(sync::SyncRequest { message: Some(Up::Hello(self.hello.clone())) }).await.unwrap();
        let mut client = SyncServiceClient::new(server.channel.clone());
        self.down = Some(client.sync(ReceiverStream::new(messages)).await.unwrap().into_inner());
        self.up = Some(up);
        self.update().await;
    }

    /// Leaves.
    pub(crate) fn leave(&mut self) {
        (self.up, self.down) = (None, None);
    }

    pub(crate) async fn say(&self, message: Up) {
        self.up.as_ref().unwrap().send(sync::SyncRequest { message: Some(message) }).await.unwrap();
    }

    async fn next(&mut self) -> Down {
        let down = self.down.as_mut().unwrap();
        let message = timeout(LIMIT, down.message()).await.expect("the server says something in time").unwrap();
        message.expect("the stream goes on").message.unwrap()
    }

    /// Takes the next update, and acknowledges it. Says whether it changed anything.
    pub(crate) async fn update(&mut self) -> bool {
        let before = self.policies.clone();
        let mut staged = BTreeMap::new();
        loop {
            match self.next().await {
                Down::Welcome(welcome) => self.store_id = welcome.store_id,
                Down::SnapshotBegin(_) => staged = BTreeMap::new(),
                Down::PolicyChunk(chunk) => {
                    staged.extend(chunk.policies.into_iter().map(|policy| (policy.name.clone(), policy)));
                }
                Down::SnapshotEnd(end) => {
                    assert_eq!(end.policies as usize, staged.len());
                    assert!(end.revision >= self.revision, "never back: {end:?}");
                    self.take(end.revision, std::mem::take(&mut staged)).await;
                    break;
                }
                Down::Delta(delta) => {
                    assert_eq!(delta.from_revision, self.revision);
                    assert!(delta.revision >= self.revision, "never back: {delta:?}");
                    let mut policies = self.policies.clone();
                    policies.retain(|name, _| !delta.deleted.contains(name));
                    policies.extend(delta.upserted.into_iter().map(|policy| (policy.name.clone(), policy)));
                    self.take(delta.revision, policies).await;
                    break;
                }
                Down::Verdict(_)
                | Down::ProbePermit(_)
                | Down::Canvass(_)
                | Down::HeartbeatAck(_)
                | Down::Overrides(_)
                | Down::GoAway(_)
                | Down::RateShare(_)
                | Down::BreakerRefused(_) => {}
            }
        }
        before != self.policies
    }

    async fn take(&mut self, revision: u64, mut policies: BTreeMap<String, v1::Policy>) {
        let mut rejected = Vec::new();
        for (name, policy) in policies.clone() {
            if self.refuses == Some(policy.revision) {
                let reason = "this replica is too old for it".to_owned();
                rejected.push(sync::PolicyRejection { name: name.clone(), revision: policy.revision, reason });
                policies.remove(&name);
                policies.extend(self.policies.get(&name).map(|good| (name, good.clone())));
            }
        }
        (self.revision, self.policies) = (revision, policies);
        self.say(Up::Ack(sync::Ack { revision, rejected })).await;
    }

    /// Takes updates until it has that revision of the store.
    pub(crate) async fn reach(&mut self, revision: u64) {
        while self.revision < revision {
            self.update().await;
        }
    }

    /// The revision of the policy that it runs; 0 if none.
    pub(crate) fn runs(&self) -> u64 {
        self.policies.get("namespaces/default/policies/service-b").map_or(0, |policy| policy.revision)
    }

    /// Reports so many calls and failures in the window of its breaker.
    pub(crate) async fn beat(&mut self, calls: u64, failures: u64) {
        self.seq += 1;
        let windows = vec![self.window(calls, failures, v1::LocalState::Closed)];
        self.say(Up::Heartbeat(sync::Heartbeat { seq: self.seq, windows, ..Default::default() })).await;
    }

    /// Reports that its breaker has tripped.
    pub(crate) async fn trip(&mut self) {
        self.seq += 1;
        let window = Some(self.window(20, 20, v1::LocalState::Open));
        let transition = sync::Transition {
            window,
            from: v1::LocalState::Closed.into(),
            cause: "failure_rate".to_owned(),
            seq: self.seq,
        };
        self.say(Up::Transition(transition)).await;
    }

    fn window(&self, calls: u64, failures: u64, state: v1::LocalState) -> sync::BreakerWindow {
        sync::BreakerWindow {
            key: Some(v1::BreakerKey {
                namespace: "default".to_owned(),
                caller: "service-a".to_owned(),
                policy: "service-b".to_owned(),
                strategy: "circuit-breaker".to_owned(),
                target: "service-b".to_owned(),
                zone: String::new(),
            }),
            policy_revision: self.runs(),
            local_state: state.into(),
            own_trip: state == v1::LocalState::Open,
            calls,
            failures,
            ..sync::BreakerWindow::default()
        }
    }
}

/// The policy of service-b with a breaker and this timeout.
pub(crate) fn policy(timeout: &str) -> v1::Policy {
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
         coordination: {{ scope: fleet }}\n  pipeline: [{{ circuitBreaker: {{}} }}, {{ timeout: {timeout} }}]\n"
    );
    v1::Policy::from(&manifest::parse("test", &text).unwrap().remove(0).policy)
}

pub(crate) fn stages(stages: Vec<Selector>) -> v1::RolloutSpec {
    let stage = |selector| v1::RolloutStage { selector: Some(selector), bake: None };
    v1::RolloutSpec { stages: stages.into_iter().map(stage).collect(), ..v1::RolloutSpec::default() }
}

pub(crate) fn to_instance(instance: &str) -> v1::RolloutSpec {
    stages(vec![Selector::Instances(v1::InstanceSelector { instances: vec![instance.to_owned()] })])
}
