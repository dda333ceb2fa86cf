//! The name that somebody has meant who has written another.

/// The nearest of the `known` names, if one is at most so many insertions, deletions and replacements away.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>, most: usize) -> Option<&'n str> {
    let distances = known.map(|known| (distance(name, known), known));
    distances.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// How many insertions, deletions and replacements make one of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    // One line of the table at a time: what the text so far costs to become each beginning of the other.
    let mut costs: Vec<usize> = (0..=to.chars().count()).collect();
    for (row, left) in from.chars().enumerate() {
        let mut diagonal = costs[0];
        costs[0] = row + 1;
        for (column, right) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = costs[column + 1];
            costs[column + 1] = replaced.min(diagonal + 1).min(costs[column] + 1);
        }
    }
    costs.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_small_and_another_word_is_far() {
        for (from, to, steps) in [("shards", "shards", 0), ("shard", "shards", 1), ("relay_ports", "relay-ports", 1)] {
            assert_eq!(distance(from, to), steps, "{from} {to}");
        }
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("kitten", "sitting")), (3, 3, 3));
        assert_eq!(nearest("lissten", ["user", "listen"].into_iter(), 2), Some("listen"));
        assert_eq!(nearest("colour", ["user", "listen"].into_iter(), 2), None);
    }
}
