//! Inputs, and comparison with references in f64.

use half::bf16;
use scadles::rng::{Philox, Stream};

/// Normally distributed numbers, another list for each `index`.
pub fn normal(len: usize, index: u64) -> Vec<f32> {
    let mut rng = Philox::new(17, Stream::Init, index);
    (0..len).map(|_| rng.normal() as f32).collect()
}

pub fn normal_bf16(len: usize, index: u64) -> Vec<bf16> {
    normal(len, index).into_iter().map(bf16::from_f32).collect()
}

/// `a * b` for `a` `[m, k]` and `b` `[k, n]`.
pub fn product(a: &[bf16], b: &[bf16], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let element = |i: usize| -> f64 {
        let (row, column) = (i / n, i % n);
        (0..k).map(|kk| a[row * k + kk].to_f64() * b[kk * n + column].to_f64()).sum()
    };
    (0..m * n).map(element).collect()
}

/// Products of bf16 are exact in f32; what differs is the rounding of sums, at most a few hundred of them of order 10.
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= 1e-4, "{what}: [{i}] is {found}, expected {expected}");
    }
}
