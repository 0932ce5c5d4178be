//! Keeps the stream: dials, speaks, notices silence, waits, dials again.
//!
//! The read loop never waits for anything but the stream: what is to be sent lies in a list and goes when there is room.

use std::{collections::VecDeque, error::Error as _, io, sync::atomic::Ordering, time::Duration};

use fusebox_policy::{Timestamp, fleet::BreakerKey};
use fusebox_proto::{
    duration,
    sync::v1::{
        self as sync, sync_request::Message as Up, sync_response::Message as Down,
        sync_service_client::SyncServiceClient,
    },
    v1,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::{
    Link, Server, receive, send,
    state::{Stream, Unusable},
};
use crate::registry::Origin;

/// Messages between this task and the connection: enough to fill a batch, few enough that states stay fresh.
const UP_BUFFER: usize = 16;
/// Messages that wait for room. A server that has not read so many is not one to wait for.
const MAX_WAITING: usize = 4096;
/// Largest message that is read; snapshots come in chunks.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// From dialling to Welcome.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// So many heartbeats of silence mean that nobody is there.
const SILENT_HEARTBEATS: u32 = 3;
/// A stream of this age shows that the server is well.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
const FIRST_CAP: Duration = Duration::from_millis(250);
const LAST_CAP: Duration = Duration::from_secs(30);
/// After an answer that another try will hardly change.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// How soon the server hears that a share is acted on. Shares come in groups: one heartbeat tells all of a group.
const SHARE_TOLD_WITHIN: Duration = Duration::from_millis(20);
/// How soon the server hears that a verdict is in force: drawn from below this, so that a thousand replicas that were told at once don't
/// all answer while others still wait to be told.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(100);
/// How long `GoAway` may keep this process away.
const MAX_AWAY: Duration = Duration::from_secs(300);

/// Why a stream ended, and what that means for the next.
#[derive(Debug)]
struct End {
    why: String,
    /// Not before this has passed.
    at_least: Duration,
    /// When it was welcomed.
    welcomed: Option<Timestamp>,
    /// One end does not trust the other.
    distrust: bool,
}

/// Keeps a stream up for ever.
pub(super) async fn keep_stream(link: &Link) {
    let Some(server) = &link.server else { return std::future::pending().await };
    let mut failures = 0_u32;
    loop {
        let end = Box::pin(one_stream(link, server)).await;
        link.registry.connected.store(false, Ordering::Relaxed);
        let now = link.clock.now();
        if end.welcomed.is_some_and(|welcomed| now.since(welcomed) >= HEALTHY_AFTER) {
            failures = 0;
        }
        // Many may have been told the same time: they don't all come at it.
        let wait = end.at_least.saturating_add(backoff(failures, fastrand::f64()));
        failures = failures.saturating_add(1);
        let (why, wait_ms) = (end.why, wait.as_millis() as u64);
        if end.welcomed.is_some() {
            tracing::warn!(target: "fusebox", why, wait_ms, "disconnected from the control plane; policies stay in force");
        } else if end.at_least >= REFUSED_WAIT {
            tracing::warn!(target: "fusebox", why, wait_ms, "the control plane refuses this process; policies stay in force");
        } else if end.distrust {
            // Nobody mends this by waiting: a wrong CA, or a certificate that is not known there or has expired.
            tracing::warn!(target: "fusebox", why, wait_ms, "no secure connection to the control plane; policies stay in force");
        } else {
            tracing::debug!(target: "fusebox", why, wait_ms, "the control plane could not be reached");
        }
        #[cfg(feature = "metrics")]
        if let Some(meters) = link.registry.meters() {
            meters.count(crate::metrics::RECONNECTS, 1);
        }
        tokio::time::sleep(wait).await;
    }
}

/// Full jitter below a cap that doubles.
fn backoff(failures: u32, draw: f64) -> Duration {
    let doubled = FIRST_CAP.saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX));
    doubled.min(LAST_CAP).mul_f64(draw)
}

struct Session<'a> {
    link: &'a Link,
    stream: Stream,
    waiting: VecDeque<sync::SyncRequest>,
    welcomed: Option<Timestamp>,
    heartbeat_due: Option<Timestamp>,
    transitions_due: Option<Timestamp>,
    /// The newest of each breaker, and of the overrides.
    acknowledgements: Vec<sync::VerdictAck>,
    acknowledgements_due: Option<Timestamp>,
    overrides_seen: (u64, u64),
}

