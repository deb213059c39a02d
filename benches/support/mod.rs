//! What the benches share: seeded inputs and a check that runs before the clock does.

use scadles::rng::{Philox, Stream};

/// Numbers in [-1, 1).
pub fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = Philox::new(seed, Stream::Images, 0);
    (0..len).map(|_| 2.0 * rng.uniform_f32() - 1.0).collect()
}

/// Inner product in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Panics unless the two numbers agree to 1e-5 of `scale`; NaN does not.
pub fn assert_agree(what: &str, a: f64, b: f64, scale: f64) {
    assert!((a - b).abs() <= 1e-5 * scale, "{what}: {a} and {b} differ by more than 1e-5 of {scale}");
}
