//! `kernels/norm.cu` against its definition in f64.

use crate::support::{Vector, device_or_skip, normal};
use scadles::device::cuda::CudaDevice;
use scadles::ops::norm::cuda;

/// Nothing, around a warp, a block, the loads of a thread and a tile (16384); several hundred tiles.
const LENGTHS: [usize; 13] =
    [0, 1, 31, 511, 512, 513, 4095, 4097, 16_383, 16_384, 16_385, 50_001, 10_000_019];

fn sum_of_squares(device: &CudaDevice, values: &[f32]) -> f64 {
    let x = Vector::new(device, values);
    let mut out = Vector::new(device, &[f64::NAN]);
    let mut scratch = Vector::new(device, &vec![f64::NAN; cuda::scratch_len(values.len())]);
    cuda::sum_of_squares(device, x.view(), out.view_mut(), scratch.view_mut()).unwrap();
    scratch.read();
    out.read()[0]
}

#[test]
fn squares_are_summed_in_f64() {
    let Some(device) = device_or_skip("squares_are_summed_in_f64") else { return };
    for len in LENGTHS {
        let mut x = normal(len.min(100_003), 1).repeat(len.div_ceil(100_003).max(1));
        x.truncate(len);
        // Squares beyond what f32 holds, and below.
        x.iter_mut().step_by(1001).for_each(|x| *x *= 1e25);
        x.iter_mut().skip(1).step_by(1001).for_each(|x| *x *= 1e-30);
        let expected: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let found = sum_of_squares(&device, &x);
        assert!((found - expected).abs() <= 1e-12 * expected, "{len} elements: {found:e}, not {expected:e}");
        assert_eq!(sum_of_squares(&device, &x).to_bits(), found.to_bits(), "{len} elements, once more");
    }
    let whole: Vec<f32> = (0..40_000).map(|i| (i % 9) as f32).collect();
    let expected: f64 = whole.iter().map(|x| f64::from(x * x)).sum();
    assert_eq!(sum_of_squares(&device, &whole), expected);
}

#[test]
fn what_is_not_finite_shows() {
    let Some(device) = device_or_skip("what_is_not_finite_shows") else { return };
    for len in [1, 513, 20_000] {
        for at in [0, len / 2, len - 1] {
            let mut x = normal(len, 2);
            x[at] = f32::NEG_INFINITY;
            assert_eq!(sum_of_squares(&device, &x), f64::INFINITY);
            x[at] = f32::NAN;
            assert!(sum_of_squares(&device, &x).is_nan());
        }
    }
}

#[test]
fn norm_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("norm_refuses_what_it_cannot_do") else { return };
    let x = Vector::new(&device, &vec![1.0; 16_385]);
    let (mut out, mut scratch) = (Vector::new(&device, &[2.0f64; 2]), Vector::new(&device, &[0.0f64; 1]));
    let error = cuda::sum_of_squares(&device, x.view(), out.view_mut(), scratch.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "kernel norm_tiles_f32: out has 2 elements, expected 1");
    let one = out.view_mut().split_at_mut(1).0;
    let error = cuda::sum_of_squares(&device, x.view(), one, scratch.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "kernel norm_tiles_f32: scratch has 1 elements, expected 2");
    assert_eq!(out.read(), [2.0; 2]);
}