async fn one_stream(link: &Link, server: &Server) -> End {
    let unwelcome = |why: String, at_least| End { why, at_least, welcomed: None, distrust: false };
    let (endpoint, token) = match server.credentials.read(&server.endpoint).await {
        Ok(ready) => ready,
        Err(unusable) => {
            let why = unusable.to_string();
            tracing::warn!(target: "fusebox", why, "the credentials for the control plane can't be used; policies stay in force");
            return unwelcome(why, Duration::ZERO);
        }
    };
    let mut client = SyncServiceClient::new((server.dial)(&endpoint)).max_decoding_message_size(MAX_MESSAGE);
    let (up, outgoing) = mpsc::channel(UP_BUFFER);
    link.registry.outbox.forget();
    if up.try_send(send::request(Up::Hello(hello(link, server)))).is_err() {
        return unwelcome("the stream has no room for its first message".to_owned(), Duration::ZERO);
    }
    let opened_at = link.clock.now();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token);
    }
    let opening = tokio::time::timeout(HELLO_LIMIT, client.sync(request));
    let mut incoming = match opening.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            return End { distrust: is_distrust(&status), ..unwelcome(describe(&status), refused(&status)) };
        }
        Err(_) => return unwelcome("no answer in time".to_owned(), Duration::ZERO),
    };
    let mut session = Session {
        link,
        stream: Stream::new(opened_at),
        waiting: VecDeque::new(),
        welcomed: None,
        heartbeat_due: None,
        transitions_due: None,
        acknowledgements: Vec::new(),
        acknowledgements_due: None,
        overrides_seen: (0, 0),
    };
    loop {
        let silent_at = session.silent_at();
        let mut distrust = false;
        let (why, at_least) = tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => {
                    session.stream.heard_at = link.clock.now();
                    match session.heard(message) {
                        Ok(()) => continue,
                        Err(end) => end,
                    }
                }
                Ok(None) => ("the server ended the stream".to_owned(), Duration::ZERO),
                Err(status) => {
                    distrust = is_distrust(&status);
                    (describe(&status), refused(&status))
                }
            },
            room = up.reserve(), if !session.waiting.is_empty() => match (room, session.waiting.pop_front()) {
                (Ok(room), Some(message)) => {
                    room.send(message);
                    continue;
                }
                (Ok(_), None) => continue,
                (Err(_), _) => ("the connection is gone".to_owned(), Duration::ZERO),
            },
            () = link.registry.outbox.filled(), if session.welcomed.is_some() => {
                session.tell();
                continue;
            }
            () = at(link, session.transitions_due) => {
                session.tell();
                continue;
            }
            () = at(link, session.acknowledgements_due) => {
                session.tell_acknowledgements();
                continue;
            }
            () = at(link, session.heartbeat_due) => {
                session.beat();
                continue;
            }
            () = link.clock.sleep_until(silent_at) => ("the server is silent".to_owned(), Duration::ZERO),
        };
        return End { why, at_least, welcomed: session.welcomed, distrust };
    }
}

async fn at(link: &Link, due: Option<Timestamp>) {
    match due {
        Some(due) => link.clock.sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What went wrong, down to its cause: that a transport failed says little.
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

/// Whether TLS failed since one end does not accept the other's certificate. Our own refusal is an error of a known kind; that of the
/// server comes as an alert, of which only the words get this far.
fn is_distrust(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        cause = inner.source();
    }
    describe(status).contains("received fatal alert")
}

/// These answers never take protection away; they only slow the next try.
fn refused(status: &Status) -> Duration {
    let asked = || status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default().min(MAX_AWAY);
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::NotFound
        | Code::Unimplemented
        | Code::InvalidArgument
        | Code::FailedPrecondition => REFUSED_WAIT,
        Code::ResourceExhausted | Code::Unavailable => asked(),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => Duration::ZERO,
    }
}

