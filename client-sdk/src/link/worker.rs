//! Keeps the stream: dials, speaks, notices silence, waits, dials again.
//!
//! The read loop never waits for anything but the stream: what is to be sent lies in a list and goes when there is room.

use std::{sync::atomic::Ordering, time::Duration};

use fusebox_proto::sync::v1::{self as sync, sync_request::Message as Up, sync_service_client::SyncServiceClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::{
    Link, Server,
    end::{End, REFUSED_WAIT},
    send,
    session::{HELLO_LIMIT, Session},
};
use crate::registry::Origin;

/// Messages between this task and the connection: enough to fill a batch, few enough that states stay fresh.
const UP_BUFFER: usize = 16;
/// Largest message that is read; snapshots come in chunks.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// A stream of this age shows that the server is well.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
const FIRST_CAP: Duration = Duration::from_millis(250);
const LAST_CAP: Duration = Duration::from_secs(30);

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

async fn one_stream(link: &Link, server: &Server) -> End {
    let (endpoint, token) = match server.credentials.read(&server.endpoint).await {
        Ok(ready) => ready,
        Err(unusable) => {
            let why = unusable.to_string();
            tracing::warn!(target: "fusebox", why, "the credentials for the control plane can't be used; policies stay in force");
            return End::new(why);
        }
    };
    let mut client = SyncServiceClient::new((server.dial)(&endpoint)).max_decoding_message_size(MAX_MESSAGE);
    let (up, outgoing) = mpsc::channel(UP_BUFFER);
    link.registry.outbox.forget();
    if up.try_send(send::request(Up::Hello(hello(link, server)))).is_err() {
        return End::new("the stream has no room for its first message");
    }
    let opened_at = link.clock.now();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token);
    }
    let opening = tokio::time::timeout(HELLO_LIMIT, client.sync(request));
    let incoming = match opening.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status.into(),
        Err(_) => return End::new("no answer in time"),
    };
    let mut session = Session::new(link, opened_at);
    let end = talk(link, &mut session, incoming, up).await;
    End { welcomed: session.welcomed, ..end }
}

/// Until the stream ends.
async fn talk(
    link: &Link,
    session: &mut Session<'_>,
    mut incoming: Streaming<sync::SyncResponse>,
    up: mpsc::Sender<sync::SyncRequest>,
) -> End {
    // One timer for all that is due, and moved only when that has changed: most messages change nothing of it.
    let timer = link.clock.sleep_until(session.due());
    tokio::pin!(timer);
    loop {
        let due = link.clock.instant(session.due());
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => if let Err(end) = session.heard(message) {
                    return end;
                },
                Ok(None) => return End::new("the server ended the stream"),
                Err(status) => return status.into(),
            },
            room = up.reserve(), if !session.waiting.is_empty() => match room {
                Ok(room) => if let Some(message) = session.waiting.pop_front() {
                    room.send(message);
                },
                Err(_) => return End::new("the connection is gone"),
            },
            () = link.registry.outbox.filled(), if session.welcomed.is_some() => session.tell(),
            () = &mut timer => if let Err(end) = session.act(link.clock.now()) {
                return end;
            },
        }
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
}
