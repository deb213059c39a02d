//! Linear layers of ResNet and VGG heads, and the bias gradient; throughput is in FLOP, or bytes read for the bias.
//!
//! `cargo bench --bench linear`, with `RAYON_NUM_THREADS=1` for one thread. Verified before it is timed.

mod support;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use scadles::ops::{conv2d, linear};
use std::time::Duration;
use support::{assert_agree, dot, uniform};

/// Name, rows N, features C, classes or features K.
const LAYERS: [(&str, usize, usize, usize); 4] = [
    ("resnet20_64_10", 64, 64, 10),
    ("resnet18_512_10", 64, 512, 10),
    ("resnet152_2048_1000", 64, 2048, 1000),
    ("vgg19_4096_4096", 64, 4096, 4096),
];

/// Name, rows N * P * Q, channels K.
const BIASES: [(&str, usize, usize); 2] =
    [("vgg19_64_32x32", 64 * 32 * 32, 64), ("vgg19_512_2x2", 64 * 2 * 2, 512)];

fn configure(group: &mut BenchmarkGroup<'_, WallTime>) {
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
}

fn layers(criterion: &mut Criterion) {
    for (name, n, c, k) in LAYERS {
        let shape = linear::shape(c, k);
        let (x, filter) = (uniform(n * c, 1), uniform(k * c, 2));
        let mut packed_fprop = vec![0.0; conv2d::packed_fprop_len(&shape)];
        let mut packed_dgrad = vec![0.0; conv2d::packed_dgrad_len(&shape)];
        conv2d::pack_fprop(&shape, &filter, &mut packed_fprop);
        conv2d::pack_dgrad(&shape, &filter, &mut packed_dgrad);
        let (mut y, mut dx, mut dfilter) = (vec![0.0; n * k], vec![0.0; n * c], vec![0.0; k * c]);
        let mut scratch = vec![0.0; conv2d::wgrad_scratch_len(&shape, n)];

        // With dy = y: |y|^2 = <x, dx> = <filter, dfilter>; and one output in f64.
        conv2d::fprop(&shape, n, &x, &packed_fprop, None, false, &mut y);
        let dy = y.clone();
        conv2d::dgrad(&shape, n, &dy, &packed_dgrad, &mut dx);
        conv2d::wgrad(&shape, n, &x, &dy, &mut dfilter, &mut scratch);
        let norm = dot(&y, &y);
        assert_agree(name, dot(&x, &dx), norm, norm);
        assert_agree(name, dot(&filter, &dfilter), norm, norm);
        let last = dot(&x[(n - 1) * c..], &filter[(k - 1) * c..]);
        assert_agree(name, f64::from(y[n * k - 1]), last, 1.0 + last.abs());

        let mut group = criterion.benchmark_group(format!("linear/{name}"));
        group.throughput(Throughput::Elements(2 * (n * shape.macs()) as u64));
        configure(&mut group);
        group.bench_function("fprop", |bencher| {
            bencher.iter(|| conv2d::fprop(&shape, n, &x, &packed_fprop, None, false, &mut y));
        });
        group.bench_function("dgrad", |bencher| {
            bencher.iter(|| conv2d::dgrad(&shape, n, &dy, &packed_dgrad, &mut dx));
        });
        group.bench_function("wgrad", |bencher| {
            bencher.iter(|| conv2d::wgrad(&shape, n, &x, &dy, &mut dfilter, &mut scratch));
        });
        group.finish();
    }
}

fn biases(criterion: &mut Criterion) {
    for (name, rows, k) in BIASES {
        let dy = uniform(rows * k, 3);
        let mut dbias = vec![0.0; k];
        let mut scratch = vec![0.0; linear::bias_scratch_len(rows, k)];
        linear::bias_backward(rows, k, &dy, &mut dbias, &mut scratch);
        let want: f64 = dy.iter().step_by(k).map(|&v| f64::from(v)).sum();
        assert_agree(name, f64::from(dbias[0]), want, rows as f64);

        let mut group = criterion.benchmark_group(format!("bias/{name}"));
        group.throughput(Throughput::Bytes((rows * k * size_of::<f32>()) as u64));
        configure(&mut group);
        group.bench_function("backward", |bencher| {
            bencher.iter(|| linear::bias_backward(rows, k, &dy, &mut dbias, &mut scratch));
        });
        group.finish();
    }
}

criterion_group!(benches, layers, biases);
criterion_main!(benches);
