//! A small data set and streams over it.

use scadles::stream::rates::RateModel;
use scadles::stream::source::{ReplaySource, Samples};
use scadles::stream::{DeviceStream, VirtualStream};
use scadles::train::config::{ArrivalConfig, BufferConfig, BufferPolicy, RatesConfig};
use std::sync::Arc;

/// `count` images whose bytes and label follow from their index.
pub struct Numbered {
    pixels: Vec<u8>,
    pixel_bytes: usize,
}

impl Numbered {
    pub fn new(count: usize, pixel_bytes: usize) -> Arc<Self> {
        let pixels =
            (0..count * pixel_bytes).map(|i| (i / pixel_bytes * 7 + i % pixel_bytes) as u8).collect();
        Arc::new(Self { pixels, pixel_bytes })
    }
}

impl Samples for Numbered {
    fn len(&self) -> usize {
        self.pixels.len() / self.pixel_bytes
    }
    fn pixel_bytes(&self) -> usize {
        self.pixel_bytes
    }
    fn pixels(&self, index: u32) -> &[u8] {
        &self.pixels[index as usize * self.pixel_bytes..][..self.pixel_bytes]
    }
    fn label(&self, index: u32) -> u32 {
        index
    }
}

/// Rate models of one process, every device at `rate`.
pub fn model(rate: f64, arrivals: ArrivalConfig, devices: usize) -> RateModel {
    RateModel::new(&RatesConfig::List(vec![rate]), &arrivals, devices, 1234).unwrap()
}

/// Replays 50 images of 3072 bytes at a constant rate.
pub fn constant_source(rate: f64) -> ReplaySource {
    let arrivals = model(rate, ArrivalConfig::Constant, 1).arrivals(0);
    ReplaySource::new(Numbered::new(50, 3072), (0..50).collect(), arrivals, 1234, 0).unwrap()
}

pub fn buffer(policy: BufferPolicy, keep: usize) -> BufferConfig {
    BufferConfig { policy, keep, ..Default::default() }
}

pub fn virtual_stream(rate: f64, config: &BufferConfig) -> VirtualStream {
    VirtualStream::new(constant_source(rate), config, 1234, 0).unwrap()
}

/// Takes `n` samples; their offsets and labels.
pub fn take(stream: &mut dyn DeviceStream, n: usize) -> Vec<(u64, u32)> {
    let mut taken = Vec::new();
    let count = stream
        .take(n, &mut |view| {
            assert_eq!(view.pixels[1], view.pixels[0].wrapping_add(1), "pixels of another sample");
            assert_eq!(view.pixels[0], (view.label * 7) as u8);
            taken.push((view.offset, view.label));
        })
        .unwrap();
    assert_eq!(count, taken.len());
    taken
}

/// `arrived == taken + dropped + held`, and what is on disk is not in memory.
pub fn check_counters(stream: &dyn DeviceStream, sample_bytes: u64) {
    let c = stream.counters();
    assert_eq!(c.arrived, c.taken + c.dropped + c.occupancy_samples, "{c:?}");
    assert_eq!(c.occupancy_bytes, c.occupancy_samples * sample_bytes, "{c:?}");
    assert_eq!(c.memory_bytes, (c.occupancy_samples - c.spilled_samples) * sample_bytes, "{c:?}");
}
