//! What `scadles-bench` measures: training steps, convolutions, compression, aggregation, the ring, GPU kernels.

use super::{Prepare, Row};
use crate::models::{self, ModelSpec};
use crate::nn::{DropoutSeed, Executor};
use crate::ops::conv2d;
use crate::optim::Sgd;
use crate::rng::{Philox, Stream};
use crate::shape::Conv2dShape;
use crate::stream::ring::{self, SampleMeta};
use crate::train::config::{OptimizerConfig, Stem};
use std::hint::black_box;
use std::sync::Arc;

/// Every row of the program; with `tiny`, those of the GPU over small shapes.
pub fn all(tiny: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("resnet20", Stem::Cifar, 64),
        ("resnet18", Stem::Cifar, 64),
        ("vgg19_bn", Stem::Cifar, 64),
        ("resnet152", Stem::Imagenet, 64),
    ]
    .into_iter()
    .map(|(model, stem, batch)| training_step(model, stem, batch))
    .collect();
    for (name, shape) in conv_shapes() {
        rows.extend(conv_passes(name, shape));
    }
    rows.extend(super::vectors::rows());
    rows.push(ring_row());
    rows.extend(super::cuda::rows(tiny));
    rows
}

/// Numbers in [-1, 1).
pub(super) fn uniform(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Philox::new(seed, Stream::Images, 0);
    (0..len).map(|_| 2.0 * rng.uniform_f32() - 1.0).collect()
}

/// Packing, forward, backward and SGD, as the trainer's step.
fn training_step(model: &'static str, stem: Stem, batch: usize) -> Row {
    Row::new(
        "step",
        format!("{model}-{}-b{batch}", if stem == Stem::Cifar { "cifar" } else { "imagenet" }),
        Some((batch as f64, "images/s")),
        Prepare::host(move |seed| {
            let spec = ModelSpec { name: model.into(), stem, ..ModelSpec::default() };
            let plan = Arc::new(models::plan(&spec, batch).expect("a published network"));
            let (mut params, mut stats) = (plan.init_params(seed), plan.init_stats());
            let mut grad = vec![0.0; plan.num_params()];
            let x = uniform(seed, batch * spec.image.numel());
            let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
            let mut executor = Executor::new(Arc::clone(&plan)).expect("memory for the batch");
            let mut sgd = Sgd::new(&OptimizerConfig::default(), plan.num_params()).expect("the defaults");
            let mut step = 0;
            Box::new(move || {
                step += 1;
                let dropout = DropoutSeed { seed, index: step };
                executor.load_params(&params).expect("parameters of this plan");
                let loss = executor.forward_backward(&x, &labels, &params, &mut stats, &mut grad, dropout);
                assert!(
                    loss.expect("a planned batch").loss_sum.is_finite(),
                    "{model}: the loss is not finite"
                );
                sgd.step(&mut params, &grad, 1e-4).expect("a gradient of this plan");
            })
        }),
    )
}

fn conv_shapes() -> [(&'static str, Conv2dShape); 5] {
    let shape = |c, hw, k, rs: usize| Conv2dShape {
        c,
        h: hw,
        w: hw,
        k,
        r: rs,
        s: rs,
        stride: 1,
        pad: rs / 2,
        dilation: 1,
    };
    [
        ("resnet20-16x32x32", shape(16, 32, 16, 3)),
        ("resnet18-64x32x32", shape(64, 32, 64, 3)),
        ("resnet18-512x4x4", shape(512, 4, 512, 3)),
        ("resnet152-1x1-64-256x32x32", shape(64, 32, 256, 1)),
        ("resnet152-1x1-2048-512x4x4", shape(2048, 4, 512, 1)),
    ]
}

fn conv_passes(name: &'static str, shape: Conv2dShape) -> [Row; 3] {
    const N: usize = 64;
    let flops = 2.0 * (N * shape.macs()) as f64;
    let row = |pass: &str, prepare: Prepare| {
        Row::new("conv2d", format!("{name}-{pass}"), Some((flops, "FLOP/s")), prepare)
    };
    [
        row(
            "fprop",
            Prepare::host(move |seed| {
                let (x, filter) = (uniform(seed, N * shape.x_len()), uniform(seed + 1, shape.filter_len()));
                let mut packed = vec![0.0; conv2d::packed_fprop_len(&shape)];
                conv2d::pack_fprop(&shape, &filter, &mut packed);
                let mut y = vec![0.0; N * shape.y_len()];
                Box::new(move || conv2d::fprop(&shape, N, &x, &packed, None, false, black_box(&mut y)))
            }),
        ),
        row(
            "dgrad",
            Prepare::host(move |seed| {
                let (dy, filter) = (uniform(seed, N * shape.y_len()), uniform(seed + 1, shape.filter_len()));
                let mut packed = vec![0.0; conv2d::packed_dgrad_len(&shape)];
                conv2d::pack_dgrad(&shape, &filter, &mut packed);
                let mut dx = vec![0.0; N * shape.x_len()];
                Box::new(move || conv2d::dgrad(&shape, N, &dy, &packed, black_box(&mut dx)))
            }),
        ),
        row(
            "wgrad",
            Prepare::host(move |seed| {
                let (x, dy) = (uniform(seed, N * shape.x_len()), uniform(seed + 1, N * shape.y_len()));
                let mut dfilter = vec![0.0; shape.filter_len()];
                let mut scratch = vec![0.0; conv2d::wgrad_scratch_len(&shape, N)];
                Box::new(move || conv2d::wgrad(&shape, N, &x, &dy, black_box(&mut dfilter), &mut scratch))
            }),
        ),
    ]
}

/// One thread: a batch of samples in, and out again in place.
fn ring_row() -> Row {
    const SAMPLES: usize = 256;
    const PIXELS: usize = 3072;
    Row::new(
        "ring",
        format!("push-read-{PIXELS}-bytes"),
        Some((SAMPLES as f64, "samples/s")),
        Prepare::host(move |_| {
            let (mut producer, mut consumer) = ring::ring(SAMPLES, PIXELS).expect("memory for 256 samples");
            let pixels = vec![7; PIXELS];
            Box::new(move || {
                for offset in 0..SAMPLES as u64 {
                    let meta = SampleMeta { label: 1, offset, arrival_ns: 0 };
                    producer.push(&pixels, meta).expect("an empty ring");
                }
                let chunk = consumer.read_chunk(SAMPLES);
                let sum: u64 = chunk.iter().map(|(pixels, _)| u64::from(pixels[0])).sum();
                assert_eq!(sum, 7 * SAMPLES as u64);
                chunk.commit_all();
            })
        }),
    )
}
