//! Made-up runs with plausible shapes: learning curves, buffers that fill, a gate that closes.

use scadles::metrics::record::{EndReason, EvalRecord, RunRecord, StepRecord};
use scadles::train::config::RunConfig;

/// How a made-up run looks.
#[derive(Clone)]
pub struct Shape {
    pub name: &'static str,
    pub devices: usize,
    pub steps: u64,
    /// Cluster seconds per step.
    pub step_s: f64,
    /// Steps until about 63 % of the final accuracy.
    pub pace: f64,
    /// Samples that stay in each buffer per step.
    pub growth: u64,
    pub compressed_from: u64,
}

pub const SCADLES: Shape = Shape {
    name: "scadles",
    devices: 8,
    steps: 200,
    step_s: 1.3,
    pace: 40.0,
    growth: 0,
    compressed_from: 30,
};
pub const DDL: Shape = Shape {
    name: "ddl",
    devices: 8,
    steps: 200,
    step_s: 5.3,
    pace: 45.0,
    growth: 160,
    compressed_from: u64::MAX,
};

pub fn run(shape: &Shape) -> RunRecord {
    let rates: Vec<f64> =
        (0..shape.devices).map(|d| [50.0, 38.0, 12.0, 36.0, 34.0, 13.0, 82.0, 40.0][d % 8]).collect();
    let mut config = RunConfig { name: shape.name.into(), ..RunConfig::default() };
    config.cluster.devices = shape.devices;
    config.run.steps = shape.steps as usize;
    let progress = |step: u64| 1.0 - (-(step as f64) / shape.pace).exp();
    let noise = |step: u64| (step.wrapping_mul(2_654_435_761) % 1000) as f64 / 1000.0 - 0.5;
    let steps = (1..=shape.steps)
        .map(|step| {
            let held: Vec<u64> =
                rates.iter().map(|&rate| rate as u64 + shape.growth * step * (rate as u64) / 82).collect();
            let compressed = step >= shape.compressed_from;
            StepRecord {
                step,
                time_s: shape.step_s * step as f64,
                wall_s: 0.7 * step as f64,
                step_s: shape.step_s * (1.0 + 0.1 * noise(step)),
                wait_s: 0.4 * shape.step_s,
                compute_s: 0.5 * shape.step_s,
                comm_s: if compressed { 0.02 } else { 0.1 } * shape.step_s,
                loss: 2.3 - 2.0 * progress(step) + 0.2 * noise(step),
                train_top1: progress(step),
                global_batch: rates.iter().map(|&rate| rate as u64).sum(),
                lr: if step > shape.steps * 3 / 4 { 0.02 } else { 0.1 },
                grad_norm: 1.0,
                compressed,
                votes: if compressed { shape.devices as u64 } else { 0 },
                gate_value: 0.2 + 0.4 * (-(step as f64) / 25.0).exp() + 0.01 * noise(step),
                sent_elements: 272_474,
                sent_bytes: if compressed { 1_300_000 } else { 15_000_000 }
                    + (noise(step) * 100_000.0) as u64,
                received_bytes: 15_000_000,
                dense_bytes: 15_258_544,
                injected_samples: 0,
                injected_bytes: 0,
                local_batch: rates.iter().map(|&rate| rate.max(8.0) as u64).collect(),
                occupancy_bytes: held.iter().map(|samples| samples * 3072).collect(),
                occupancy_samples: held,
                dropped_samples: vec![step; shape.devices],
                arrived_samples: rates
                    .iter()
                    .map(|&rate| (rate * shape.step_s * step as f64) as u64)
                    .collect(),
                device_loss: vec![2.3 - 2.0 * progress(step); shape.devices],
                taken_samples: vec![10 * step; shape.devices],
                dead_lettered_samples: vec![0; shape.devices],
                lag_samples: vec![0; shape.devices],
                oldest_age_s: vec![0.5; shape.devices],
                drift: Vec::new(),
            }
        })
        .collect();
    let evals = (1..=shape.steps)
        .filter(|step| step % 20 == 0)
        .map(|step| EvalRecord {
            step,
            time_s: shape.step_s * step as f64,
            wall_s: 0.7 * step as f64,
            loss: 2.3 - 1.9 * progress(step),
            top1: 0.93 * progress(step),
            top5: 0.5 + 0.495 * progress(step),
        })
        .collect();
    RunRecord {
        version: "0.0.0".into(),
        config,
        data_set: "embedded".into(),
        classes: 10,
        parameters: 272_474,
        computed_on: "CPU (avx512), f32".into(),
        rates,
        end: EndReason::Steps,
        steps,
        evals,
        parameters_crc32: 0xdead_beef,
    }
}
