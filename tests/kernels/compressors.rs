//! The same devices on CPU and GPU, compared after each step.

use crate::support::{Vector, assert_same_bits, device_or_skip};
use scadles::aggregate::add_scaled;
use scadles::compress::coding::decode_add;
use scadles::compress::cuda::CudaCompressors;
use scadles::compress::{DeviceCompressor, Norms, Plan};
use scadles::device::cuda::CudaDevice;
use scadles::rng::{Philox, Stream};
use scadles::train::config::TopKConfig;
use std::ops::Range;
use std::sync::Arc;

/// The same devices on both backends.
pub struct Pair {
    pub device: Arc<CudaDevice>,
    pub cpu: Vec<DeviceCompressor>,
    pub gpu: CudaCompressors,
    numel: usize,
    what: String,
}

/// How a step ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Sparse,
    Dense,
    /// Not at all: the next step accumulates on top.
    Open,
}

impl Pair {
    pub fn new(
        device: &Arc<CudaDevice>,
        numel: usize,
        layers: &[Range<usize>],
        config: &TopKConfig,
        devices: usize,
    ) -> Self {
        let plan = Arc::new(Plan::new(numel, layers, config.scope).unwrap());
        let cpu = |_| DeviceCompressor::new(Arc::clone(&plan), config).unwrap();
        Self {
            device: Arc::clone(device),
            cpu: (0..devices).map(cpu).collect(),
            gpu: CudaCompressors::new(Arc::clone(device), Arc::clone(&plan), config, devices).unwrap(),
            numel,
            what: format!("{numel} elements, {} layers, {config:?}", layers.len()),
        }
    }

    /// One step of all devices, each with its gradient and weight.
    pub fn step(&mut self, grads: &[Vec<f32>], weights: &[f32], end: End) {
        let what = format!("{}, weights {weights:?}, {end:?}", self.what);
        let mut expected_norms = Vec::new();
        for (i, (grad, &weight)) in grads.iter().zip(weights).enumerate() {
            expected_norms.push(self.cpu[i].accumulate(grad, weight).unwrap());
            let device = Arc::clone(&self.device);
            let vector = if i % 2 == 0 { Vector::aligned(&device, grad) } else { Vector::new(&device, grad) };
            self.gpu.accumulate(i, vector.view(), weight).unwrap();
        }
        self.gpu.read().unwrap();
        for (i, expected) in expected_norms.iter().enumerate() {
            assert_same_norms(self.gpu.norms(i).unwrap(), *expected, &what);
            assert_eq!(self.gpu.payload_bytes_bound(i), self.cpu[i].payload_bytes_bound(), "{what}");
        }
        match end {
            End::Sparse => self.send_sparse(&what),
            End::Dense => self.send_dense(&what),
            End::Open => {}
        }
        for i in 0..self.cpu.len() {
            let residual = self.device.download(self.gpu.residual(i)).unwrap();
            assert_same_bits(&residual, self.cpu[i].residual(), &format!("residual {i} of {what}"));
            let sent = end != End::Open;
            assert!(!sent || self.gpu.norms(i).unwrap().is_none(), "{what}: sent, but still selected");
        }
    }

    fn send_sparse(&mut self, what: &str) {
        let mut blocks = vec![vec![7; 5]; self.cpu.len()];
        let infos = self.gpu.encode_sparse(&mut blocks).unwrap();
        let start: Vec<f32> = (0..self.numel).map(|i| (i % 7) as f32 - 0.3).collect();
        for (i, block) in blocks.iter().enumerate() {
            let mut expected = Vec::new();
            assert_eq!(infos[i], self.cpu[i].encode_sparse(&mut expected), "{what}");
            assert!(*block == expected, "payload {i} of {what}: {} bytes, not the CPU's", block.len());
            let mut expected = start.clone();
            decode_add(block, &mut expected).unwrap();
            let device = Arc::clone(&self.device);
            let mut sum = Vector::new(&device, &start);
            self.gpu.add_sent(i, sum.view_mut()).unwrap();
            assert_same_bits(&sum.read(), &expected, &format!("add_sent {i} of {what}"));
            let mut sum = Vector::new(&device, &start);
            self.gpu.decode_add(block, sum.view_mut()).unwrap();
            assert_same_bits(&sum.read(), &expected, &format!("decode_add {i} of {what}"));
        }
    }

