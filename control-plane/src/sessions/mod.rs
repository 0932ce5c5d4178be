//! One task for each SDK's stream: policies down, what replicas tell up, and the end of it.

pub mod admission;
pub(crate) mod feed;
mod hello;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_policy::{
    Revision,
    fleet::{coordinator::Limits, gate::ProbeId, shared::ProbeResult},
};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, SyncRequest, SyncResponse, sync_request, sync_response},
    v1,
};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use self::{admission::Admission, feed::Feed};
use crate::{
    access::{Principal, limits::Telling},
    fleet::{Fleet, HEARTBEAT, Joined, Outbox, SessionId, Told},
    grpc::status::{self, Reason},
    metrics,
    policies::Policies,
    shutdown::Shutdown,
};

pub use hello::parse as parse_hello;

/// How long the first message may take.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Longer silence than this, and the replica is taken for gone: many heartbeats.
const SILENCE: Duration = Duration::from_secs(15);
/// A replica that does not read for so long is cut: it would only fall further behind.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// Streams are renewed after about this long, so that replicas spread over servers again.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A stream whose credential ends is renewed this long before, so that a replica that has a new one by then goes on without a gap.
const BEFORE_EXPIRY: Duration = Duration::from_secs(30);

/// Messages that may wait in the transport. State waits in cells, so that few are enough.
pub const QUEUE: usize = 16;

/// What a session needs from the server.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who decides.
    pub fleet: Fleet,
    /// What is in force.
    pub policies: Policies,
    /// Who may begin.
    pub admission: Arc<Admission>,
    /// When it all ends.
    pub shutdown: Shutdown,
    /// The server's version.
    pub version: &'static str,
}

type Out = mpsc::Sender<Result<SyncResponse, Status>>;

/// Why a session is over.
enum Over {
    /// The replica has gone.
    Gone,
    /// It is asked to come again.
    GoAway(Leave),
    /// Something is wrong.
    Failed(Status),
}

/// Why a replica is asked to come again.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Replaced,
    ShuttingDown,
    Renewed,
}

impl Leave {
    /// For the replica's log.
    const fn text(self) -> &'static str {
        match self {
            Self::Replaced => "another stream has taken this replica's place",
            Self::ShuttingDown => "the server is shutting down",
            Self::Renewed => "streams are renewed from time to time",
        }
    }

    /// For the metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::ShuttingDown => "shutting_down",
            Self::Renewed => "renewed",
        }
    }
}

