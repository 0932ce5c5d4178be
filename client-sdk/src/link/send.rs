//! What goes up the stream, made from domain types.

use fusebox_policy::{
    Revision, Timestamp,
    breaker::{Causes, Counts},
    fleet::{BreakerKey, evidence::Report, gate::ProbeId, held::Fence, shared::ProbeResult},
};
use fusebox_proto::{duration, sync::v1 as sync, v1};

use crate::{
    pipeline::cell::Cell,
    report::{Probed, Told},
};

pub(super) fn request(message: sync::sync_request::Message) -> sync::SyncRequest {
    sync::SyncRequest { message: Some(message) }
}

/// The window of a breaker. Takes its count of refused calls.
pub(super) fn window(cell: &Cell, now: Timestamp) -> sync::BreakerWindow {
    let key = cell.key();
    cell.with(|gate| {
        let report = gate.report(now);
        let window = to_wire(&key, gate.revision(), &report, gate.held().highest());
        let verdict = gate.held().verdict();
        let window = sync::BreakerWindow {
            held_state: verdict.map_or_else(Default::default, |held| v1::FleetState::from(held.state).into()),
            held_half_open_in: verdict.and_then(|held| held.half_open_at).map(|at| duration::to_wire(now.until(at))),
            ..window
        };
        (window, Vec::new())
    })
}

fn to_wire(key: &BreakerKey, revision: Revision, report: &Report, held: Fence) -> sync::BreakerWindow {
    // `current` is the server's to find out, from the fence.
    let Report { local, own_trip, current: _, calls, failures, slow, rejected, vetoed, causes, disabled } = *report;
    let Causes { connect_error, timeout, target_error, target_overload, local_error } = causes;
    sync::BreakerWindow {
        key: Some(v1::BreakerKey::from(key)),
        policy_revision: revision.0,
        local_state: v1::LocalState::from(local).into(),
        own_trip,
        calls,
        failures,
        slow,
        rejected,
        causes: Some(sync::CauseCounts { connect_error, timeout, target_error, target_overload, local_error }),
        held_term: held.term,
        held_rev: held.rev,
        vetoed,
        // A transition is about the process' own breaker; what it holds goes with the next window.
        held_state: v1::FleetState::Unspecified.into(),
        held_half_open_in: None,
        disabled,
    }
}

pub(super) fn transition(told: &Told, seq: u64) -> sync::Transition {
    let counts: Counts = told.transition.counts;
    let report = Report::new(told.transition.to, told.own_trip, counts, 0);
    sync::Transition {
        window: Some(to_wire(&told.key, told.revision, &report, told.held)),
        from: v1::LocalState::from(told.transition.from).into(),
        cause: told.transition.cause.name().to_owned(),
        seq,
    }
}

pub(super) fn probed(probed: &Probed) -> sync::ProbeOutcome {
    probe_outcome(&probed.key, probed.id, probed.result)
}

pub(super) fn probe_outcome(key: &BreakerKey, id: ProbeId, result: ProbeResult) -> sync::ProbeOutcome {
    use sync::probe_outcome::Result as Wire;
    sync::ProbeOutcome {
        key: Some(v1::BreakerKey::from(key)),
        id: id.id,
        term: id.term,
        result: match result {
            ProbeResult::Success => Wire::Success,
            ProbeResult::Failure => Wire::Failure,
            ProbeResult::Inconclusive => Wire::Inconclusive,
        }
        .into(),
    }
}
