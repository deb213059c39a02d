//! CPU passes of softmax cross-entropy.
//!
//! Role   rows in tiles over rayon; the exponential is a polynomial that the compiler vectorises
//! Cost   4 bytes a logit forward, 8 with the gradient; about 25 FLOP a logit
//! Order  tiles are halves of halves of N, so the order of the f64 sum does not depend on threads

use super::LossStats;
use crate::ops::multiversion::multiversion;

/// Logits that one task handles, roughly.
const TILE_LEN: usize = 8 * 1024;

/// Partial sums side by side in a row.
const LANES: usize = 16;

pub(super) fn forward(classes: usize, logits: &[f32], labels: &[u32]) -> LossStats {
    if labels.len() * classes <= TILE_LEN || labels.len() <= 1 {
        return tile_forward(classes, logits, labels);
    }
    let half = labels.len() / 2;
    let ((labels_a, labels_b), (logits_a, logits_b)) =
        (labels.split_at(half), logits.split_at(half * classes));
    let (a, b) =
        rayon::join(|| forward(classes, logits_a, labels_a), || forward(classes, logits_b, labels_b));
    a + b
}

pub(super) fn forward_backward(
    classes: usize,
    logits: &[f32],
    labels: &[u32],
    dlogits: &mut [f32],
    scale: f32,
) -> LossStats {
    if labels.len() * classes <= TILE_LEN || labels.len() <= 1 {
        return tile_forward_backward(classes, logits, labels, dlogits, scale);
    }
    let half = labels.len() / 2;
    let ((labels_a, labels_b), (logits_a, logits_b)) =
        (labels.split_at(half), logits.split_at(half * classes));
    let (dlogits_a, dlogits_b) = dlogits.split_at_mut(half * classes);
    let (a, b) = rayon::join(
        || forward_backward(classes, logits_a, labels_a, dlogits_a, scale),
        || forward_backward(classes, logits_b, labels_b, dlogits_b, scale),
    );
    a + b
}

multiversion! {
    fn tile_forward(classes: usize, logits: &[f32], labels: &[u32]) -> LossStats {
        let mut stats = LossStats::default();
        for (logits, &label) in logits.chunks_exact(classes.max(1)).zip(labels) {
            let max = row_max(logits);
            let sum = row_sum(logits, |logit| exp_nonpositive(logit - max));
            stats = stats + row_stats(logits, label as usize, max, sum);
        }
        stats
    }

    fn tile_forward_backward(
        classes: usize,
        logits: &[f32],
        labels: &[u32],
        dlogits: &mut [f32],
        scale: f32,
    ) -> LossStats {
        let mut stats = LossStats::default();
        let rows = logits.chunks_exact(classes.max(1)).zip(dlogits.chunks_exact_mut(classes.max(1)));
        for ((logits, dlogits), &label) in rows.zip(labels) {
            let max = row_max(logits);
            for (dlogit, logit) in dlogits.iter_mut().zip(logits) {
                *dlogit = exp_nonpositive(logit - max);
            }
            let sum = row_sum(dlogits, |exp| exp);
            let factor = (f64::from(scale) / sum) as f32;
            dlogits.iter_mut().for_each(|dlogit| *dlogit *= factor);
            dlogits[label as usize] -= scale;
            stats = stats + row_stats(logits, label as usize, max, sum);
        }
        stats
    }
}

/// Greatest logit that is not NaN.
#[inline(always)]
fn row_max(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (parts, rest) = logits.as_chunks::<LANES>();
    for part in parts {
        lanes.iter_mut().zip(part).for_each(|(lane, logit)| *lane = greater(*lane, *logit));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, logit)| *lane = greater(*lane, *logit));
    lanes.into_iter().fold(f32::NEG_INFINITY, greater)
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Sum of `term` over the row: f32 in lanes, the lanes in f64.
#[inline(always)]
fn row_sum(row: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut sums = [0.0f32; LANES];
    let (parts, rest) = row.as_chunks::<LANES>();
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += term(*value));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, value)| *sum += term(*value));
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

#[inline(always)]
fn row_stats(logits: &[f32], label: usize, max: f32, sum: f64) -> LossStats {
    let own = logits[label];
    let ranks_before = |logits: &[f32], ties: bool| -> usize {
        logits.iter().filter(|&&logit| logit > own || logit.is_nan() || (ties && logit == own)).count()
    };
    let rank = ranks_before(&logits[..label], true) + ranks_before(&logits[label + 1..], false);
    LossStats {
        loss_sum: sum.ln() - (f64::from(own) - f64::from(max)),
        top1: u64::from(rank < 1 && !own.is_nan()),
        top5: u64::from(rank < 5 && !own.is_nan()),
    }
}

/// `exp(x)` for `x <= 0`, within 2 units in the last place; below -87.3, where the result leaves the normal
/// range, 0; NaN stays NaN. The reduction `x = k ln 2 + r` and the polynomial are those of Cephes' `expf`.
#[inline(always)]
fn exp_nonpositive(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let mut polynomial = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = polynomial * r + coefficient;
    }
    let mantissa = polynomial * (r * r) + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.3 { 0.0 } else { mantissa * power }
}

#[cfg(test)]
mod tests {
    use super::exp_nonpositive;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let (got, want) = (f64::from(exp_nonpositive(x)), f64::from(x).exp());
            assert!(
                (got - want).abs() <= 2.0 * want * f64::from(f32::EPSILON),
                "exp({x}) = {got}, not {want}"
            );
        }
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-100.0), 0.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert!(exp_nonpositive(f32::NAN).is_nan());
    }
}
