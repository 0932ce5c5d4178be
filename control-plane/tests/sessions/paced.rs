//! What takes long, on a clock that jumps: streams that are renewed, and replicas that do not read. In memory, since a clock that jumps
//! runs ahead of every socket.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use fusebox_control_plane::{
    access::{self, Bootstrap},
    serve::{Settings, serve_with},
    shutdown::Shutdown,
    store::{StoreHandle, memory::MemoryStore},
};
use fusebox_proto::{
    duration::{from_wire, to_wire},
    sync::v1::{
        self as sync, sync_request::Message as Up, sync_response::Message as Down,
        sync_service_client::SyncServiceClient,
    },
    v1::{
        self, admin_service_client::AdminServiceClient, fleet_service_client::FleetServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::StatusExt as _;

use super::server::hello;

const MINUTE: Duration = Duration::from_secs(60);
/// Well below what is taken for silence.
const BEAT: Duration = Duration::from_secs(10);

struct Plane {
    connections: mpsc::Sender<io::Result<DuplexStream>>,
    shutdown: Shutdown,
}

impl Plane {
    fn start(access: access::Settings) -> Self {
        let (connections, incoming) = mpsc::channel(8);
        let store: StoreHandle = Arc::new(MemoryStore::new("paced"));
        let (shutdown, settings) = (Shutdown::new(), Settings { access, ..Settings::default() });
        let end = shutdown.clone();
        tokio::spawn(async move { serve_with(ReceiverStream::new(incoming), store, settings, end).await.unwrap() });
        Self { connections, shutdown }
    }

    /// A connection that takes so many bytes of a stream which nobody reads.
    async fn channel(&self) -> Channel {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.connections.send(Ok(far)).await.unwrap();
        let mut near = Some(TokioIo::new(near));
        let connect = tower::service_fn(move |_: Uri| {
            let near = near.take().ok_or_else(|| io::Error::other("there was one connection"));
            async move { near }
        });
        let endpoint = Endpoint::from_static("http://plane").initial_stream_window_size(64 * 1024);
        endpoint.connect_with_connector(connect).await.unwrap()
    }

    /// A replica that says hello, with a token if there is one.
    async fn replica(&self, instance: &str, token: Option<&str>) -> Replica {
        let mut client = SyncServiceClient::new(self.channel().await);
        let (up, messages) = mpsc::channel(64);
        up.send(sync::SyncRequest { message: Some(Up::Hello(hello(instance))) }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let down = client.sync(request).await.unwrap().into_inner();
        Replica { up, down, beats: 0 }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

struct Replica {
    up: mpsc::Sender<sync::SyncRequest>,
    down: Streaming<sync::SyncResponse>,
    beats: u64,
}

impl Replica {
    async fn beat(&mut self) {
        self.beats += 1;
        let heartbeat = sync::Heartbeat { seq: self.beats, ..sync::Heartbeat::default() };
        self.up.send(sync::SyncRequest { message: Some(Up::Heartbeat(heartbeat)) }).await.unwrap();
    }

    /// Goes on until it is asked to come again; when that was, and in which words.
    async fn until_sent_away(mut self) -> (Duration, sync::GoAway) {
        let begun = Instant::now();
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beats.tick() => self.beat().await,
                message = self.down.message() => {
                    let message = message.unwrap().expect("it is said before the end").message;
                    if let Some(Down::GoAway(away)) = message {
                        return (begun.elapsed(), away);
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_renewed_after_about_half_an_hour_and_not_all_at_once() {
    let plane = Plane::start(access::Settings::default());
    let mut streams = Vec::new();
    for number in 0..4 {
        streams.push(plane.replica(&format!("a-{number}"), None).await.until_sent_away());
    }
    let mut times = BTreeSet::new();
    for (lived, away) in futures_util::future::join_all(streams).await {
        assert!((24 * MINUTE..=37 * MINUTE).contains(&lived), "{lived:?}");
        assert_eq!(away.reason, "streams are renewed from time to time");
        assert!(from_wire(away.delay.unwrap()).unwrap() <= Duration::from_secs(1), "few come back at once");
        times.insert(lived);
    }
    assert_eq!(times.len(), 4, "each at a time of its own");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_renewed_shortly_before_its_token_ends() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const LIFE: Duration = Duration::from_secs(600);
    let bootstrap = Bootstrap::default();
    bootstrap.set(Some(SECRET));
    let settings = access::Settings { tokens: true, bootstrap: Some(bootstrap), ..access::Settings::default() };
    let plane = Plane::start(settings);
    let token = v1::Token {
        display_name: "short".to_owned(),
        role: v1::Role::Agent.into(),
        namespace: "default".to_owned(),
        service: "service-a".to_owned(),
        ..v1::Token::default()
    };
    let mut request =
        Request::new(v1::CreateTokenRequest { token: Some(token), life: Some(to_wire(LIFE)), ..Default::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
    let mut admin = AdminServiceClient::new(plane.channel().await);
    let secret = admin.create_token(request).await.unwrap().into_inner().secret;

    let (lived, away) = plane.replica("a-1", Some(&secret)).await.until_sent_away().await;
    assert_eq!(away.reason, "streams are renewed from time to time");
    assert!(lived < LIFE && lived > LIFE - MINUTE, "before it is cut, and no earlier than need be: {lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_read_is_cut_and_told_why_if_it_reads_after_all() {
    let plane = Plane::start(access::Settings::default());
    let channel = plane.channel().await;
    let body = "x".repeat(60_000);
    let large = |number: usize| {
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: large-{number} }}\nspec:\n  \
             match: {{ target: large-{number} }}\n  pipeline: [{{ fallback: {{ response: {{ body: {body} }} }} }}]\n"
        );
        v1::Policy::from(&fusebox_proto::manifest::parse("large", &text).unwrap().remove(0).policy)
    };
    let policies = (0..40).map(large).collect();
    let request = v1::ApplyPoliciesRequest { policies, ..v1::ApplyPoliciesRequest::default() };
    PolicyServiceClient::new(channel.clone()).apply_policies(request).await.unwrap();

    let mut stuck = plane.replica("a-1", None).await;
    let mut fleet = FleetServiceClient::new(channel);
    let mut connected = async || {
        let list = fleet.list_instances(v1::ListInstancesRequest::default()).await.unwrap().into_inner();
        list.instances.iter().any(|instance| instance.connected_for.is_some())
    };
    while !connected().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    while connected().await {
        assert!(begun.elapsed() < 2 * MINUTE, "it is kept");
        stuck.beat().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let status = loop {
        if let Err(status) = stuck.down.message().await.map(|message| message.expect("it is told why")) {
            break status;
        }
    };
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "READER_TOO_SLOW");
}
