//! Getting data ready: decoding a CIFAR file, drawing the embedded set, measuring it, splitting it over devices.

#![allow(missing_docs)] // criterion's macros make undocumented functions.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scadles::data::cifar::{Format, decode};
use scadles::data::{Normalization, embedded, partition};
use scadles::train::config::Partition;
use std::hint::black_box;

fn images(c: &mut Criterion) {
    let mut group = c.benchmark_group("data");
    let count = 10_000;
    let file = vec![7; count * Format::Cifar10.record_bytes()];
    group.sample_size(20).throughput(Throughput::Elements(count as u64));
    group.bench_function("decode_cifar10_batch", |b| b.iter(|| decode(Format::Cifar10, black_box(&file))));
    group.bench_function("embedded_10000", |b| b.iter(|| embedded(black_box(1), count, 0)));
    let sets = embedded(1, count, 0);
    group.bench_function("normalization_10000", |b| {
        b.iter(|| Normalization::measure(black_box(sets.train.images()), 3));
    });
}

fn splits(c: &mut Criterion) {
    let mut group = c.benchmark_group("partition");
    let labels: Vec<u32> = (0..50_000).map(|i| i * 7 % 10).collect();
    group.sample_size(20).throughput(Throughput::Elements(labels.len() as u64));
    let rules = [
        ("iid_50000_over_16", Partition::Iid),
        ("labels_50000_over_16", Partition::Labels { labels_per_device: 2 }),
        ("dirichlet_50000_over_16", Partition::Dirichlet { alpha: 0.5 }),
    ];
    for (name, rule) in rules {
        group.bench_function(name, |b| b.iter(|| partition(black_box(&labels), 10, 16, &rule, 1)));
    }
}

criterion_group!(benches, images, splits);
criterion_main!(benches);
