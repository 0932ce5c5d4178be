//! What is looked at when somebody asks: the sizes and ages of things, as of now.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use fusebox_policy::fleet::{CoordinationMode, shared::FleetState};
use fusebox_proto::v1;
use metrics::gauge;

use crate::{
    condition::{BackupsKnown, Condition, Known},
    fleet::Fleet,
    hub::Hub,
    store::{AlarmKind, StoreHandle, audit::AuditFilter},
};

/// How far rollouts in progress may be.
const ROLLOUTS: [&str; 2] = ["running", "paused"];
/// How replicas may be.
const INSTANCES: [&str; 3] = ["current", "behind", "rejecting"];

/// Whom to ask.
#[derive(Clone)]
pub struct Sources {
    /// Replicas and breakers.
    pub fleet: Fleet,
    /// Policies and rollouts.
    pub hub: Hub,
    /// Audit log, disk, alarms.
    pub store: StoreHandle,
    /// Certificate, backups.
    pub condition: Condition,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Sources {
    /// Looks at everything. What can't be learnt at present keeps its last value; that the store has failed is an alarm.
    pub(super) async fn look(&self) {
        if let Ok(view) = self.fleet.view().await {
            instances(view.instances.values());
            breakers(view.breakers.values());
            gauge!("fusebox_control_overrides").set(view.overrides.len() as f64);
            gauge!("fusebox_control_term").set(view.term as f64);
        }
        let present = self.hub.current();
        gauge!("fusebox_control_revision").set(present.revision.0 as f64);
        gauge!("fusebox_control_policies").set(present.policies.len() as f64);
        for state in ROLLOUTS {
            let of = present.rollouts.iter().filter(|staged| staged.rollout.standing.state.name() == state);
            gauge!("fusebox_control_rollouts", "state" => state).set(of.count() as f64);
        }
        let alarms = self.store.alarms();
        for kind in [AlarmKind::StoreFull, AlarmKind::StoreCorrupt] {
            let on = alarms.iter().any(|alarm| alarm.kind == kind);
            gauge!("fusebox_control_alarm", "kind" => kind.name()).set(f64::from(u8::from(on)));
        }
        gauge!("fusebox_control_alarm", "kind" => "store_regressed")
            .set(f64::from(u8::from(present.regressed().is_some())));
        if let Ok(page) = self.store.audit(AuditFilter { limit: 1, ..AuditFilter::default() }).await {
            gauge!("fusebox_control_audit_last_id").set(page.chain.last.id as f64);
        }
        if let Ok(Some(room)) = self.store.room().await {
            gauge!("fusebox_control_disk_free_bytes").set(room.free as f64);
            gauge!("fusebox_control_database_bytes").set(room.used as f64);
        }
        self.condition();
    }

    fn condition(&self) {
        let Known { tls, backups, checked } = self.condition.known();
        if let Some(tls) = tls {
            gauge!("fusebox_control_certificate_expiry_timestamp_seconds").set(seconds(tls.expires()));
        }
        if let Some(BackupsKnown { every: _, newest, failing }) = backups {
            let age = newest.map_or(f64::INFINITY, |time| time.elapsed().unwrap_or_default().as_secs_f64());
            gauge!("fusebox_control_backup_age_seconds").set(age);
            gauge!("fusebox_control_alarm", "kind" => "backup_failing").set(f64::from(u8::from(failing.is_some())));
        }
        if let Some(checked) = checked {
            gauge!("fusebox_control_store_findings").set(checked.findings as f64);
            gauge!("fusebox_control_store_checked_timestamp_seconds").set(seconds(checked.at));
        }
    }
}

fn instances<'a>(all: impl Iterator<Item = &'a v1::Instance>) {
    let mut counts: BTreeMap<&str, u32> = INSTANCES.into_iter().map(|state| (state, 0)).collect();
    for one in all {
        let state = if !one.rejected.is_empty() {
            "rejecting"
        } else if one.applied_revision == one.wanted_revision {
            "current"
        } else {
            "behind"
        };
        *counts.entry(state).or_default() += 1;
    }
    for (state, count) in counts {
        gauge!("fusebox_control_instances", "state" => state.to_owned()).set(f64::from(count));
    }
}

fn breakers<'a>(all: impl Iterator<Item = &'a v1::Breaker>) {
    let mut counts = BTreeMap::new();
    for breaker in all {
        *counts.entry((breaker.mode.as_str(), breaker.fleet_state())).or_insert(0_u32) += 1;
    }
    for mode in CoordinationMode::ALL.map(CoordinationMode::name) {
        for state in FleetState::ALL {
            let count = counts.get(&(mode, state.into())).copied().unwrap_or_default();
            gauge!("fusebox_control_fleet_breakers", "mode" => mode, "state" => state.name()).set(f64::from(count));
        }
    }
}
