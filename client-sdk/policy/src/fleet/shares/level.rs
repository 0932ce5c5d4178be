//! Max-min fairness: nobody gets more than it wants while others get less than they want, and what nobody wants is divided equally.

/// Divides `whole` over `wants`, each at most `whole`. The parts sum to at most `whole`; rounding leaves less than one for each.
pub(super) fn level(wants: &[u32], whole: u32) -> Vec<u32> {
    let mut sorted = wants.to_vec();
    sorted.sort_unstable();
    let mut left = u64::from(whole);
    for (index, want) in sorted.iter().enumerate() {
        let rest = (sorted.len() - index) as u64;
        if u64::from(*want) * rest > left {
            // This one and all that want more get the same.
            let most = u32::try_from(left / rest).unwrap_or(whole);
            return wants.iter().map(|want| *want.min(&most)).collect();
        }
        left -= u64::from(*want);
    }
    let spare = u32::try_from(left / wants.len().max(1) as u64).unwrap_or(0);
    wants.iter().map(|want| want + spare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hungry_get_equal_parts_of_what_the_modest_leave() {
        assert_eq!(level(&[10, 90, 90], 100), [10, 45, 45]);
        assert_eq!(level(&[50, 50], 100), [50, 50]);
        assert_eq!(level(&[100, 100, 100], 100), [33, 33, 33]);
        assert_eq!(level(&[], 100), Vec::<u32>::new());
    }

    #[test]
    fn what_nobody_wants_is_room_for_bursts() {
        assert_eq!(level(&[10, 30], 100), [40, 60]);
        assert_eq!(level(&[0], 100), [100]);
    }
}
