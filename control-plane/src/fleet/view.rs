//! What operators see: breakers, replicas and overrides, as of one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fusebox_policy::{
    Revision,
    fleet::{
        BreakerKey,
        evidence::Evidence,
        shared::{FleetState, MemberView},
    },
};
use fusebox_proto::{duration::to_wire, v1};

use super::{TrialView, overrides::InForce, owner::Owner, replicas::Session};

/// Everything, by resource name.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The term of this run.
    pub term: u64,
    /// Breakers.
    pub breakers: BTreeMap<String, v1::Breaker>,
    /// Connected replicas, by [`instance_key`].
    pub instances: BTreeMap<String, v1::Instance>,
    /// Overrides in force, by number.
    pub overrides: Vec<v1::Override>,
    /// Rollouts in progress as their replicas show them, by their candidates.
    pub trials: BTreeMap<Revision, TrialView>,
}

/// What sets replicas apart whose names are the same: those of different namespaces know nothing of each other.
#[must_use]
pub fn instance_key(name: &str, namespace: &str) -> String {
    // No name holds an @.
    format!("{name}@{namespace}")
}

impl View {
    /// The connected replicas of a resource name: of each namespace one at most.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a v1::Instance> {
        let from = instance_key(name, "");
        self.instances.range(from..).map(|(_, instance)| instance).take_while(move |instance| instance.name == name)
    }
}

impl Owner {
    pub(super) fn view(&self) -> View {
        let breakers = self.coordinator.shown_keys().map(|key| {
            let breaker = self.breaker_view(key);
            (breaker.name.clone(), breaker)
        });
        let instances = self.sessions.values().map(|session| {
            let instance = self.instance_view(session);
            (instance_key(&instance.name, &instance.namespace), instance)
        });
        View {
            term: self.coordinator.term(),
            breakers: breakers.collect(),
            instances: instances.collect(),
            overrides: self.overrides.iter().map(|own| self.override_view(own)).collect(),
            trials: self.trial_views(),
        }
    }

    pub(super) fn breaker_view(&self, key: &BreakerKey) -> v1::Breaker {
        let now = self.now();
        let (Some(breaker), Some(view)) = (self.coordinator.breaker(key), self.coordinator.view(key, now)) else {
            return self.gone_view(key);
        };
        let forced = self.overrides.on(key);
        let newest = self.coordinator.newest(key);
        let fence = newest.map(|newest| newest.fence).unwrap_or_default();
        let reason = match (forced, self.held_back(key)) {
            (Some(own), _) => own.stored.reason.clone(),
            (None, Some(held)) => held,
            (None, None) if view.state == FleetState::Released && view.evidence.insufficient_witnesses => {
                "INSUFFICIENT_WITNESSES: each replica is on its own".to_owned()
            }
            (None, None) => view.reason,
        };
        let instances = view.members.iter().map(|member| {
            let session = self.session_of(key, &member.member);
            let acknowledged = match (forced, session) {
                (_, None) => false,
                (Some(own), Some(session)) => self.overrides.is_acknowledged(own, session),
                (None, Some(session)) => {
                    newest.is_none() || session.acknowledged.get(key).is_some_and(|held| *held >= fence)
                }
            };
            let unknown = |(own, session): (&InForce, &Session)| !own.is_known_to(&session.identity);
            let unsupported = forced.zip(session).is_some_and(unknown);
            v1::InstanceBreaker { acknowledged, unsupported, ..instance_breaker(member) }
        });
        v1::Breaker {
            name: name(key),
            key: Some(key.into()),
            fleet_state: v1::FleetState::from(self.effective_state(key)).into(),
            reason,
            evidence: Some(evidence(&view.evidence)),
            instances: instances.collect(),
            r#override: forced.map(|own| self.override_view(own)),
            term: fence.term,
            rev: fence.rev,
            since: Some(to_wire(view.since)),
            half_open_in: view.half_open_in.map(to_wire),
            probes_issued: view.probes_issued,
            probes_succeeded: view.probes_succeeded,
            mode: breaker.settings().coordination.mode().name().to_owned(),
            shadow: breaker.is_shadow(),
        }
    }

    /// A breaker that no connected replica holds.
    fn gone_view(&self, key: &BreakerKey) -> v1::Breaker {
        let forced = self.overrides.on(key);
        v1::Breaker {
            name: name(key),
            key: Some(key.into()),
            fleet_state: v1::FleetState::from(self.effective_state(key)).into(),
            reason: forced.map_or("no connected replica holds it", |own| &own.stored.reason).to_owned(),
            r#override: forced.map(|own| self.override_view(own)),
            ..v1::Breaker::default()
        }
    }

    /// What keeps a breaker from opening at present, in words.
    fn held_back(&self, key: &BreakerKey) -> Option<String> {
        /// Reports that ask for an opening come every second; when they have stopped for so long, nothing is held back any more.
        const LATELY: Duration = Duration::from_secs(3);
        let last = self.coordinator.explain(key).last()?;
        let guard = last.guard.filter(|_| self.now().since(last.until) < LATELY)?;
        Some(format!("held back by {guard}: {}", last.detail))
    }

    fn instance_view(&self, session: &Session) -> v1::Instance {
        let now = self.now();
        let identity = &session.identity;
        v1::Instance {
            name: identity.name(),
            service: identity.caller.to_string(),
            instance: identity.member.instance.to_string(),
            incarnation: identity.member.incarnation,
            zone: identity.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
            labels: identity.labels.clone(),
            sdk_version: identity.sdk_version.clone(),
            applied_revision: session.applied.0,
            wanted_revision: self.snapshot.revision.0,
            rejected: session.rejected.clone(),
            connected_for: Some(to_wire(now.since(session.connected))),
            last_seen: Some(to_wire(now.since(session.heard))),
            namespace: identity.namespace.to_string(),
            policy_source: identity.policy_source.clone(),
            ignores_fleet: identity.ignores_fleet,
            limits: self.sharing.views(identity),
            unshared_breakers: session.unshared.count(),
        }
    }
}

/// The resource name of a breaker.
pub(super) fn name(key: &BreakerKey) -> String {
    format!("breakers/{key}")
}

fn instance_breaker(member: &MemberView) -> v1::InstanceBreaker {
    v1::InstanceBreaker {
        instance: member.member.instance.to_string(),
        zone: member.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        local_state: v1::LocalState::from(member.report.local).into(),
        window_calls: member.report.calls,
        window_failures: member.report.failures,
        rejected: member.report.rejected,
        eligible: member.eligible,
        vetoed: member.report.vetoed,
        disabled: member.report.disabled,
        ..v1::InstanceBreaker::default()
    }
}

pub(super) fn evidence(evidence: &Evidence) -> v1::Evidence {
    let causes = evidence.causes;
    let named = [
        ("connect_error", causes.connect_error),
        ("timeout", causes.timeout),
        ("target_error", causes.target_error),
        ("target_overload", causes.target_overload),
        ("local_error", causes.local_error),
    ];
    let witnesses: BTreeSet<String> = evidence.witness_instances.iter().map(ToString::to_string).collect();
    v1::Evidence {
        eligible: evidence.eligible,
        open_voters: evidence.open_voters,
        witnesses: evidence.witnesses,
        pooled_calls: evidence.pooled_calls,
        pooled_failures: evidence.pooled_failures,
        contributors: evidence.contributors,
        witness_instances: witnesses.into_iter().collect(),
        insufficient_witnesses: evidence.insufficient_witnesses,
        causes: named.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
    }
}
