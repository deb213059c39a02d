//! Layer ops at the shapes of ResNet and VGG, in GB/s (G = 1e9) of the bytes each op must move.
//!
//! The byte count of each op is stated beside it: every tensor read or written counts once per pass over it;
//! the cache lines that a store reads first do not count. `copy` moves 8 bytes an element on all threads: the
//! roof to compare with.

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use rayon::prelude::*;
use scadles::ops::batchnorm2d::{self, Epilogue, Extent, Gradients, Parameters, Saved, TrainStatistics};
use scadles::ops::input::{self, Augment, ImageShape, Normalizer};
use scadles::ops::pad_shortcut::{self, PadShortcutShape};
use scadles::ops::pool2d::{self, AdaptiveAvgShape, Pool2dShape};
use scadles::ops::{dropout, elementwise, relu, softmax_xent};
use scadles::rng::{Philox, Stream};
use std::time::Duration;

/// Activations of a batch of 64 at 32 x 32: ResNet-18 and VGG (64 and 512 channels), ResNet-20 (16 channels).
const ACTIVATIONS: [(&str, usize, usize); 3] =
    [("64x32x32x64", 64 * 32 * 32, 64), ("64x4x4x512", 64 * 4 * 4, 512), ("64x32x32x16", 64 * 32 * 32, 16)];

fn normal(len: usize, key: u64) -> Vec<f32> {
    let mut rng = Philox::new(1, Stream::Init, key);
    (0..len).map(|_| rng.uniform_f32() * 2.0 - 1.0).collect()
}

/// Times `run`, which moves `len` elements' worth of `bytes_per_element`.
fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    len: usize,
    bytes_per_element: f64,
    mut run: impl FnMut() + Send,
) {
    group.throughput(Throughput::BytesDecimal((len as f64 * bytes_per_element) as u64));
    group.bench_function(name, |bencher| {
        // Inside the pool, as the trainer runs: no wake-up of a sleeping pool is timed.
        rayon::scope(|_| bencher.iter(&mut run));
    });
}

fn batchnorm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batchnorm2d");
    for (name, rows, c) in ACTIVATIONS {
        let (extent, len) = (Extent { rows, c }, rows * c);
        let (x, shortcut, gradient) = (normal(len, 1), normal(len, 2), normal(len, 3));
        let (gamma, beta) = (vec![1.0; c], vec![0.1; c]);
        let [mut mean, mut inv_std, mut running_mean, mut running_var, mut dgamma, mut dbeta] =
            [0; 6].map(|_| vec![0.0; c]);
        let (mut y, mut dy, mut dx) = (vec![0.0; len], gradient.clone(), vec![0.0; len]);
        let mut scratch = vec![0.0; batchnorm2d::scratch_len(rows, c)];
        let parameters = Parameters { gamma: &gamma, beta: &beta };
        // Reads x twice and the shortcut once, writes y.
        for (epilogue, bytes) in [
            (Epilogue { shortcut: None, relu: true }, 12.0),
            (Epilogue { shortcut: Some(&shortcut), relu: true }, 16.0),
        ] {
            let pass =
                if epilogue.shortcut.is_some() { "forward_train_add_relu" } else { "forward_train_relu" };
            bench(&mut group, &format!("{pass}/{name}"), len, bytes, || {
                let statistics = TrainStatistics {
                    saved_mean: &mut mean,
                    saved_inv_std: &mut inv_std,
                    running_mean: &mut running_mean,
                    running_var: &mut running_var,
                };
                batchnorm2d::forward_train(
                    extent,
                    &x,
                    parameters,
                    epilogue,
                    &mut y,
                    statistics,
                    &mut scratch,
                );
            });
        }
        let saved = Saved { x: &x, relu_y: Some(&y), gamma: &gamma, mean: &mean, inv_std: &inv_std };
        // Reads x, y, dy and writes dy, then reads x, dy and writes dx.
        bench(&mut group, &format!("backward_relu/{name}"), len, 28.0, || {
            let gradients = Gradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta };
            batchnorm2d::backward(extent, saved, &mut dy, gradients, &mut scratch);
        });
    }
}

fn elementwise_ops(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("elementwise");
    for (name, rows, c) in ACTIVATIONS {
        let len = rows * c;
        let (x, mut y) = (normal(len, 1), vec![0.0f32; len]);
        bench(&mut group, &format!("copy/{name}"), len, 8.0, || {
            x.par_chunks(32 * 1024).zip(y.par_chunks_mut(32 * 1024)).for_each(|(x, y)| y.copy_from_slice(x));
        });
        // Reads both, writes one.
        bench(&mut group, &format!("relu_backward/{name}"), len, 12.0, || relu::backward_inplace(&x, &mut y));
        bench(&mut group, &format!("add/{name}"), len, 12.0, || elementwise::add_inplace(&mut y, &x));
    }
    let (x, mut y) = (normal(64 * 4096, 1), vec![0.0; 64 * 4096]);
    bench(&mut group, "dropout/64x4096", x.len(), 8.0, || dropout::forward(0.5, 1, 0, &x, &mut y));
}

