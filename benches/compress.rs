//! Top-k with error feedback and packing, decoding, and the weighted sum; bytes per second of vectors touched.
//!
//! Throughput counts the traffic that cannot be avoided: accumulate reads gradient and residual and writes the residual (12
//! bytes an element), encode reads and writes it (8). `copy` is the same machine's plain copy (8), the floor to compare
//! with. `SCADLES_BENCH_LARGE=1` adds 6e7 elements, a ResNet-152.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use scadles::aggregate::weighted_sum;
use scadles::compress::coding::decode_add;
use scadles::compress::{DeviceCompressor, Plan};
use scadles::rng::{Philox, Stream};
use scadles::train::config::{TopKConfig, ValueCoding};
use std::sync::Arc;

fn sizes() -> Vec<usize> {
    let mut sizes = vec![1_000_000, 10_000_000];
    if std::env::var_os("SCADLES_BENCH_LARGE").is_some() {
        sizes.push(60_000_000);
    }
    sizes
}

fn gradient(numel: usize, seed: u64) -> Vec<f32> {
    let mut grad = vec![0.0; numel];
    grad.par_chunks_mut(1 << 16).enumerate().for_each(|(i, chunk)| {
        let mut rng = Philox::new(seed, Stream::Init, i as u64);
        chunk.iter_mut().for_each(|x| *x = rng.normal() as f32);
    });
    grad
}

fn device(numel: usize, density: f64, values: ValueCoding) -> DeviceCompressor {
    let plan = Arc::new(Plan::new(numel, &[], Default::default()).expect("a plan"));
    let config = TopKConfig { density, values, ..TopKConfig::default() };
    DeviceCompressor::new(plan, &config).expect("a valid configuration")
}

fn copy(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy");
    for numel in sizes() {
        let (from, mut to) = (gradient(numel, 1), vec![0.0; numel]);
        group.throughput(Throughput::Bytes(8 * numel as u64)).sample_size(10);
        group.bench_function(BenchmarkId::from_parameter(numel), |b| {
            b.iter(|| {
                to.par_chunks_mut(1 << 16)
                    .zip(from.par_chunks(1 << 16))
                    .for_each(|(to, from)| to.copy_from_slice(from))
            });
        });
    }
}

fn topk(c: &mut Criterion) {
    for numel in sizes() {
        let grad = gradient(numel, 1);
        let mut payload = Vec::new();
        for density in [0.1, 0.01] {
            let mut group = c.benchmark_group(format!("topk/{numel}/{density}"));
            group.sample_size(10).throughput(Throughput::Bytes(20 * numel as u64));
            let mut device = device(numel, density, ValueCoding::F32);
            group.bench_function("accumulate_and_encode", |b| {
                b.iter(|| {
                    device.accumulate(&grad, 0.125).expect("finite");
                    device.encode_sparse(&mut payload)
                });
            });
            group.throughput(Throughput::Bytes(12 * numel as u64));
            group
                .bench_function("accumulate", |b| b.iter(|| device.accumulate(&grad, 1e-3).expect("finite")));
            let mut sum = vec![0.0; numel];
            group.throughput(Throughput::Bytes(payload.len() as u64));
            group.bench_function("decode_add", |b| b.iter(|| decode_add(&payload, &mut sum).expect("valid")));
        }
    }
}

fn reduce(c: &mut Criterion) {
    let mut group = c.benchmark_group("weighted_sum");
    let (ranks, numel) = (16, 5_000_000);
    let inputs: Vec<Vec<f32>> = (0..ranks).map(|rank| gradient(numel, rank)).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    group.throughput(Throughput::Bytes(4 * (ranks + 1) * numel as u64)).sample_size(10);
    group.bench_function("16x5000000", |b| {
        b.iter_batched_ref(
            || vec![0.0; numel],
            |out| weighted_sum(&inputs, &[1.0 / 16.0; 16], out).expect("equal lengths"),
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, copy, topk, reduce);
criterion_main!(benches);
