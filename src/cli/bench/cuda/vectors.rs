//! Passes over whole parameter vectors, whose results have the CPU's bits.

use super::Gpu;
use super::data::random;
use crate::aggregate::{add_scaled, weighted_sum};
use crate::cli::bench::{Failure, Row, Timed};
use crate::device::cuda::{DeviceBuffer, DeviceMomentum, SgdStep};
use crate::models::{self, ModelSpec};
use crate::ops::elementwise;
use crate::optim::Sgd;
use crate::train::config::OptimizerConfig;
use half::bf16;

/// Networks whose optimizer is timed.
const NETWORKS: [&str; 2] = ["resnet18", "resnet152"];
const RANKS: usize = 16;

pub(super) fn rows(gpu: &Gpu) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in NETWORKS {
        let spec = ModelSpec { name: name.into(), ..ModelSpec::default() };
        let parameters = models::plan(&spec, 1).expect("a published network").num_params();
        let numel = gpu.size(parameters, 5_003);
        let millions = numel as f64 / 1e6;
        rows.push(gpu.memory_row(
            format!("sgd-momentum-wd {name} {millions:.1}M"),
            20 * numel,
            move |gpu, seed| sgd(gpu, seed, numel),
        ));
    }
    for numel in [1_000_000, 10_000_000, 60_000_000].into_iter().take(gpu.size(3, 1)) {
        let numel = gpu.size(numel, 4_001);
        let bytes = 4 * (RANKS + 1) * numel;
        rows.push(gpu.memory_row(format!("weighted mean {RANKS} x {numel:.0e}"), bytes, move |gpu, seed| {
            mean(gpu, seed, numel)
        }));
    }
    let numel = gpu.size(60_000_000, 4_001);
    rows.push(gpu.memory_row(format!("add-scaled {numel:.0e}"), 12 * numel, move |gpu, seed| {
        scaled(gpu, seed, numel)
    }));
    rows.push(
        gpu.memory_row(format!("pack-filters {numel:.0e}"), 6 * numel, move |gpu, seed| {
            pack(gpu, seed, numel)
        }),
    );
    rows
}

fn sgd(gpu: &Gpu, seed: u64, numel: usize) -> Result<Timed, Failure> {
    let config = OptimizerConfig::default();
    let step = SgdStep { lr: 1e-3, weight_decay: config.weight_decay as f32 };
    let (mut expected, gradient): (Vec<f32>, Vec<f32>) = (random(seed, numel), random(seed + 1, numel));
    let mut sets = Vec::new();
    for _ in 0..gpu.sets(12 * numel) {
        sets.push([gpu.upload(&expected)?, gpu.zeros(numel)?, gpu.upload(&gradient)?]);
    }
    let device = gpu.device.clone();
    let momentum = config.momentum as f32;
    let launch = move |i: usize, sets: &mut [[DeviceBuffer<f32>; 3]]| {
        let at = i % sets.len();
        let [params, velocity, gradient] = &mut sets[at];
        let momentum = DeviceMomentum::Classic(velocity.view_mut(), momentum);
        device.sgd(params.view_mut(), gradient.view(), momentum, step)
    };
    launch(0, &mut sets)?;
    Sgd::new(&config, numel)?.step(&mut expected, &gradient, 1e-3)?;
    gpu.check(sets[0][0].view(), &expected, 0.0)?;
    gpu.replayed(move |i| launch(i, &mut sets))
}

fn mean(gpu: &Gpu, seed: u64, numel: usize) -> Result<Timed, Failure> {
    let values: Vec<f32> = random(seed, RANKS * numel);
    let weights: Vec<f32> = (0..RANKS).map(|rank| (rank + 1) as f32 / 136.0).collect();
    let ranks: Vec<&[f32]> = values.chunks(numel).collect();
    let mut expected = vec![0.0; numel];
    weighted_sum(&ranks, &weights, &mut expected)?;
    let mut sets = Vec::new();
    for _ in 0..gpu.sets(4 * RANKS * numel) {
        sets.push((gpu.upload(&values)?, gpu.poisoned::<f32>(numel)?));
    }
    let weights = gpu.upload(&weights)?;
    let device = gpu.device.clone();
    let launch = move |(inputs, out): &mut (DeviceBuffer<f32>, DeviceBuffer<f32>)| {
        device.weighted_sum(out.view_mut(), inputs.view(), weights.view())
    };
    launch(&mut sets[0])?;
    gpu.check(sets[0].1.view(), &expected, 0.0)?;
    gpu.rotated(sets, launch)
}

fn scaled(gpu: &Gpu, seed: u64, numel: usize) -> Result<Timed, Failure> {
    let (mut expected, values): (Vec<f32>, Vec<f32>) = (random(seed, numel), random(seed + 1, numel));
    let (mut out, x) = (gpu.upload(&expected)?, gpu.upload(&values)?);
    add_scaled(0, &values, 0.125, &mut expected)?;
    let device = gpu.device.clone();
    device.add_scaled(out.view_mut(), x.view(), 0.125)?;
    gpu.check(out.view(), &expected, 0.0)?;
    gpu.replayed(move |_| device.add_scaled(out.view_mut(), x.view(), 0.125))
}

/// Rounds the filters of a network to bf16, in segments like a layer's.
fn pack(gpu: &Gpu, seed: u64, numel: usize) -> Result<Timed, Failure> {
    const LONGEST: usize = 2_359_296;
    let values: Vec<f32> = random(seed, numel);
    let starts = (0..numel).step_by(LONGEST);
    let segments: Vec<i64> = starts
        .clone()
        .flat_map(|start| [start as i64, start as i64, LONGEST.min(numel - start) as i64])
        .collect();
    let num_segments = starts.count();
    let (from, mut to) = (gpu.upload(&values)?, gpu.poisoned::<bf16>(numel)?);
    let segments = gpu.upload(&segments)?;
    let device = gpu.device.clone();
    let launch = move |to: &mut DeviceBuffer<bf16>| {
        let view = to.view_mut();
        elementwise::cuda::pack(&device, segments.view(), num_segments, LONGEST, from.view(), view)
    };
    launch(&mut to)?;
    gpu.check(to.view(), &values, 0.0)?;
    gpu.replayed(move |_| launch(&mut to))
}