fn hello(link: &Link, server: &Server) -> sync::Hello {
    let caller = link.registry.caller();
    let held = link.registry.held();
    let seen = link.seen_term();
    let source = match held.origin {
        Some(Origin::Stream) => "stream",
        Some(Origin::Disk) => "disk",
        None => link.registry.show().1.name(),
    };
    sync::Hello {
        protocol: 1,
        namespace: caller.namespace.to_string(),
        service: caller.service.to_string(),
        instance: server.instance.to_string(),
        incarnation: server.incarnation,
        zone: caller.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        labels: server.labels.clone(),
        sdk_version: concat!("fusebox-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
        store_id: held.store_id,
        policy_revision: held.revision.0,
        highest_term: seen.term,
        policy_source: source.to_owned(),
        ignores_fleet: caller.ignore_fleet,
        highest_term_run: seen.run_number(),
        capabilities: vec![sync::Capability::DisabledOverrides.into()],
    }
}

type Ending = (String, Duration);

impl Session<'_> {
    fn silent_at(&self) -> Timestamp {
        let limit = self.stream.welcome.as_ref().map_or(HELLO_LIMIT, |welcome| welcome.heartbeat * SILENT_HEARTBEATS);
        self.stream.heard_at.plus(limit)
    }

    fn say(&mut self, message: Up) {
        self.waiting.push_back(send::request(message));
    }

    fn heard(&mut self, message: sync::SyncResponse) -> Result<(), Ending> {
        if self.waiting.len() > MAX_WAITING {
            return Err(("the server does not read".to_owned(), Duration::ZERO));
        }
        // A message of a newer server is unknown here and ignored.
        let Some(message) = message.message else { return Ok(()) };
        if let Down::Welcome(wire) = message {
            let welcome =
                receive::welcome(wire).map_err(|invalid| (format!("bad welcome: {invalid}"), REFUSED_WAIT))?;
            self.link
                .saw_term(welcome.term, welcome.run)
                .map_err(|invalid| (format!("bad welcome: {invalid}"), REFUSED_WAIT))?;
            let now = self.link.clock.now();
            self.welcomed = Some(now);
            self.heartbeat_due = Some(now.plus(welcome.heartbeat));
            tracing::info!(target: "fusebox", store_id = welcome.store_id, term = welcome.term, "connected to the control plane");
            self.stream.welcome = Some(welcome);
            self.link.registry.connected.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let Some(store_id) = self.stream.welcome.as_ref().map(|welcome| welcome.store_id.clone()) else {
            return Err(("the server spoke before its welcome".to_owned(), REFUSED_WAIT));
        };
        match message {
            Down::Welcome(_) => {}
            Down::SnapshotBegin(begin) => self.stream.begin(begin),
            Down::PolicyChunk(chunk) => {
                if let Err(unusable) = self.stream.chunk(chunk) {
                    self.refuse(unusable);
                }
            }
            Down::SnapshotEnd(end) => {
                let applied = self.stream.end(&end).and_then(|set| self.link.apply_snapshot(&store_id, end, set));
                match applied {
                    Ok(ack) => self.applied(ack),
                    Err(unusable) => self.refuse(unusable),
                }
            }
            Down::Delta(delta) => match self.link.apply_delta(&store_id, delta) {
                Ok(ack) => self.applied(ack),
                Err(unusable) => self.refuse(unusable),
            },
            Down::Verdict(verdict) => match self.link.apply_verdict(&self.stream, verdict) {
                Ok(ack) => ack.into_iter().for_each(|ack| self.acknowledge(ack)),
                Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a verdict is ignored"),
            },
            Down::ProbePermit(permit) => match self.link.add_permit(&self.stream, permit) {
                Ok(back) => self.waiting.extend(back.map(|back| send::request(Up::ProbeOutcome(back)))),
                Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a probe permit is ignored"),
            },
            Down::Canvass(canvass) => self.canvass(canvass),
            Down::HeartbeatAck(ack) => {
                if let Err(invalid) = self.link.renew(&self.stream, ack) {
                    tracing::warn!(target: "fusebox", reason = %invalid, "a heartbeat's answer is ignored");
                }
            }
            Down::Overrides(set) => self.overrides(&store_id, set),
            Down::RateShare(share) => self.share(share),
            Down::BreakerRefused(refused) => self.link.keep_to_itself(refused),
            Down::GoAway(away) => {
                let sync::GoAway { delay, reason } = away;
                let delay = delay.and_then(|delay| duration::from_wire(delay).ok()).unwrap_or_default();
                return Err((format!("the server sends this process away: {reason}"), delay.min(MAX_AWAY)));
            }
        }
        Ok(())
    }

    fn applied(&mut self, ack: sync::Ack) {
        self.say(Up::Ack(ack));
        self.link.ready.send_replace(true);
        // The server learns at once which breakers there are.
        self.beat_with(true);
    }

    fn refuse(&mut self, unusable: Unusable) {
        let Unusable { revision, reason } = unusable;
        tracing::warn!(target: "fusebox", revision, reason, "an update of the policies is refused; what is held stays");
        self.say(Up::Nack(sync::Nack { revision, reason }));
    }

    fn overrides(&mut self, store_id: &str, set: sync::OverrideSet) {
        let fence = (set.term, set.version);
        if fence < self.overrides_seen {
            return;
        }
        match self.link.set_overrides(&self.stream, store_id, set) {
            Ok(ack) => {
                self.overrides_seen = fence;
                ack.into_iter().for_each(|ack| self.acknowledge(ack));
            }
            Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a set of overrides is ignored"),
        }
    }

    fn acknowledge(&mut self, ack: sync::VerdictAck) {
        self.acknowledgements.retain(|older| older.key != ack.key);
        self.acknowledgements.push(ack);
        let soon = || self.link.clock.now().plus(ACKNOWLEDGED_WITHIN.mul_f64(fastrand::f64()));
        self.acknowledgements_due = self.acknowledgements_due.or_else(|| Some(soon()));
    }

    fn tell_acknowledgements(&mut self) {
        self.acknowledgements_due = None;
        for ack in std::mem::take(&mut self.acknowledgements) {
            self.say(Up::VerdictAck(ack));
        }
    }

    fn share(&mut self, share: sync::RateShare) {
        match self.link.apply_share(&self.stream, share) {
            // Others may wait for what this process has given up.
            Ok(true) => {
                let soon = self.link.clock.now().plus(SHARE_TOLD_WITHIN);
                self.heartbeat_due = self.heartbeat_due.map(|due| due.min(soon));
            }
            Ok(false) => {}
            Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a share of a rate limit is ignored"),
        }
    }

    fn canvass(&mut self, canvass: sync::Canvass) {
        let sync::Canvass { id, key } = canvass;
        let now = self.link.clock.now();
        let window = key
            .and_then(|key| BreakerKey::try_from(key).ok())
            .and_then(|key| self.link.registry.cell(&key))
            .map(|cell| send::window(&cell, now));
        self.say(Up::CanvassAnswer(sync::CanvassAnswer { id, window }));
    }

    /// Transitions and outcomes of probes, as far as they may be told now.
    fn tell(&mut self) {
        let told_at = self.link.clock.now();
        let (due, next) = self.link.registry.outbox.take_transitions(told_at);
        for told in due {
            // Nobody listens to what is not shared.
            if self.link.registry.cell(&told.key).is_some_and(|cell| cell.look(told_at, |gate| gate.is_unshared())) {
                continue;
            }
            let seq = self.link.transitions.fetch_add(1, Ordering::Relaxed) + 1;
            self.say(Up::Transition(send::transition(&told, seq)));
        }
        self.transitions_due = next;
        for probed in self.link.registry.outbox.take_probes() {
            self.say(Up::ProbeOutcome(send::probed(&probed)));
        }
    }

    fn beat(&mut self) {
        self.beat_with(false);
    }

    fn beat_with(&mut self, all: bool) {
        let now = self.link.clock.now();
        if all {
            for cell in self.link.registry.cells() {
                cell.with(|gate| (gate.announce(), Vec::new()));
            }
        }
        let windows = self
            .link
            .registry
            .cells()
            .iter()
            .filter(|cell| cell.look(now, |gate| gate.wants_report()))
            .map(|cell| send::window(cell, now))
            .collect();
        let dropped = self.link.registry.outbox.take_dropped().iter().map(v1::BreakerKey::from).collect();
        let seq = self.stream.heartbeat(now);
        let limits = self.link.limit_reports();
        self.say(Up::Heartbeat(sync::Heartbeat { seq, windows, dropped, limits }));
        self.heartbeat_due = self.stream.welcome.as_ref().map(|welcome| now.plus(welcome.heartbeat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_are_drawn_from_all_below() {
        assert!(backoff(0, 0.999) <= FIRST_CAP && backoff(0, 0.999) > FIRST_CAP / 2);
        assert_eq!(backoff(3, 0.5), Duration::from_secs(1));
        assert!(backoff(100, 0.999) > LAST_CAP / 2);
        assert!((0..100).all(|failures| backoff(failures, 0.999) <= LAST_CAP && backoff(failures, 0.0).is_zero()));
    }

    #[test]
    fn an_answer_may_say_when_to_come_again_and_not_later_than_some_minutes() {
        let told = |code, delay| {
            let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(delay)));
            refused(&Status::with_error_details(code, "later", details))
        };
        assert_eq!(told(Code::ResourceExhausted, 7), Duration::from_secs(7));
        assert_eq!(told(Code::Unavailable, 7), Duration::from_secs(7));
        assert_eq!(told(Code::Unavailable, 1_000_000), MAX_AWAY);
        assert_eq!(told(Code::Internal, 7), Duration::ZERO);
        assert_eq!(refused(&Status::permission_denied("no")), REFUSED_WAIT);
    }
}