impl From<Status> for Over {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

/// Runs a stream to its end.
pub async fn run(context: Context, principal: Principal, mut inbound: Streaming<SyncRequest>, out: Out) {
    let hello = match tokio::time::timeout(HELLO_WITHIN, inbound.message()).await {
        Ok(Ok(Some(SyncRequest { message: Some(sync_request::Message::Hello(hello)) }))) => hello,
        Ok(Ok(Some(_))) => {
            return refuse(&out, status::refused(Reason::HelloExpected, "the first message must be Hello")).await;
        }
        Ok(Ok(None)) => return,
        // Whoever sent what is no message is told; whoever has gone is not there to hear it.
        Ok(Err(broken)) => return refuse(&out, broken).await,
        Err(_) => return refuse(&out, status::refused(Reason::HelloExpected, "no Hello within 5 s")).await,
    };
    let identity = match hello::parse(&hello) {
        Ok(identity) => identity,
        Err(refusal) => return refuse(&out, refusal).await,
    };
    if !principal.speaks_for(&identity.namespace, &identity.caller) {
        let (namespace, service) = (identity.namespace.as_str(), identity.caller.as_str());
        return refuse(&out, status::not_own_service(&principal, namespace, service)).await;
    }
    let admission = Arc::clone(&context.admission);
    let _admitted = match admission.admit().await {
        Ok(admitted) => admitted,
        Err(busy) => return refuse(&out, status::busy(busy)).await,
    };
    let outbox = Arc::new(Outbox::default());
    let held = Revision(hello.policy_revision);
    if hello.store_id == context.policies.hub().current().store_id
        && !context.policies.replica_runs(held, &identity.name()).await
    {
        let reason = "hello.policy_revision is far beyond this store's: start the replica without its cache";
        return refuse(&out, status::refused(Reason::CacheUnknown, reason)).await;
    }
    let feed = Feed::new(context.policies.hub(), &identity, &hello.store_id, held);
    let joined = match context.fleet.join(identity, Arc::clone(&outbox)).await {
        Ok(Ok(joined)) => joined,
        Ok(Err(error)) => return refuse(&out, status::join(&error)).await,
        Err(ended) => return refuse(&out, status::unavailable(&ended.to_string())).await,
    };
    metrics::session_begun();
    let telling = Telling::default();
    let session = Session { context, out, outbox, telling, id: joined.session, lifetime: lifetime(&principal) };
    let over = session.talk(&mut inbound, feed, joined).await;
    session.context.fleet.leave(session.id).await;
    match over {
        Over::Gone => metrics::session_ended("gone"),
        Over::GoAway(leave) => {
            metrics::session_ended(leave.name());
            let delay = session.context.admission.spread().mul_f64(fastrand::f64());
            let go_away = sync::GoAway { delay: Some(to_wire(delay)), reason: leave.text().to_owned() };
            // A replica that is gone already needs no goodbye.
            let _ = session.send(sync_response::Message::GoAway(go_away)).await;
        }
        Over::Failed(failure) => {
            metrics::session_ended(&reason_of(&failure));
            tell(&session.out, failure).await;
        }
    }
}

/// Why, in the word that programs switch on.
fn reason_of(failure: &Status) -> String {
    failure.get_details_error_info().map_or_else(|| "TRANSPORT".to_owned(), |info| info.reason)
}

async fn refuse(out: &Out, refusal: Status) {
    metrics::session_refused(&reason_of(&refusal));
    tell(out, refusal).await;
}

async fn tell(out: &Out, refusal: Status) {
    // Whoever does not read does not learn why.
    let _ = out.send_timeout(Err(refusal), SEND_WITHIN).await;
}

/// How long a stream goes on before it is renewed.
fn lifetime(principal: &Principal) -> Duration {
    let lifetime = LIFETIME.mul_f64(0.8 + 0.4 * fastrand::f64());
    let left = principal.expires.map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
    match left {
        // What is too near to its end is left to it: renewing would not help.
        Some(left) if left > 2 * BEFORE_EXPIRY => lifetime.min(left - BEFORE_EXPIRY),
        Some(_) | None => lifetime,
    }
}

struct Session {
    context: Context,
    out: Out,
    outbox: Arc<Outbox>,
    telling: Telling,
    id: SessionId,
    lifetime: Duration,
}

impl Session {
    async fn send(&self, message: sync_response::Message) -> Result<(), Over> {
        metrics::message_out(&message);
        let sent = self.out.send_timeout(Ok(SyncResponse { message: Some(message) }), SEND_WITHIN).await;
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Closed(_) => Over::Gone,
            mpsc::error::SendTimeoutError::Timeout(_) => {
                Over::Failed(status::refused(Reason::ReaderTooSlow, "the replica does not read its stream"))
            }
        })
    }

    async fn send_all(&self, messages: Vec<sync_response::Message>) -> Result<(), Over> {
        for message in messages {
            self.send(message).await?;
        }
        Ok(())
    }

    async fn talk(&self, inbound: &mut Streaming<SyncRequest>, mut feed: Feed, joined: Joined) -> Over {
        match self.exchange(inbound, &mut feed, joined).await {
            Ok(never) => match never {},
            Err(over) => over,
        }
    }

    async fn exchange(
        &self,
        inbound: &mut Streaming<SyncRequest>,
        feed: &mut Feed,
        joined: Joined,
    ) -> Result<std::convert::Infallible, Over> {
        self.send(sync_response::Message::Welcome(sync::Welcome {
            store_id: feed.store_id(),
            term: joined.term,
            heartbeat_interval: Some(to_wire(HEARTBEAT)),
            lease: Some(to_wire(Limits::default().lease)),
            server_version: self.context.version.to_owned(),
            run_id: joined.run.get(),
        }))
        .await?;
        self.send_all(feed.next()).await?;
        let lifetime = tokio::time::sleep(self.lifetime);
        tokio::pin!(lifetime);
        let begun = self.context.shutdown.begun();
        tokio::pin!(begun);
        let closed = self.out.closed();
        tokio::pin!(closed);
        let mut heard = Instant::now();
        // Not moved with each message: it looks again when it has come.
        let silence = tokio::time::sleep_until(heard + SILENCE);
        tokio::pin!(silence);
        loop {
            tokio::select! {
                message = inbound.message() => {
                    // An error here is the transport's: the replica is gone, or has sent what is no message.
                    let Some(SyncRequest { message }) = message? else { return Err(Over::Gone) };
                    heard = Instant::now();
                    self.telling.message().map_err(|too_much| status::too_much("messages of one replica", too_much))?;
                    if let Some(message) = message
                        && let Some(revision) = self.hear(message).await?
                        && feed.start_over(revision)
                    {
                        self.send_all(feed.next()).await?;
                    }
                }
                () = self.outbox.filled() => {
                    let found = self.outbox.take();
                    self.send_all(found.messages).await?;
                    if found.replaced {
                        return Err(Over::GoAway(Leave::Replaced));
                    }
                }
                changed = feed.changed() => {
                    if !changed {
                        return Err(Over::GoAway(Leave::ShuttingDown));
                    }
                    self.send_all(feed.next()).await?;
                }
                // Whoever carries the answer has ended it: the replica has gone, or its credential counts no more.
                () = &mut closed => return Err(Over::Gone),
                () = &mut begun => return Err(Over::GoAway(Leave::ShuttingDown)),
                () = &mut lifetime => return Err(Over::GoAway(Leave::Renewed)),
                () = &mut silence => {
                    let end = heard + SILENCE;
                    if end > Instant::now() {
                        silence.as_mut().reset(end);
                        continue;
                    }
                    return Err(Over::Failed(status::refused(Reason::ReplicaSilent, "no heartbeat for 15 s")));
                }
            }
        }
    }

    /// Passes on what a replica tells. Answers with the revision of which it could use nothing.
    async fn hear(&self, message: sync_request::Message) -> Result<Option<Revision>, Over> {
        metrics::message_in(&message);
        let mut refused = None;
        let told = match message {
            sync_request::Message::Hello(_) => {
                return Err(Over::Failed(status::refused(
                    Reason::HelloExpected,
                    "only the first message may be Hello",
                )));
            }
            sync_request::Message::Heartbeat(heartbeat) => Told::Heartbeat(heartbeat),
            sync_request::Message::Transition(transition) => Told::Transition(transition),
            sync_request::Message::CanvassAnswer(answer) => Told::Canvass(answer),
            sync_request::Message::VerdictAck(ack) => Told::Acknowledged(ack),
            sync_request::Message::Ack(sync::Ack { revision, rejected }) => Told::Applied {
                revision: Revision(revision),
                rejected: rejected
                    .into_iter()
                    .map(|refusal| {
                        let sync::PolicyRejection { name, revision, reason } = refusal;
                        let policy = name.rsplit('/').next().unwrap_or_default().to_owned();
                        v1::RejectedPolicy { policy, revision, reason }
                    })
                    .collect(),
            },
            sync_request::Message::Nack(sync::Nack { revision, reason }) => {
                refused = Some(Revision(revision));
                Told::Refused { revision: Revision(revision), reason }
            }
            sync_request::Message::ProbeOutcome(sync::ProbeOutcome { key, id, term, result }) => {
                let result = match sync::probe_outcome::Result::try_from(result) {
                    Ok(sync::probe_outcome::Result::Success) => ProbeResult::Success,
                    Ok(sync::probe_outcome::Result::Failure) => ProbeResult::Failure,
                    Ok(sync::probe_outcome::Result::Inconclusive | sync::probe_outcome::Result::Unspecified)
                    | Err(_) => ProbeResult::Inconclusive,
                };
                Told::Probe { key: key.unwrap_or_default(), probe: ProbeId { term, id }, result }
            }
        };
        self.context.fleet.tell(self.id, told).await.map_err(|_| Over::GoAway(Leave::ShuttingDown))?;
        Ok(refused)
    }
}
