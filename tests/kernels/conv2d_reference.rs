//! Shapes, numbers and tolerances of the convolution tests; the sums are those of `tests/ops/reference.rs`.

#[path = "../ops/reference.rs"]
mod sums;

pub use sums::{Sums, dgrad, fprop, wgrad};

use crate::support::{Mark, normal};
use half::bf16;
use scadles::device::cuda::Element;
use scadles::ops::conv2d::cuda::{Algorithm, Pass, Tile};
use scadles::shape::Conv2dShape;

/// What activations are stored as.
pub trait Stored: Element + Mark {
    const NAN: Self;
    fn round(x: f32) -> Self;
    fn value(self) -> f32;
}

impl Stored for f32 {
    const NAN: Self = f32::NAN;
    fn round(x: f32) -> Self {
        x
    }
    fn value(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    const NAN: Self = bf16::NAN;
    fn round(x: f32) -> Self {
        bf16::from_f32(x)
    }
    fn value(self) -> f32 {
        self.to_f32()
    }
}

/// Normally distributed numbers of the stored type; what lies beyond `len` of the `room` elements is NaN.
pub fn random<E: Stored>(len: usize, room: usize, index: u64) -> Vec<E> {
    let mut values: Vec<E> = normal(len, index).into_iter().map(E::round).collect();
    values.resize(room, E::NAN);
    values
}

pub fn values<E: Stored>(stored: &[E]) -> Vec<f32> {
    stored.iter().map(|x| x.value()).collect()
}

/// A shape, the images there is room for, and the images there are.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub shape: Conv2dShape,
    pub bucket: usize,
    pub count: usize,
}

/// Channels in and out, image, filter, then stride, padding, dilation; bucket and count.
const fn case(
    [c, k]: [usize; 2],
    [h, w]: [usize; 2],
    [r, s]: [usize; 2],
    [stride, pad, dilation]: [usize; 3],
    [bucket, count]: [usize; 2],
) -> Case {
    Case { shape: Conv2dShape { c, h, w, k, r, s, stride, pad, dilation }, bucket, count }
}

pub const CASES: [Case; 26] = [
    // Nothing fills 16 bytes: extents of 1, primes, strides and dilations over images that are not square.
    case([1, 1], [1, 1], [1, 1], [1, 0, 1], [1, 1]),
    case([3, 11], [5, 7], [3, 3], [1, 1, 1], [3, 2]),
    case([5, 13], [9, 4], [3, 3], [2, 1, 1], [2, 2]),
    case([7, 1], [7, 5], [5, 3], [3, 2, 1], [2, 2]),
    case([3, 8], [11, 9], [7, 7], [2, 3, 1], [2, 1]),
    case([3, 5], [9, 6], [3, 2], [1, 2, 2], [2, 2]),
    case([67, 66], [2, 3], [1, 1], [1, 0, 1], [12, 11]),
    case([2, 3], [10, 7], [1, 1], [4, 0, 1], [1, 1]),
    // Everything does.
    case([8, 16], [6, 5], [3, 3], [1, 1, 1], [3, 2]),
    case([16, 24], [9, 7], [3, 3], [2, 1, 1], [3, 3]),
    case([8, 8], [10, 11], [3, 3], [3, 0, 1], [2, 2]),
    case([8, 8], [9, 10], [3, 3], [1, 2, 2], [2, 1]),
    case([8, 8], [9, 10], [3, 3], [2, 3, 2], [2, 2]),
    case([8, 16], [9, 10], [3, 3], [2, 3, 3], [2, 2]),
    case([8, 8], [12, 19], [2, 4], [4, 1, 6], [1, 1]),
    case([32, 64], [5, 6], [1, 1], [2, 0, 1], [3, 3]),
    case([40, 72], [4, 4], [3, 3], [1, 1, 1], [2, 2]),
    case([8, 16], [9, 9], [7, 7], [2, 3, 1], [2, 1]),
    // One row below, at and above the tiles of 64 and 128; one vector of columns above and below those of 64 and 128.
    case([8, 56], [63, 1], [1, 1], [1, 0, 1], [1, 1]),
    case([56, 64], [1, 64], [1, 1], [1, 0, 1], [1, 1]),
    case([64, 136], [5, 13], [1, 1], [1, 0, 1], [1, 1]),
    case([136, 120], [1, 127], [1, 1], [1, 0, 1], [1, 1]),
    case([120, 128], [43, 3], [1, 1], [1, 0, 1], [1, 1]),
    // Linear layers: rows are images.
    case([64, 16], [1, 1], [1, 1], [1, 0, 1], [130, 129]),
    case([328, 10], [1, 1], [1, 1], [1, 0, 1], [9, 7]),
    // No images.
    case([8, 8], [3, 3], [3, 3], [1, 1, 1], [2, 0]),
];

/// Every tile that can load the shape, with the summed extent in one part, in several, and in more than it has steps.
pub fn algorithms<E: Stored>(shape: &Conv2dShape, pass: Pass) -> Vec<Algorithm> {
    let lanes = 16 / size_of::<E>();
    let vectors = shape.c.is_multiple_of(lanes) && (pass == Pass::Fprop || shape.k.is_multiple_of(lanes));
    let tiles = match vectors {
        true => &[Tile::T128x128, Tile::T128x64, Tile::T64x64, Tile::Gather][..],
        false => &[Tile::Gather],
    };
    let with = |splits| tiles.iter().map(move |&tile| Algorithm { tile, splits });
    with(1).chain(with(3)).chain(with(40).take(1)).collect()
}

/// Largest error of an element with the given value and sum of term magnitudes: of f32 sums in any order (2^-20 of the
/// magnitudes is 16 roundings of the largest partial sum; these tests add at most some 600 terms, whose roundings are
/// random), and of the roundings of the result to the stored type, at most half a unit in its last place each.
pub fn tolerance<E: Stored>(value: f64, magnitude: f64, roundings: f64) -> f64 {
    let rounding = if E::IS_BF16 { 2f64.powi(-8) } else { 2f64.powi(-24) };
    roundings * rounding * 1.01 * value.abs() + 2f64.powi(-20) * magnitude
}

/// Fails where `found` and `expected` are further apart than `tolerance(i)`, or anything is NaN.
#[track_caller]
pub fn assert_close(
    found: &[f32],
    expected: impl Fn(usize) -> f64,
    tolerance: impl Fn(usize) -> f64,
    what: &str,
) {
    for (i, &found) in found.iter().enumerate() {
        let (expected, tolerance) = (expected(i), tolerance(i));
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= tolerance,
            "{what}: [{i}] is {found:e}, expected {expected:e}: off by {error:e}, allowed {tolerance:e}"
        );
    }
}
