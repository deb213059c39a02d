//! Seeded inputs, comparison with tolerances, finite differences and thread counts.

use scadles::rng::{Philox, Stream};

/// How far a result may lie from its reference: `|got - want| <= atol + rtol * |want|`.
#[derive(Clone, Copy)]
pub struct Tolerance {
    pub atol: f64,
    pub rtol: f64,
}

/// One or two roundings of an f32 of size about 1.
pub const ROUNDING: Tolerance = Tolerance { atol: 1e-6, rtol: 1e-6 };

/// Sums of some thousand terms of size about 1, or results divided by a batch's standard deviation: some ten
/// roundings, and errors of a sum that grow with its length.
pub const SUMS: Tolerance = Tolerance { atol: 2e-5, rtol: 2e-5 };

/// Central differences of an f64 function: truncation `O(step^2)` with [`STEP`], beside the f32 errors above.
pub const DIFFERENCES: Tolerance = Tolerance { atol: 5e-5, rtol: 5e-5 };

/// Step of [`gradient`]: far below the distance of random inputs to a kink, far above f64 rounding.
pub const STEP: f64 = 1e-5;

/// Fails at the element furthest outside the tolerance, NaN first.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: Tolerance) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let share = |(got, want): (&f32, &f64)| {
        let share = (f64::from(*got) - want).abs() / (tolerance.atol + tolerance.rtol * want.abs());
        if share.is_nan() { f64::INFINITY } else { share }
    };
    let worst = got.iter().zip(want).map(share).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((i, share)) = worst {
        assert!(
            share <= 1.0,
            "{what}: element {i} is {}, not {}: {share:.2} of the tolerance",
            got[i],
            want[i]
        );
    }
}

/// Standard normal numbers, the same on each call with the same `key`.
pub fn normal(len: usize, key: u64) -> Vec<f32> {
    let mut rng = Philox::new(2024, Stream::Init, key);
    (0..len).map(|_| rng.normal() as f32).collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Gradient of `f` at `x` by central differences.
pub fn gradient(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let middle = x[i];
            x[i] = middle + STEP;
            let above = f(&x);
            x[i] = middle - STEP;
            let below = f(&x);
            x[i] = middle;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

pub fn dot(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}

/// Fails unless `run` gives the same bytes on 1, 2 and 3 threads.
#[track_caller]
pub fn assert_same_on_any_thread_count<T: PartialEq + Send>(run: impl Fn() -> T + Sync) {
    let on = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("thread pool").install(&run)
    };
    let one = on(1);
    assert!(on(2) == one, "2 threads differ from 1");
    assert!(on(3) == one, "3 threads differ from 1");
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
#[should_panic(expected = "element 1 is NaN")]
fn nan_fails_a_comparison() {
    assert_close("x", &[1.0, f32::NAN], &[1.0, 1.0], SUMS);
}

#[test]
#[should_panic(expected = "element 0")]
fn a_nan_reference_fails_a_comparison() {
    assert_close("x", &[1.0], &[f64::NAN], SUMS);
}

#[test]
#[should_panic(expected = "element 2 is 1.1")]
fn the_worst_element_is_named() {
    assert_close("x", &[1.0, 1.001, 1.1], &[1.0; 3], SUMS);
}
