//! Batch sizes that share recorded launches.

/// Smallest step between buckets.
const STEP: usize = 8;

/// The bucket of a batch of `n` images: the next multiple of 8, above 128 images of an eighth of the power of two below; at
/// most `max`. So no bucket is more than an eighth larger than it needs to be, or 7 images, and a run has few of them.
pub fn bucket(n: usize, max: usize) -> usize {
    let step = match n.checked_ilog2() {
        Some(log) => ((1usize << log) / 8).max(STEP),
        None => STEP,
    };
    n.max(1).next_multiple_of(step).min(max.max(1))
}

/// Every bucket of batches of up to `max` images.
pub(super) fn buckets(max: usize) -> Vec<usize> {
    let mut all = vec![bucket(1, max)];
    while let Some(&last) = all.last().filter(|&&last| last < max) {
        all.push(bucket(last + 1, max));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_batch_closely() {
        for max in [1, 7, 8, 82, 250, 1024] {
            let all = buckets(max);
            assert_eq!(all.last(), Some(&max));
            for n in 0..=max {
                let bucket = bucket(n, max);
                assert!(all.contains(&bucket) && bucket >= n.max(1) && bucket <= max);
                assert!(bucket - n <= 8 || 8 * (bucket - n) <= n, "{n} in {bucket}");
            }
        }
        assert!(buckets(1024).len() <= 48);
    }
}