    fn send_dense(&mut self, what: &str) {
        let start: Vec<f32> = (0..self.numel).map(|i| (i % 5) as f32 - 0.3).collect();
        let mut expected = start.clone();
        for (rank, device) in self.cpu.iter_mut().enumerate() {
            if let Some(p) = device.dense() {
                add_scaled(rank, p, 1.0, &mut expected).unwrap();
            }
            device.finish_dense();
        }
        let device = Arc::clone(&self.device);
        for aligned in [true, false] {
            let mut sum =
                if aligned { Vector::aligned(&device, &start) } else { Vector::new(&device, &start) };
            self.gpu.add_dense(sum.view_mut()).unwrap();
            // The second time nobody has anything to send.
            let expected = if aligned { &expected } else { &start };
            assert_same_bits(&sum.read(), expected, &format!("dense sum of {what}"));
        }
    }

    /// Four steps of one device: a device without samples, a dense step and one left open among them.
    pub fn steps(&mut self, grad: impl Fn(u64) -> Vec<f32>) {
        for (step, (weight, end)) in
            [(0.75, End::Sparse), (0.0, End::Sparse), (0.3, End::Open), (1.0, End::Sparse), (0.5, End::Dense)]
                .into_iter()
                .enumerate()
        {
            self.step(&[grad(step as u64)], &[weight], end);
        }
        self.step(&[grad(9)], &[0.1], End::Sparse);
    }
}

/// Sums in another order: the last bits may differ.
fn assert_same_norms(found: Option<Norms>, expected: Option<Norms>, what: &str) {
    let (Some(found), Some(expected)) = (found, expected) else {
        assert_eq!(found, expected, "{what}");
        return;
    };
    assert_eq!(found.num_kept, expected.num_kept, "{what}");
    for (name, found, expected) in [
        ("squared", found.squared, expected.squared),
        ("topk_squared", found.topk_squared, expected.topk_squared),
        ("layer_sum", found.layer_sum, expected.layer_sum),
        ("layer_topk_sum", found.layer_topk_sum, expected.layer_topk_sum),
    ] {
        // NaN fails. 1e-12: 10^8 roundings of 2^-53 at random.
        assert!((found - expected).abs() <= 1e-12 * expected, "{what}: {name} {found}, expected {expected}");
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Normal,
    /// Ties everywhere.
    Integers,
    Zeros,
    /// Mostly zeros, as behind a ReLU.
    Sparse,
    /// Signed zeros, subnormals, and numbers of every size.
    Wide,
    /// Three magnitudes.
    Plateaus,
}

pub const KINDS: [Kind; 6] =
    [Kind::Normal, Kind::Integers, Kind::Zeros, Kind::Sparse, Kind::Wide, Kind::Plateaus];

pub fn gradient(kind: Kind, len: usize, seed: u64) -> Vec<f32> {
    let mut rng = Philox::new(seed, Stream::Init, kind as u64);
    let mut draw = |i: usize| match kind {
        Kind::Normal => rng.normal() as f32,
        Kind::Integers => rng.below(17) as f32 - 8.0,
        Kind::Zeros => [0.0, -0.0][i % 2],
        Kind::Sparse => {
            if rng.below(20) == 0 {
                rng.normal() as f32
            } else {
                0.0
            }
        }
        Kind::Wide => match rng.below(8) {
            0 => -0.0,
            1 => f32::from_bits(rng.below(1 << 10) | (rng.below(2) << 31)),
            _ => f32::from_bits(rng.below(0x5f00_0000) | (rng.below(2) << 31)),
        },
        Kind::Plateaus => [1.0, -2.0, 3.0][rng.below(3) as usize],
    };
    (0..len).map(&mut draw).collect()
}

pub fn config(density: f64) -> TopKConfig {
    TopKConfig { density, ..TopKConfig::default() }
}

/// Random layers that cover `numel`, a few of them single elements.
pub fn layers(numel: usize, seed: u64) -> Vec<Range<usize>> {
    let mut rng = Philox::new(seed, Stream::Init, 77);
    let mut layers = Vec::new();
    let mut start = 0;
    while start < numel {
        let len = match rng.below(5) {
            0 => 1,
            1 => 1 + rng.below(64) as usize,
            2 => 1 + rng.below(3_000) as usize,
            _ => 1 + rng.below(numel as u32) as usize,
        };
        let end = (start + len).min(numel);
        layers.push(start..end);
        start = end;
    }
    layers
}

pub fn open(test: &str) -> Option<Arc<CudaDevice>> {
    device_or_skip(test).map(Arc::new)
}
