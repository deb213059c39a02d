//! Guesses, from a sample, two magnitudes between which the smallest kept one lies.
//!
//! A right guess saves the passes over memory that a histogram would take: the scan that updates the residual then
//! also collects the few keys in doubt. A wrong guess is noticed and costs time only.

use super::scan::{Bracket, key};
use rayon::prelude::*;

/// Ranges up to this length are selected without a guess: all their keys are candidates.
pub(super) const SMALL_LEN: usize = 1 << 14;
const MIN_SAMPLES: usize = 1 << 11;
const MAX_SAMPLES: usize = 1 << 15;
const ELEMENTS_PER_SAMPLE: usize = 64;
/// Standard errors of the sampled rank on each side: misses about 1 selection in 16,000.
const STANDARD_ERRORS: f64 = 4.0;

/// What of a sample brackets the wanted magnitude: ranks from 1, from the largest; none for an end that stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    pub samples: usize,
    pub low_rank: Option<usize>,
    pub high_rank: Option<usize>,
}

/// The sample that brackets the `kept`-th largest of `len` magnitudes; none where no guess is needed.
pub(super) fn sampling(len: usize, kept: usize) -> Option<Sampling> {
    if kept == len || len <= SMALL_LEN {
        return None;
    }
    let samples = (len / ELEMENTS_PER_SAMPLE).clamp(MIN_SAMPLES, MAX_SAMPLES);
    let share = kept as f64 / len as f64;
    let rank = share * samples as f64;
    let margin = STANDARD_ERRORS * (rank * (1.0 - share)).sqrt() + 2.0;
    let low_rank = (rank + margin < samples as f64).then(|| (rank + margin) as usize + 1);
    let high_rank = (rank - margin >= 1.0).then(|| (rank - margin) as usize + 1);
    Some(Sampling { samples, low_rank, high_rank })
}

/// Bracket of the `kept`-th largest magnitude of `len` elements, read through `sample`.
pub(super) fn guess(len: usize, kept: usize, sample: impl Fn(usize) -> f32 + Sync) -> Bracket {
    if kept == len {
        return Bracket::exactly(0); // everything not zero is above it, every zero is a tie that is kept
    }
    let Some(Sampling { samples, low_rank, high_rank }) = sampling(len, kept) else {
        return Bracket::ALL;
    };
    let read = |i: usize| key(sample(position(i, len)));
    let mut keys: Vec<u32> = (0..samples).into_par_iter().with_min_len(MIN_SAMPLES).map(read).collect();
    let largest = |keys: &mut [u32], rank: usize| *keys.select_nth_unstable_by(rank - 1, |a, b| b.cmp(a)).1;
    let low = low_rank.map_or(0, |rank| largest(&mut keys, rank));
    // The first `low_rank` keys are now the largest; the other rank is among them.
    let upper = low_rank.unwrap_or(samples);
    let high = high_rank.map_or(Bracket::ALL.high, |rank| largest(&mut keys[..upper], rank));
    // A sample that is not finite must not hide numbers that are: the scan reports it.
    Bracket { low: low.min(Bracket::ALL.high), high: high.min(Bracket::ALL.high) }
}

/// The `i`-th sample position: a golden-ratio sequence, which spreads evenly and shares no period with a layout.
fn position(i: usize, len: usize) -> usize {
    let fraction = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(fraction) * len as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};

    #[test]
    fn the_bracket_holds_the_wanted_key_and_few_others() {
        let mut rng = Philox::new(1, Stream::Init, 0);
        let x: Vec<f32> = (0..300_000).map(|_| rng.normal() as f32).collect();
        let mut sorted: Vec<u32> = x.iter().map(|&x| key(x)).collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        for kept in [30, 3_000, 30_000, 150_000, 299_000] {
            let bracket = guess(x.len(), kept, |i| x[i]);
            assert!((bracket.low..=bracket.high).contains(&sorted[kept - 1]), "{kept}: {bracket:?}");
            let inside = sorted.iter().filter(|key| (bracket.low..=bracket.high).contains(key)).count();
            assert!(inside < x.len() / 10, "{kept}: {inside}");
        }
    }

    #[test]
    fn positions_stay_inside() {
        assert!((0..MAX_SAMPLES).all(|i| position(i, 17) < 17));
    }

    #[test]
    fn everything_kept_needs_no_candidates() {
        assert_eq!(guess(100_000, 100_000, |_| 1.0), Bracket::exactly(0));
    }
}
