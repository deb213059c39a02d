//! The device at hand, vectors on it, and comparison bit for bit.

use cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
use scadles::device::cuda::{self, CudaDevice, CudaError, Driver};
use scadles::rng::{Philox, Stream};
use std::env;

/// Set in the process that `host` starts on its own driver.
pub const HOST_DRIVER: &str = "SCADLES_TEST_HOST_DRIVER";

/// Around warps, blocks (256) and whole grids of the host driver (4096 threads) and of a GPU; primes; nothing; one.
pub const LENGTHS: [usize; 17] =
    [0, 1, 2, 31, 97, 255, 256, 257, 511, 512, 513, 4095, 4096, 4097, 10_007, 40_009, 1_200_007];

/// The device to test on; without one, says which test is skipped.
pub fn device_or_skip(test: &str) -> Option<CudaDevice> {
    if env::var_os(HOST_DRIVER).is_some() {
        let Driver::Present { devices, .. } = cuda::probe() else { panic!("the host driver was not found") };
        assert_eq!(devices[0].as_ref().unwrap().name, "host compiler");
        // SAFETY: the host driver looks at no image, and was compiled from the kernels of this version.
        return Some(unsafe { CudaDevice::open_with_images(0, |_| Some(b"host")) }.unwrap());
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

/// Elements before and after a [`Vector`], which no kernel may change; odd, so that vectors are not aligned.
const MARGIN: usize = 3;
const MARK: f32 = -123.25;

/// A vector inside a larger allocation.
pub struct Vector<'d> {
    device: &'d CudaDevice,
    memory: CudaSlice<f32>,
    len: usize,
}

impl<'d> Vector<'d> {
    pub fn new(device: &'d CudaDevice, values: &[f32]) -> Self {
        let framed: Vec<f32> = [&[MARK; MARGIN], values, &[MARK; MARGIN]].concat();
        let memory = device.stream().clone_htod(&framed).unwrap();
        Self { device, memory, len: values.len() }
    }

    pub fn view(&self) -> CudaView<'_, f32> {
        self.memory.slice(MARGIN..MARGIN + self.len)
    }

    pub fn view_mut(&mut self) -> CudaViewMut<'_, f32> {
        self.memory.slice_mut(MARGIN..MARGIN + self.len)
    }

    /// The values, after checking that nothing beside them was written.
    pub fn read(&self) -> Vec<f32> {
        self.device.synchronize().unwrap();
        let framed = self.device.stream().clone_dtoh(&self.memory).unwrap();
        let (before, rest) = framed.split_at(MARGIN);
        let (values, after) = rest.split_at(self.len);
        assert!(
            before.iter().chain(after).all(|&x| x == MARK),
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
