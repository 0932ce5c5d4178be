//! "Did you mean": the nearest known name.

/// The known name that is nearest to what was typed, if one is near enough to be a slip.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip per three letters, two in any case: "servic-b" and "service-a" are slips of "service-b".
    let limit = (typed.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|name| (distance(typed, name), name))
        .filter(|(slips, name)| *slips <= limit && *slips < name.chars().count())
        .min()
        .map(|(_, name)| name)
}

/// How many letters must be inserted, deleted or replaced (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, letter) in left.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (index, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_none() {
        let known = ["service-b", "payments", "a"];
        assert_eq!(nearest("servce-b", known), Some("service-b"));
        assert_eq!(nearest("payment", known), Some("payments"));
        assert_eq!(nearest("inventory", known), None);
        assert_eq!(nearest("x", known), None);
    }

    #[test]
    fn distance_counts_single_letter_edits() {
        assert_eq!([distance("", "abc"), distance("kitten", "sitting"), distance("a", "a")], [3, 3, 0]);
    }
}
