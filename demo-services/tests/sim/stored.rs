//! What the control plane has stored after each of its writes, as far as replicas are sent it; and what each replica is to have of that.
//!
//! Who is selected by a rollout is said here once more, but for the hash behind a percentage, whose numbers `rollouts::select` holds to.

use std::{collections::BTreeMap, fmt};

use fusebox_control_plane::{
    fleet::Identity,
    rollouts::{
        select,
        spec::{Selector, Stage},
    },
    store::{Loaded, StoredRollout},
};
use fusebox_policy::{
    CallerName, InstanceId, Namespace, Zone,
    fleet::{evidence::MemberId, term::SeenTerm},
};

use crate::replica::Replica;

/// Everything that is stored as of one revision.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) revision: u64,
    /// Resource name of each policy -> number of what is in force.
    pub(crate) in_force: BTreeMap<String, u64>,
    /// Rollouts in progress, by the resource names of their policies.
    pub(crate) rollouts: BTreeMap<String, StoredRollout>,
    /// The rollout that this write began, moved or ended, as it is now.
    pub(crate) stepped: Option<StoredRollout>,
}

impl Stored {
    pub(crate) fn of(loaded: &Loaded, stepped: Option<&StoredRollout>) -> Self {
        let Loaded { revision, seen: _, policies, rollouts } = loaded;
        Self {
            revision: revision.0,
            in_force: policies.iter().map(|own| (own.policy.resource_name(), own.policy.revision.0)).collect(),
            rollouts: rollouts.iter().map(|own| (own.rollout.policy_name(), own.rollout.clone())).collect(),
            stepped: stepped.cloned(),
        }
    }

    /// Whether another look at the store found the same.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.revision == other.revision && self.in_force == other.in_force && self.rollouts == other.rollouts
    }

    /// Number of the definition of a policy that a replica is to have; `None` if it is to have none.
    pub(crate) fn given(&self, policy: &str, replica: &Replica) -> Option<u64> {
        match self.rollouts.get(policy) {
            Some(rollout) if is_selected(rollout, replica) => Some(rollout.candidate.0),
            _ => self.in_force.get(policy).copied(),
        }
    }

    /// All that a replica is to have.
    pub(crate) fn all_given(&self, replica: &Replica) -> BTreeMap<String, u64> {
        let names = self.in_force.keys().chain(self.rollouts.keys());
        names.filter_map(|name| Some((name.clone(), self.given(name, replica)?))).collect()
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, in_force, rollouts, stepped } = self;
        write!(f, "revision {revision}, ")?;
        match in_force.len() {
            1..=3 => write!(f, "in force {in_force:?}")?,
            policies => write!(f, "{policies} policies in force")?,
        }
        let over = stepped.iter().filter(|own| !own.standing.state.in_progress());
        for rollout in rollouts.values().chain(over) {
            let StoredRollout { candidate, standing, .. } = rollout;
            let (stage, state) = (standing.stage + 1, standing.state.name());
            write!(f, "; rollout of {candidate} {state} at stage {stage}: {}", standing.reason)?;
        }
        Ok(())
    }
}

/// Whether a rollout in progress gives its candidate to a replica.
pub(crate) fn is_selected(rollout: &StoredRollout, replica: &Replica) -> bool {
    let begun = rollout.spec.stages.iter().take(rollout.standing.stage + 1);
    begun.into_iter().any(|stage| match &stage.selector {
        Selector::Instances(names) => names.iter().any(|name| name.as_str() == replica.name),
        Selector::Zone(zone) => replica.zone == Some(zone.as_str()),
        // Replicas of the simulation have none.
        Selector::Labels(labels) => labels.is_empty(),
        Selector::Percent(_) => in_share(rollout, stage, replica),
    })
}

fn in_share(rollout: &StoredRollout, stage: &Stage, replica: &Replica) -> bool {
    let identity = Identity {
        namespace: Namespace::default_namespace(),
        caller: CallerName::try_new("service-a").expect("a service's name"),
        member: MemberId { instance: InstanceId::try_new(replica.name).expect("a replica's name"), incarnation: 1 },
        zone: replica.zone.map(|zone| Zone::try_new(zone).expect("a zone's name")),
        labels: BTreeMap::new(),
        sdk_version: String::new(),
        policy_source: String::new(),
        seen: SeenTerm::default(),
        ignores_fleet: false,
        knows_disabled: true,
    };
    select::selects(rollout.candidate.0, std::slice::from_ref(stage), &identity)
}
