//! Inputs of rows, and comparison of their results.

use super::Gpu;
use crate::cli::bench::Failure;
use crate::cli::bench::rows::uniform;
use crate::device::cuda::{CudaError, DeviceBuffer, Element, View};
use half::bf16;

/// Numbers drawn before they repeat: a prime, so that no tile meets the same ones again soon.
const DRAWN: usize = 1_000_003;

/// What activations are stored as.
pub(super) trait Stored: Element {
    /// Its name in rows.
    const NAME: &'static str;
    /// Share of a value by which its rounding moves it.
    const ROUNDING: f64;

    fn of(value: f32) -> Self;
    fn value(self) -> f32;
}

impl Stored for f32 {
    const NAME: &'static str = "fp32";
    const ROUNDING: f64 = 0.0;

    fn of(value: f32) -> Self {
        value
    }

    fn value(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    const NAME: &'static str = "bf16";
    const ROUNDING: f64 = 1.0 / 256.0;

    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

/// Random numbers in [-1, 1) as they are stored.
pub(super) fn random<E: Stored>(seed: u64, len: usize) -> Vec<E> {
    let drawn: Vec<E> = uniform(seed, len.min(DRAWN)).into_iter().map(E::of).collect();
    drawn.iter().copied().cycle().take(len).collect()
}

pub(super) fn values<E: Stored>(stored: &[E]) -> Vec<f32> {
    stored.iter().map(|&x| x.value()).collect()
}

impl Gpu {
    pub(super) fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> Result<DeviceBuffer<T>, CudaError> {
        self.device.upload(values)
    }

    pub(super) fn zeros<T: bytemuck::Pod>(&self, len: usize) -> Result<DeviceBuffer<T>, CudaError> {
        self.device.zeros(len, "a benchmark")
    }

    /// For a result: whatever the kernel does not write stays NaN.
    pub(super) fn poisoned<E: Stored>(&self, len: usize) -> Result<DeviceBuffer<E>, CudaError> {
        self.upload(&vec![E::of(f32::NAN); len])
    }

    pub(super) fn values<E: Stored>(&self, view: View<'_, E>) -> Result<Vec<f32>, CudaError> {
        Ok(values(&self.device.download(view)?))
    }

    /// Fails unless every element of the result is close to what the CPU computed, within its rounding and `slack` of the
    /// largest.
    pub(super) fn check<E: Stored>(
        &self,
        found: View<'_, E>,
        expected: &[f32],
        slack: f64,
    ) -> Result<(), Failure> {
        let found = self.values(found)?;
        let largest = expected.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        let close = |found: f32, expected: f32| {
            let (found, expected) = (f64::from(found), f64::from(expected));
            (found - expected).abs() <= E::ROUNDING * expected.abs() + slack * f64::from(largest)
        };
        if found.len() != expected.len() {
            return Err(format!("{} results, expected {}", found.len(), expected.len()).into());
        }
        match (0..found.len()).find(|&i| !close(found[i], expected[i])) {
            None => Ok(()),
            Some(i) => Err(wrong(i, found[i].into(), expected[i].into())),
        }
    }
}

/// A result that is not what it should be.
pub(super) fn wrong(index: usize, found: f64, expected: f64) -> Failure {
    format!("wrong result: [{index}] is {found:e}, expected {expected:e}").into()
}
