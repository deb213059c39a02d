//! Tensors of a batch whose bucket has more room than images, in f32 and bf16, and comparison with a reference.

use crate::support::{Mark, Vector};
use half::bf16;
use scadles::device::cuda::{Batch, CudaDevice, Element};

/// A storage type of activations.
pub trait Float: Element + Mark {
    /// Relative error of rounding to it.
    const ROUNDING: f64;
    fn of(value: f32) -> Self;
    fn f32(self) -> f32;

    fn same(self, other: Self) -> bool {
        let (a, b) = (self.f32(), other.f32());
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }
}

impl Float for f32 {
    const ROUNDING: f64 = 1.0 / (1u64 << 24) as f64;
    fn of(value: f32) -> Self {
        value
    }
    fn f32(self) -> f32 {
        self
    }
}

impl Float for bf16 {
    const ROUNDING: f64 = 1.0 / (1u64 << 8) as f64;
    fn of(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn f32(self) -> f32 {
        self.to_f32()
    }
}

pub fn rounded<E: Float>(values: &[f32]) -> Vec<E> {
    values.iter().map(|value| E::of(*value)).collect()
}

pub fn wide<E: Float>(values: &[E]) -> Vec<f64> {
    values.iter().map(|value| f64::from(value.f32())).collect()
}

/// Room for `bucket` images, `n` of which there are.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    pub bucket: usize,
    pub n: usize,
}

/// Full, almost full, almost empty, empty; a bucket of one.
pub const IMAGES: [Images; 5] = [
    Images { bucket: 4, n: 4 },
    Images { bucket: 4, n: 3 },
    Images { bucket: 5, n: 1 },
    Images { bucket: 2, n: 0 },
    Images { bucket: 1, n: 1 },
];

impl Images {
    pub fn count(self, device: &CudaDevice) -> Vector<'_, i32> {
        Vector::new(device, &[self.n as i32])
    }

    pub fn batch<'a>(self, count: &'a Vector<'_, i32>) -> Batch<'a> {
        Batch { bucket: self.bucket, count: count.view() }
    }

    /// The images' elements, and NaN where there is none. Aligned as a network's buffers are, or not at all.
    pub fn input<'d, E: Float>(self, device: &'d CudaDevice, values: &[E], aligned: bool) -> Vector<'d, E> {
        let per_image = values.len().checked_div(self.n).unwrap_or(0);
        self.framed(device, values, self.bucket * per_image, E::of(f32::NAN), aligned)
    }

    /// `per_image` elements an image that no kernel has written yet.
    pub fn output<'d, T: Mark>(
        self,
        device: &'d CudaDevice,
        per_image: usize,
        aligned: bool,
    ) -> Vector<'d, T> {
        self.framed(device, &[], self.bucket * per_image, T::MARK, aligned)
    }

    fn framed<'d, T: Mark>(
        self,
        device: &'d CudaDevice,
        values: &[T],
        len: usize,
        beyond: T,
        aligned: bool,
    ) -> Vector<'d, T> {
        let mut all = values.to_vec();
        all.resize(len, beyond);
        if aligned { Vector::aligned(device, &all) } else { Vector::new(device, &all) }
    }

    /// The images' elements of an [`Self::output`], after checking that nothing was written beyond them.
    #[track_caller]
    pub fn read<T: Mark>(self, output: &Vector<'_, T>, per_image: usize) -> Vec<T> {
        let mut values = output.read();
        let beyond = values.split_off(self.n * per_image);
        assert!(beyond.iter().all(|value| *value == T::MARK), "written beyond {self:?}");
        values
    }

    /// The images' elements of an [`Self::input`] that a kernel changes, after checking that the others are NaN still.
    #[track_caller]
    pub fn read_changed<E: Float>(self, input: &Vector<'_, E>, per_image: usize) -> Vec<E> {
        let mut values = input.read();
        let beyond = values.split_off(self.n * per_image);
        assert!(beyond.iter().all(|value| value.f32().is_nan()), "written beyond {self:?}");
        values
    }
}

/// How far a result may lie from its reference: `|found - expected| <= atol + rtol * |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub atol: f64,
    pub rtol: f64,
}

/// Fails at the element furthest outside the tolerance, NaN first. Where the reference is NaN or infinite, so must the
/// result be.
#[track_caller]
pub fn assert_close<E: Float>(found: &[E], expected: &[f64], tolerance: Tolerance, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let share = |(found, expected): (&E, &f64)| {
        let found = f64::from(found.f32());
        if (found.is_nan() && expected.is_nan()) || found == *expected {
            return 0.0;
        }
        let share = (found - expected).abs() / (tolerance.atol + tolerance.rtol * expected.abs());
        if share.is_nan() { f64::INFINITY } else { share }
    };
    let worst = found.iter().zip(expected).map(share).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((i, share)) = worst.filter(|(_, share)| *share > 1.0) {
        let (found, expected) = (found[i], expected[i]);
        panic!("{what}: [{i}] is {found:?}, expected {expected}: {share:.2} of the tolerance");
    }
}

/// Fails unless each element has the expected bits, or is NaN where NaN is expected.
#[track_caller]
pub fn assert_bits<E: Float>(found: &[E], expected: &[E], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if let Some(i) = (0..found.len()).find(|&i| !found[i].same(expected[i])) {
        panic!("{what}: [{i}] is {:?}, expected {:?}", found[i], expected[i]);
    }
}

#[test]
#[should_panic(expected = "[1] is NaN, expected 1")]
fn nan_fails_a_comparison() {
    assert_close(&[1.0f32, f32::NAN, 2.0], &[1.0; 3], Tolerance { atol: 0.1, rtol: 0.1 }, "x");
}

#[test]
#[should_panic(expected = "[0] is 1.0, expected NaN")]
fn a_nan_reference_fails_a_comparison() {
    assert_close(&[1.0f32], &[f64::NAN], Tolerance { atol: 0.1, rtol: 0.1 }, "x");
}
