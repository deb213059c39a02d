//! The trainer end to end on the embedded data set: timing, determinism, methods, ends.

mod defects;
mod determinism;
mod ends;
mod joined;
mod methods;
mod pace;

use scadles::metrics::record::RunRecord;
use scadles::train::config::{BatchConfig, DeviceKind, RatesConfig, RunConfig};
use std::sync::atomic::AtomicBool;

/// A small network on little data: a step takes milliseconds.
fn small(devices: usize, rates: &[f64]) -> RunConfig {
    let mut config = RunConfig::default();
    config.model.width = 0.25;
    (config.data.embedded_train, config.data.embedded_test) = (400, 50);
    config.cluster.devices = devices;
    config.cluster.device = DeviceKind::Cpu; // tests/cuda trains on GPUs
    config.cluster.rates = RatesConfig::List(rates.to_vec());
    config.batch = BatchConfig { size: 8, min: 1, max: 64, ..config.batch };
    config.run.steps = 6;
    config.run.eval_every = 100;
    config
}

fn run(config: &RunConfig) -> RunRecord {
    scadles::train::run(config, &mut [], &AtomicBool::new(false)).unwrap_or_else(|error| panic!("{error}"))
}