fn pool(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool2d");
    let n = 64;
    for (name, shape) in [
        ("vgg_64x32x32x64_w2s2", Pool2dShape { c: 64, h: 32, w: 32, window: 2, stride: 2, pad: 0 }),
        ("vgg_64x4x4x512_w2s2", Pool2dShape { c: 512, h: 4, w: 4, window: 2, stride: 2, pad: 0 }),
        (
            "resnet_stem_8x112x112x64_w3s2",
            Pool2dShape { c: 64, h: 112, w: 112, window: 3, stride: 2, pad: 1 },
        ),
    ] {
        let n = if shape.h == 112 { 8 } else { n };
        let (x, dy) = (normal(n * shape.x_len(), 1), normal(n * shape.y_len(), 2));
        let (mut y, mut dx, mut argmax) = (dy.clone(), x.clone(), vec![0u8; dy.len()]);
        // x or dx once, y or dy and a byte of argmax once: a pixel read by several windows counts once.
        let bytes = 4.0 + 5.0 * dy.len() as f64 / x.len() as f64;
        bench(&mut group, &format!("max_forward/{name}"), x.len(), bytes, || {
            pool2d::max_forward(&shape, n, &x, &mut y, &mut argmax);
        });
        bench(&mut group, &format!("max_backward/{name}"), x.len(), bytes, || {
            pool2d::max_backward(&shape, n, &dy, &argmax, &mut dx);
        });
    }
    for (name, c, extent, out) in [
        ("global_64x4x4x512", 512, 4, 1),
        ("global_64x8x8x64", 64, 8, 1),
        ("global_64x7x7x2048", 2048, 7, 1),
        ("vgg_64x1x1x512_to_7x7", 512, 1, 7),
    ] {
        let shape = AdaptiveAvgShape { c, h: extent, w: extent, out_h: out, out_w: out };
        let (x, dy) = (normal(n * shape.x_len(), 1), normal(n * shape.y_len(), 2));
        let (mut y, mut dx) = (dy.clone(), x.clone());
        let bytes = 4.0 + 4.0 * dy.len() as f64 / x.len() as f64;
        bench(&mut group, &format!("adaptive_avg_forward/{name}"), x.len(), bytes, || {
            pool2d::adaptive_avg_forward(&shape, n, &x, &mut y);
        });
        bench(&mut group, &format!("adaptive_avg_backward/{name}"), x.len(), bytes, || {
            pool2d::adaptive_avg_backward(&shape, n, &dy, &mut dx);
        });
    }
}

fn shortcut(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pad_shortcut");
    let (n, shape) = (64, PadShortcutShape { c: 16, h: 32, w: 32, k: 32, stride: 2 });
    let (x, dy) = (normal(n * shape.x_len(), 1), normal(n * shape.y_len(), 2));
    let (mut y, mut dx) = (dy.clone(), x.clone());
    // A quarter of x is read and y, half of x in size, written; backward reads half of dy and writes dx.
    bench(&mut group, "forward/resnet20_64x32x32x16", x.len(), 3.0, || {
        pad_shortcut::forward(&shape, n, &x, &mut y);
    });
    bench(&mut group, "backward/resnet20_64x32x32x16", x.len(), 5.0, || {
        pad_shortcut::backward(&shape, n, &dy, &mut dx);
    });
}

fn loss(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("softmax_xent");
    for (name, n, classes) in
        [("64x10", 64, 10), ("1024x10", 1024, 10), ("64x1000", 64, 1000), ("1024x1000", 1024, 1000)]
    {
        let (logits, labels) = (normal(n * classes, 1), vec![classes as u32 / 2; n]);
        let mut dlogits = logits.clone();
        // Reads logits, writes dlogits.
        bench(&mut group, &format!("forward_backward/{name}"), n * classes, 8.0, || {
            softmax_xent::forward_backward(n, classes, &logits, &labels, &mut dlogits)
                .expect("labels are classes");
        });
    }
}

fn images(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("input");
    let (n, shape) = (256, ImageShape { h: 32, w: 32, c: 3 });
    let pixels: Vec<u8> = (0..n * shape.numel()).map(|i| (i * 7 % 251) as u8).collect();
    let mut out = vec![0.0; pixels.len()];
    let normalizer = Normalizer::new(&[0.49, 0.48, 0.45], &[0.25, 0.24, 0.26]);
    let augment = Augment { crop_pad: 4, flip: true };
    // Reads a byte, writes 4.
    bench(&mut group, "crop_flip/256x32x32x3", pixels.len(), 5.0, || {
        let images = pixels.par_chunks(shape.numel()).zip(out.par_chunks_mut(shape.numel()));
        images.enumerate().for_each(|(i, (pixels, out))| {
            input::write_image(shape, pixels, &normalizer, input::draw(1, i as u64, &augment), out);
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = batchnorm, elementwise_ops, pool, shortcut, loss, images
}
criterion_main!(benches);
