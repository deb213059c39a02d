//! Rows over flat vectors on the CPU, each against what the memory can do: compression, decoding, weighted sum, SGD.

use super::rows::uniform;
use super::{Prepare, Row};
use crate::aggregate::weighted_sum;
use crate::compress::coding::decode_add;
use crate::compress::{DeviceCompressor, Plan};
use crate::ops::multiversion::multiversion;
use crate::optim::Sgd;
use crate::train::config::{OptimizerConfig, TopKConfig, TopKScope};
use rayon::prelude::*;
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;

const F32_BYTES: usize = size_of::<f32>();
/// The ceilings: bytes per second of long vectors that are only read, and of `y += a * x` (two reads, one write).
const READ: &str = "memory-read";
const UPDATE: &str = "memory-update";
/// Elements of the vectors of the ceilings: far more than any cache holds.
const CEILING_LEN: usize = 1 << 26;
const TILE_LEN: usize = 1 << 14;
const SIZES: [usize; 3] = [1_000_000, 10_000_000, 60_000_000];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![read_ceiling(), update_ceiling()];
    for numel in SIZES {
        rows.extend([0.1, 0.01].map(|density| top_k(numel, density)));
    }
    for numel in SIZES {
        rows.extend([0.1, 0.01].map(|density| decode(numel, density)));
    }
    rows.extend([1_000_000, 10_000_000].map(weighted));
    rows.push(sgd(11_000_000));
    rows
}

fn bytes_row(group: &'static str, name: String, bytes: usize, prepare: Prepare) -> Row {
    Row::new(group, name, Some((bytes as f64, "bytes/s")), prepare)
}

fn read_ceiling() -> Row {
    let prepare = Prepare::host(|seed| {
        let x: Vec<f32> = filled(seed);
        Box::new(move || {
            let sums: Vec<f32> = x.par_chunks(TILE_LEN).map(sum).collect();
            assert!(sums.iter().all(|sum| sum.abs() <= TILE_LEN as f32));
        })
    });
    Row { measures: Some(READ), ..bytes_row("ceiling", READ.into(), F32_BYTES * CEILING_LEN, prepare) }
}

fn update_ceiling() -> Row {
    let prepare = Prepare::host(|seed| {
        let (x, mut y) = (filled(seed), vec![0.0f32; CEILING_LEN]);
        Box::new(move || {
            let tiles = y.par_chunks_mut(TILE_LEN).zip(x.par_chunks(TILE_LEN));
            tiles.for_each(|(y, x)| add_scaled(y, x, 0.5));
        })
    });
    Row {
        measures: Some(UPDATE),
        ..bytes_row("ceiling", UPDATE.into(), 3 * F32_BYTES * CEILING_LEN, prepare)
    }
}

/// A long vector of numbers in [-1, 1), made from a short one.
fn filled(seed: u64) -> Vec<f32> {
    let part = uniform(seed, TILE_LEN);
    (0..CEILING_LEN / TILE_LEN).flat_map(|_| part.iter().copied()).collect()
}

multiversion! {
    fn sum(x: &[f32]) -> f32 {
        let mut sums = [0.0f32; 128];
        for x in x.as_chunks::<128>().0 {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
        sums.iter().sum()
    }
    fn add_scaled(y: &mut [f32], x: &[f32], a: f32) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
    }
}

fn compressor(numel: usize, density: f64) -> DeviceCompressor {
    let plan = Arc::new(Plan::new(numel, &[], TopKScope::Vector).expect("a vector"));
    let config = TopKConfig { density, ..TopKConfig::default() };
    DeviceCompressor::new(plan, &config).expect("a density in range")
}

/// Compensation, exact selection and coding of one device's gradient. The floor: gradient and residual in, residual out.
fn top_k(numel: usize, density: f64) -> Row {
    let prepare = Prepare::host(move |seed| {
        let (mut device, grad, mut payload) = (compressor(numel, density), uniform(seed, numel), Vec::new());
        Box::new(move || {
            device.accumulate(&grad, 0.125).expect("a finite gradient");
            device.encode_sparse(black_box(&mut payload));
        })
    });
    let work = Some((numel as f64, "elements/s"));
    let bounds = vec![((3 * F32_BYTES * numel) as f64, UPDATE)];
    let peers = ["usual", "sampled"]
        .map(|way| json!({ "kind": "top-k", "way": way, "numel": numel, "density": density }));
    Row { bounds, ..Row::new("top-k", format!("{numel}-density-{density}"), work, prepare) }.beside(peers)
}

/// Checks a payload and adds it to a dense vector. The floor: each value and the place that it is added to, once.
fn decode(numel: usize, density: f64) -> Row {
    let prepare = Prepare::host(move |seed| {
        let (mut sum, mut payload) = (vec![0.0; numel], Vec::new());
        let mut device = compressor(numel, density);
        device.accumulate(&uniform(seed, numel), 0.125).expect("a finite gradient");
        device.encode_sparse(&mut payload);
        Box::new(move || decode_add(&payload, black_box(&mut sum)).expect("an own payload"))
    });
    let kept = numel as f64 * density;
    // Cache lines of 16 elements that hold a kept one are read and written.
    let lines = numel as f64 / 16.0 * (1.0 - (1.0 - density).powi(16));
    let bounds = vec![(128.0 * lines + 5.0 * kept, UPDATE)];
    Row {
        bounds,
        ..Row::new("decode", format!("{numel}-density-{density}"), Some((kept, "elements/s")), prepare)
    }
}

fn weighted(numel: usize) -> Row {
    const RANKS: usize = 16;
    let prepare = Prepare::host(move |seed| {
        let inputs: Vec<Vec<f32>> = (0..RANKS).map(|rank| uniform(seed + rank as u64, numel)).collect();
        let mut out = vec![0.0; numel];
        Box::new(move || {
            let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            weighted_sum(&inputs, &[1.0 / RANKS as f32; RANKS], black_box(&mut out)).expect("equal lengths");
        })
    });
    let bytes = (RANKS + 1) * numel * F32_BYTES;
    let bounds = vec![(bytes as f64, READ)];
    let peers = ["product", "one by one"]
        .map(|way| json!({ "kind": "weighted-sum", "way": way, "count": RANKS, "numel": numel }));
    Row { bounds, ..bytes_row("weighted-sum", format!("{RANKS}x{numel}"), bytes, prepare) }.beside(peers)
}

fn sgd(numel: usize) -> Row {
    let prepare = Prepare::host(move |seed| {
        let (mut params, grad) = (uniform(seed, numel), uniform(seed + 1, numel));
        let mut sgd = Sgd::new(&OptimizerConfig::default(), numel).expect("the defaults");
        Box::new(move || sgd.step(black_box(&mut params), &grad, 1e-3).expect("equal lengths"))
    });
    let bytes = 5 * numel * F32_BYTES;
    let bounds = vec![(bytes as f64, UPDATE)];
    let peer = json!({ "kind": "sgd", "numel": numel });
    Row { bounds, ..bytes_row("sgd", format!("momentum-{numel}"), bytes, prepare) }.beside([peer])
}
