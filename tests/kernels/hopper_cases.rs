//! What the tests of the `conv2d_*_wgmma` kernels share: shapes, tensors with garbage beyond the batch, comparison.

use crate::conv2d_reference::{Case, Sums};
use crate::emulator::EMULATED;
use crate::support::{Vector, device_or_skip, normal};
use half::bf16;
use scadles::device::cuda::{Batch, CudaDevice};
use scadles::ops::conv2d::cuda::{Algorithm, Pass, Tile, algorithm};
use scadles::shape::Conv2dShape;
use std::env;

/// `[c, h, w, k, r, s, stride, pad, dilation], bucket, count`
const fn case(shape: [usize; 9], bucket: usize, count: usize) -> Case {
    let [c, h, w, k, r, s, stride, pad, dilation] = shape;
    Case { shape: Conv2dShape { c, h, w, k, r, s, stride, pad, dilation }, bucket, count }
}

/// Channels below, at and above a panel of 64 and around the widths of tiles; images that end inside tiles; extent 1;
/// rectangles; each of stride, padding and dilation, and all of them.
pub const CASES: [Case; 18] = [
    case([64, 6, 5, 64, 3, 3, 1, 1, 1], 3, 3),
    case([8, 1, 1, 8, 1, 1, 1, 0, 1], 1, 1),
    case([8, 7, 7, 16, 3, 3, 1, 1, 1], 3, 2),
    case([16, 5, 9, 24, 5, 5, 1, 2, 1], 2, 2),
    case([24, 9, 5, 72, 3, 1, 1, 0, 1], 3, 1),
    case([72, 6, 7, 136, 1, 3, 1, 1, 1], 4, 3),
    case([128, 8, 8, 200, 1, 1, 1, 0, 1], 5, 4),
    case([64, 11, 13, 40, 3, 3, 1, 2, 2], 2, 2),
    case([64, 10, 10, 264, 1, 1, 1, 0, 1], 3, 3),
    case([8, 9, 9, 8, 7, 7, 1, 3, 1], 5, 5),
    // Padding beyond what the filter needs.
    case([16, 4, 4, 32, 1, 1, 1, 1, 1], 3, 2),
    case([64, 16, 16, 64, 3, 3, 1, 1, 1], 2, 0),
    case([8, 17, 3, 8, 2, 2, 1, 0, 1], 7, 6),
    // Strides.
    case([64, 9, 8, 128, 3, 3, 2, 1, 1], 4, 3),
    case([16, 8, 9, 72, 1, 1, 2, 0, 1], 5, 4),
    case([8, 23, 21, 64, 7, 7, 2, 3, 1], 2, 2),
    case([24, 12, 14, 56, 3, 2, 3, 2, 2], 3, 2),
    case([72, 5, 6, 16, 5, 3, 2, 2, 1], 4, 2),
];

/// The device, if it has the kernels that only Hopper has.
pub fn hopper_or_skip(test: &str) -> Option<CudaDevice> {
    let device = device_or_skip(test)?;
    if device.has_kernel("conv2d_wgrad_wgmma_sum_f32") {
        return Some(device);
    }
    assert!(env::var_os(EMULATED).is_none(), "the host driver has every kernel");
    println!("skipped: {test} ({} is no Hopper)", device.name());
    None
}

/// Every tile of a pass.
pub fn algorithms(pass: Pass) -> impl Iterator<Item = Algorithm> {
    Tile::wgmma(pass).map(|tile| Algorithm { tile, splits: 1 })
}

/// Whether a large layer takes these kernels by itself.
pub fn assert_chosen(device: &CudaDevice, pass: Pass) {
    let large = Conv2dShape { c: 256, h: 56, w: 56, k: 256, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };
    let chosen = algorithm::<bf16>(device, &large, pass, 64);
    assert!(matches!(chosen.tile, Tile::Wgmma { .. }), "{pass:?}: {chosen:?}");
    // Three channels cannot be described to the copy engine, and f32 is not theirs.
    let chosen = algorithm::<bf16>(device, &Conv2dShape { c: 3, ..large }, pass, 64);
    assert!(!matches!(chosen.tile, Tile::Wgmma { .. }), "{pass:?}: {chosen:?}");
    let chosen = algorithm::<f32>(device, &large, pass, 64);
    assert!(!matches!(chosen.tile, Tile::Wgmma { .. }), "{pass:?}: {chosen:?}");
}

/// Normally distributed numbers that bf16 has.
pub fn values(len: usize, index: u64) -> Vec<f32> {
    normal(len, index).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect()
}

/// Images on the device: NaN beyond those that are there.
pub fn images<'d>(device: &'d CudaDevice, values: &[f32], bucket_len: usize) -> Vector<'d, bf16> {
    let mut all: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
    all.resize(bucket_len, bf16::NAN);
    Vector::aligned(device, &all)
}

/// The number of images, on the device.
pub fn count<'d>(device: &'d CudaDevice, case: &Case) -> Vector<'d, i32> {
    Vector::new(device, &[case.count as i32])
}

pub fn batch<'a>(case: &Case, count: &'a Vector<'_, i32>) -> Batch<'a> {
    Batch { bucket: case.bucket, count: count.view() }
}

/// Fails unless each element is the expected sum: half a unit of bf16's last place where `rounded`, and f32's rounding of
/// each of at most 2^12 terms, some of it truncation: 2^-22 of each term's magnitude and 2^4 for the order of adding.
#[track_caller]
pub fn assert_sums(found: &[f32], expected: &Sums, rounded: bool, what: &str) {
    assert_eq!(found.len(), expected.values.len(), "{what}");
    let relative = if rounded { 1.0 / 256.0 } else { 0.0 };
    let mut worst = (0.0, 0);
    for (i, &found) in found.iter().enumerate() {
        let (expected, magnitude) = (expected.values[i], expected.magnitudes[i]);
        let allowed = expected.abs() * relative + magnitude * 2f64.powi(-18) + 1e-30;
        let share = (f64::from(found) - expected).abs() / allowed;
        assert!(!share.is_nan(), "{what}: [{i}] is {found}, expected {expected}");
        if share > worst.0 {
            worst = (share, i);
        }
    }
    let (share, i) = worst;
    assert!(
        share <= 1.0,
        "{what}: [{i}] is {}, expected {}: {share:.2} times what is allowed",
        found[i],
        expected.values[i]
    );
}

/// What stands in an output before a launch.
pub const BEFORE: bf16 = bf16::from_f32_const(77.5);

/// Splits an output into the images that are there, as f32, after checking that the others are as before.
#[track_caller]
pub fn written(y: &[bf16], len: usize, what: &str) -> Vec<f32> {
    assert!(y[len..].iter().all(|&y| y == BEFORE), "{what}: images beyond the batch were written");
    y[..len].iter().map(|y| y.to_f32()).collect()
}
