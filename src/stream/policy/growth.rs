//! The paper's formulas for how many samples wait under persistence.

/// Samples waiting after `steps` steps (paper eq. 2): `(t S - b) T + S`, for a stream of `rate` samples/s, steps of
/// `step_s` seconds, each taking `batch` samples, after a first second that only fills the buffer.
///
/// None if `t S < b`: such a stream is drained and its queue stays below one batch.
///
/// # Example
/// ```
/// # use scadles::stream::policy::queue_growth;
/// assert_eq!(queue_growth(1.5, 100.0, 64.0, 1000), Some(86.0 * 1000.0 + 100.0));
/// assert_eq!(queue_growth(0.5, 100.0, 64.0, 1000), None);
/// ```
pub fn queue_growth(step_s: f64, rate: f64, batch: f64, steps: u64) -> Option<f64> {
    let per_step = step_s * rate - batch;
    (per_step >= 0.0).then_some(per_step * steps as f64 + rate)
}

/// The limit of [`queue_growth`] for `t S >> b` (paper eq. 3): `T t S + S`. Times 3072 bytes it gives Table II.
pub fn queue_growth_fast_stream(step_s: f64, rate: f64, steps: u64) -> f64 {
    steps as f64 * step_s * rate + rate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eq_3_gives_table_ii() {
        // GB (2^30) after 10^3, 10^4, 10^5 steps as printed; 206.0 and 45.8 where the formula and the print part. The
        // smaller entries of t = 1.6 s, S = 100 are 1.024 times the formula (GB of 1000 * 2^20), then rounded.
        let table = [
            (1.2, 100.0, [0.35, 3.5, 34.33]),
            (1.2, 600.0, [2.06, 20.6, 206.0]),
            (1.6, 100.0, [0.47, 4.69, 45.8]),
            (1.6, 600.0, [2.75, 27.5, 274.83]),
        ];
        for (step_s, rate, gib) in table {
            for (steps, expected) in [1_000, 10_000, 100_000].into_iter().zip(gib) {
                let found = queue_growth_fast_stream(step_s, rate, steps) * 3072.0 / f64::from(1 << 30);
                assert!((found - expected).abs() <= 0.03 * expected, "{step_s} {rate} {steps}: {found}");
            }
        }
    }

    #[test]
    fn eq_2_approaches_eq_3_and_knows_its_range() {
        let ratio = queue_growth(1.2, 1e6, 64.0, 1000).unwrap() / queue_growth_fast_stream(1.2, 1e6, 1000);
        assert!((ratio - 1.0).abs() < 1e-4, "{ratio}");
        assert_eq!(queue_growth(0.64, 100.0, 64.0, 5), Some(100.0));
        assert_eq!(queue_growth(0.639, 100.0, 64.0, 5), None);
        assert_eq!(queue_growth(f64::NAN, 100.0, 64.0, 5), None);
    }
}
