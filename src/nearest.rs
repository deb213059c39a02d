//! A mistyped word -> the known word that was probably meant.

/// The candidate with the fewest edits from `word`, if that is at most a third of the longer word (at least 1): close
/// enough to be a slip. The first of equally close candidates wins.
///
/// # Example
/// ```
/// use scadles::train::config::nearest;
/// assert_eq!(nearest("densty", ["delta", "density"]), Some("density"));
/// assert_eq!(nearest("colour", ["delta", "density"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let simple = |text: &str| text.to_lowercase().replace('_', "-");
    let word = simple(word);
    // Longer words are not slips, and their distance would take quadratic time.
    if word.chars().count() > 64 {
        return None;
    }
    let distance = |candidate: &str| edits(&word, &simple(candidate));
    let limit = |candidate: &str| (word.chars().count().max(candidate.chars().count()) / 3).max(1);
    let best = candidates.into_iter().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= limit(best)).then_some(best)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits_and_swaps() {
        assert_eq!([edits("", "abc"), edits("kitten", "sitting"), edits("lr", "rl")], [3, 3, 1]);
    }

    #[test]
    fn underscores_and_case_are_no_difference() {
        assert_eq!(nearest("MAX_TIME_S", ["max-time-s", "steps"]), Some("max-time-s"));
        assert_eq!(nearest(&"x".repeat(100_000), ["steps"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
