//! The device at hand, vectors on it, and comparison bit for bit.

use crate::emulator::EMULATED;
use scadles::device::cuda::{self, CudaDevice, CudaError, DeviceBuffer, Driver, View, ViewMut};
use scadles::rng::{Philox, Stream};
use std::env;

/// Around warps, blocks (256) and whole grids of the emulator (4096 threads) and of a GPU; primes; nothing; one.
pub const LENGTHS: [usize; 17] =
    [0, 1, 2, 31, 97, 255, 256, 257, 511, 512, 513, 4095, 4096, 4097, 10_007, 40_009, 1_200_007];

/// The device to test on; without one, says which test is skipped.
pub fn device_or_skip(test: &str) -> Option<CudaDevice> {
    if env::var_os(EMULATED).is_some() {
        let Driver::Present { devices, .. } = cuda::probe() else { panic!("the emulator was not found") };
        assert_eq!(devices[0].as_ref().unwrap().name, "emulator");
        println!("{test}: on the emulator");
        return Some(CudaDevice::open(0).unwrap());
    }
    match CudaDevice::open(0) {
        Ok(device) => Some(device),
        Err(CudaError::Missing(missing)) if env::var("REQUIRE_GPU").is_ok_and(|value| value == "1") => {
            panic!("{test} needs a GPU: {missing}")
        }
        Err(CudaError::Missing(missing)) => {
            println!("skipped: {test} ({missing})");
            None
        }
        Err(error) => panic!("{test}: {error}"),
    }
}

/// Elements before and after a [`Vector`], which no kernel may change: odd, so that vectors are not aligned, or a
/// multiple of what any kernel loads at once.
const MARGIN: usize = 3;
const ALIGNED_MARGIN: usize = 64;

/// A vector inside a larger allocation.
pub struct Vector<'d, T = f32> {
    device: &'d CudaDevice,
    memory: DeviceBuffer<T>,
    margin: usize,
    len: usize,
}

/// What [`Vector`] frames its elements with.
pub trait Mark: bytemuck::Pod + PartialEq + std::fmt::Debug {
    const MARK: Self;
}

impl Mark for f32 {
    const MARK: Self = -123.25;
}

impl Mark for half::bf16 {
    const MARK: Self = half::bf16::from_f32_const(-123.0);
}

impl Mark for f64 {
    const MARK: Self = -123.25;
}

impl Mark for u8 {
    const MARK: Self = 0xa5;
}

impl Mark for i32 {
    const MARK: Self = -12_325;
}

impl Mark for u32 {
    const MARK: Self = 0xa5a5_a5a5;
}

impl Mark for i64 {
    const MARK: Self = -12_325;
}

impl<'d, T: Mark> Vector<'d, T> {
    /// Not aligned to more than an element.
    pub fn new(device: &'d CudaDevice, values: &[T]) -> Self {
        Self::with_margin(device, values, MARGIN)
    }

    /// Aligned as the buffers of a network are.
    pub fn aligned(device: &'d CudaDevice, values: &[T]) -> Self {
        Self::with_margin(device, values, ALIGNED_MARGIN)
    }

    fn with_margin(device: &'d CudaDevice, values: &[T], margin: usize) -> Self {
        let frame = vec![T::MARK; margin];
        let memory = device.upload(&[&frame, values, &frame].concat()).unwrap();
        Self { device, memory, margin, len: values.len() }
    }

    pub fn view(&self) -> View<'_, T> {
        self.memory.view().slice(self.margin..self.margin + self.len)
    }

    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        let (margin, len) = (self.margin, self.len);
        self.memory.view_mut().split_at_mut(margin).1.split_at_mut(len).0
    }

    /// The values, after checking that nothing beside them was written.
    pub fn read(&self) -> Vec<T> {
        let framed = self.device.download(self.memory.view()).unwrap();
        let (before, rest) = framed.split_at(self.margin);
        let (values, after) = rest.split_at(self.len);
        assert!(
            before.iter().chain(after).all(|&x| x == T::MARK),
            "written beside the vector: {before:?} {after:?}"
        );
        values.to_vec()
    }
}

/// Fails unless each element has the expected bits. Where a NaN is expected, any NaN will do; elsewhere it fails.
#[track_caller]
pub fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let wrong: Vec<usize> = (0..found.len()).filter(|&i| !same(found[i], expected[i])).collect();
    if let Some(&i) = wrong.first() {
        let (found, expected) = (found[i], expected[i]);
        panic!(
            "{what}: {} elements differ; the first is [{i}]: {found:e}, expected {expected:e}",
            wrong.len()
        );
    }
}

/// Normally distributed numbers, another list for each `index`.
pub fn normal(len: usize, index: u64) -> Vec<f32> {
    let mut rng = Philox::new(11, Stream::Init, index);
    (0..len).map(|_| rng.normal() as f32).collect()
}

/// Numbers at the edges of f32: signed zeros, subnormals, the largest, infinities, NaN; each pair of them occurs in
/// `edges(0)` against `edges(1)`.
pub fn edges(which: usize) -> Vec<f32> {
    let tiny = f32::from_bits(1);
    let list = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        tiny,
        -tiny,
        1e-39,
        f32::MIN_POSITIVE,
        1e-20,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
    ];
    let list = [&list[..], &[f32::NEG_INFINITY, f32::NAN]].concat();
    let of = |i: usize| list[if which == 0 { i / list.len() } else { i % list.len() }];
    (0..list.len() * list.len()).map(of).collect()
}
