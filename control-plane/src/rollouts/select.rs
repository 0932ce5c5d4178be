//! Who has the candidate: a pure function of the rollout and the replica.
//!
//! Nothing is remembered about single replicas, so a restart of the server or of a replica changes nothing, and one that joins in the
//! middle is where it belongs at once. A stage selects everybody whom an earlier one does, so that promotion never takes the candidate
//! from a replica.

use sha2::{Digest, Sha256};

use super::spec::{Selector, Stage};
use crate::fleet::Identity;

/// Whether a replica has the candidate of the rollout with this number once these stages have begun.
#[must_use]
pub fn selects(rollout: u64, begun: &[Stage], replica: &Identity) -> bool {
    begun.iter().any(|stage| match &stage.selector {
        Selector::Instances(names) => names.contains(&replica.member.instance),
        Selector::Zone(zone) => replica.zone.as_ref() == Some(zone),
        Selector::Labels(labels) => labels.iter().all(|(key, value)| replica.labels.get(key) == Some(value)),
        Selector::Percent(percent) => {
            share(rollout, replica.caller.as_str(), replica.member.instance.as_str()) < *percent
        }
    })
}

/// Where a replica stands in a rollout, from 0 to 99. It stands elsewhere in the next one, so that not the same replicas try everything
/// first.
fn share(rollout: u64, service: &str, instance: &str) -> u32 {
    // Names never hold a zero byte: no two pairs of names look alike.
    let digest = Sha256::new()
        .chain_update(rollout.to_be_bytes())
        .chain_update(service)
        .chain_update([0])
        .chain_update(instance)
        .finalize();
    let number = digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    u32::try_from((u128::from(number) * 100) >> 64).unwrap_or(99)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fusebox_policy::{InstanceId, Zone};
    use proptest::prelude::*;

    use super::*;
    use crate::rollouts::testing::replica;

    fn stage(selector: Selector) -> Stage {
        Stage { selector, bake: Duration::ZERO }
    }

    #[test]
    fn names_zones_and_labels_select_who_has_them() {
        let named = stage(Selector::Instances([InstanceId::try_new("a-1").unwrap()].into()));
        let zone = stage(Selector::Zone(Zone::try_new("z2").unwrap()));
        let labels = stage(Selector::Labels([("tier".to_owned(), "canary".to_owned())].into()));
        let (first, mut second) = (replica("a-1", Some("z1")), replica("a-2", Some("z2")));
        assert!(selects(7, std::slice::from_ref(&named), &first) && !selects(7, std::slice::from_ref(&named), &second));
        assert!(selects(7, std::slice::from_ref(&zone), &second) && !selects(7, &[zone], &first));
        assert!(!selects(7, std::slice::from_ref(&labels), &second));
        second.labels.insert("tier".to_owned(), "canary".to_owned());
        assert!(selects(7, &[named.clone(), labels], &second), "a later stage adds to the earlier ones");
        assert!(!selects(7, &[named], &replica("a-3", None)));
    }

    #[test]
    fn where_a_replica_stands_never_changes() {
        // These numbers are what running rollouts go by: another hash would move replicas in the middle of one.
        let stands: Vec<u32> = ["a-1", "a-2", "a-3", "a-4"].iter().map(|name| share(43, "service-a", name)).collect();
        assert_eq!(stands, STANDS);
    }

    const STANDS: [u32; 4] = [88, 61, 29, 68];

    #[test]
    fn a_percentage_is_about_that_part_of_the_fleet_and_another_one_in_the_next_rollout() {
        let selected = |rollout, percent| -> Vec<usize> {
            let stages = [stage(Selector::Percent(percent))];
            (0..2000).filter(|number| selects(rollout, &stages, &replica(&format!("a-{number}"), None))).collect()
        };
        let ten = selected(43, 10);
        assert!((140..=260).contains(&ten.len()), "{}", ten.len());
        let both = selected(44, 10).iter().filter(|number| ten.contains(number)).count();
        assert!(both < 60, "{both} of {} again", ten.len());
    }

    proptest! {
        #[test]
        fn a_larger_percentage_keeps_everybody_of_a_smaller_one(
            rollout: u64, name in "[a-z0-9-]{1,20}", small in 1_u32..99, more in 1_u32..99,
        ) {
            let large = (small + more).min(99);
            let one = replica(&name, None);
            let first = selects(rollout, &[stage(Selector::Percent(small))], &one);
            let second = selects(rollout, &[stage(Selector::Percent(large))], &one);
            prop_assert!(!first || second);
        }

        #[test]
        fn promotion_takes_the_candidate_from_nobody(rollout: u64, name in "[a-c]-[0-9]", zone in "z[12]", begun in 1_usize..4) {
            let stages = [
                stage(Selector::Instances([InstanceId::try_new("a-1").unwrap()].into())),
                stage(Selector::Zone(Zone::try_new("z1").unwrap())),
                stage(Selector::Percent(10)),
                stage(Selector::Percent(50)),
            ];
            let one = replica(&name, Some(&zone));
            prop_assert!(!selects(rollout, &stages[..begun], &one) || selects(rollout, &stages[..=begun], &one));
        }
    }
}
