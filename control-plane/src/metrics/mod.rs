//! What the control plane counts of itself: each metric's name and labels, in one place.
//!
//! Labels have few values that the program knows: never a name of a service, a target or a replica, never free text. The rest of the program
//! says what happened, through the functions here; without `--metrics-listen` nobody listens, and saying it costs next to nothing.
//! `control-plane/docs/metrics.md` tells people of them; a test holds that page to what a server really tells.

mod scrape;
pub mod serve;

use std::time::Duration;

use fusebox_policy::fleet::{coordinator::Guard, shared::FleetState};
use fusebox_proto::sync::v1::{sync_request, sync_response};
use metrics::{counter, gauge, histogram};

/// Seconds: a write takes one fsync, and waits for others before it.
const WRITE_BUCKETS: [f64; 14] =
    [0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// What [`WRITE_BUCKETS`] are for.
const STORE_WRITE: &str = "fusebox_control_store_write_duration_seconds";

/// A replica's stream has begun.
pub(crate) fn session_begun() {
    counter!("fusebox_control_sessions_begun_total").increment(1);
}

/// A replica was turned away; `reason` is that of `ErrorInfo`.
pub(crate) fn session_refused(reason: &str) {
    counter!("fusebox_control_sessions_refused_total", "reason" => reason.to_owned()).increment(1);
}

/// A replica's stream has ended.
pub(crate) fn session_ended(reason: &str) {
    counter!("fusebox_control_sessions_ended_total", "reason" => reason.to_owned()).increment(1);
}

fn message(direction: &'static str, kind: &'static str, count: u64) {
    counter!("fusebox_control_messages_total", "direction" => direction, "kind" => kind).increment(count);
}

/// A replica has sent a message.
pub(crate) fn message_in(told: &sync_request::Message) {
    use sync_request::Message;
    let kind = match told {
        Message::Hello(_) => "hello",
        Message::Heartbeat(_) => "heartbeat",
        Message::Transition(_) => "transition",
        Message::Ack(_) => "ack",
        Message::Nack(_) => "nack",
        Message::CanvassAnswer(_) => "canvass_answer",
        Message::ProbeOutcome(_) => "probe_outcome",
        Message::VerdictAck(_) => "verdict_ack",
    };
    message("in", kind, 1);
}

/// A replica is sent a message.
pub(crate) fn message_out(told: &sync_response::Message) {
    use sync_response::Message;
    let kind = match told {
        Message::Welcome(_) => "welcome",
        Message::SnapshotBegin(_) => "snapshot_begin",
        Message::PolicyChunk(_) => "policy_chunk",
        Message::SnapshotEnd(_) => "snapshot_end",
        Message::Delta(_) => "delta",
        Message::Verdict(_) => "verdict",
        Message::ProbePermit(_) => "probe_permit",
        Message::Canvass(_) => "canvass",
        Message::HeartbeatAck(_) => "heartbeat_ack",
        Message::Overrides(_) => "overrides",
        Message::GoAway(_) => "go_away",
        Message::RateShare(_) => "rate_share",
        Message::BreakerRefused(_) => "breaker_refused",
    };
    message("out", kind, 1);
}

/// The fleet's state of a breaker has changed.
pub(crate) fn verdict(to: FleetState) {
    counter!("fusebox_control_fleet_verdicts_total", "to" => to.name()).increment(1);
}

/// An opening was held back.
pub(crate) fn held(guard: &'static str) {
    counter!("fusebox_control_fleet_held_total", "guard" => guard).increment(1);
}

/// A write to the store has ended, well or not.
pub(crate) fn store_write(took: Duration, is_ok: bool) {
    histogram!(STORE_WRITE, "result" => if is_ok { "ok" } else { "error" }).record(took.as_secs_f64());
}

/// Lets those be seen at 0 that nothing may have happened to for long: an alert on a rise needs to know where it began.
fn begin() {
    counter!("fusebox_control_sessions_begun_total").increment(0);
    for reason in ["TOO_MANY_STREAMS", "NOT_OWN_SERVICE"] {
        counter!("fusebox_control_sessions_refused_total", "reason" => reason).increment(0);
    }
    for reason in ["gone", "replaced", "renewed", "shutting_down", "REPLICA_SILENT", "READER_TOO_SLOW"] {
        counter!("fusebox_control_sessions_ended_total", "reason" => reason).increment(0);
    }
    for kind in ["heartbeat", "transition", "nack"] {
        message("in", kind, 0);
    }
    message("out", "verdict", 0);
    for to in FleetState::ALL {
        counter!("fusebox_control_fleet_verdicts_total", "to" => to.name()).increment(0);
    }
    for guard in Guard::ALL {
        counter!("fusebox_control_fleet_held_total", "guard" => guard.name()).increment(0);
    }
    gauge!("fusebox_control_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
