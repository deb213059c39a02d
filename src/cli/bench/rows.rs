//! What `scadles-bench` measures on the host: training steps, convolutions, compression, aggregation, the ring.

use super::{Prepare, Row};
use crate::models::{self, ModelSpec};
use crate::nn::{DropoutSeed, Executor, Inference, Packing};
use crate::ops::conv2d::CpuElement;
use crate::optim::Sgd;
use crate::rng::{Philox, Stream};
use crate::stream::ring::{self, SampleMeta};
use crate::train::config::{OptimizerConfig, Stem};
use half::bf16;
use serde_json::json;

use std::sync::Arc;

/// Every row that needs no GPU.
pub(super) fn rows() -> Vec<Row> {
    let networks = [
        ("resnet20", Stem::Cifar),
        ("resnet18", Stem::Cifar),
        ("vgg19_bn", Stem::Cifar),
        ("resnet152", Stem::Imagenet),
    ];
    let mut rows = Vec::new();
    for (model, stem) in networks {
        rows.extend([16, 64, 128].map(|batch| training_step::<f32>(model, stem, batch)));
        rows.extend([16, 64, 128].map(|batch| training_step::<bf16>(model, stem, batch)));
        rows.extend([1, 64].map(|batch| inference::<f32>(model, stem, batch)));
        rows.extend([1, 64].map(|batch| inference::<bf16>(model, stem, batch)));
    }
    rows.extend(super::conv::rows());
    rows.extend(super::vectors::rows());
    rows.push(ring_row());
    rows
}

/// Numbers in [-1, 1).
pub(super) fn uniform(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Philox::new(seed, Stream::Images, 0);
    (0..len).map(|_| 2.0 * rng.uniform_f32() - 1.0).collect()
}

pub(super) fn dtype<E: CpuElement>() -> &'static str {
    if E::IS_BF16 { "bf16" } else { "f32" }
}

fn row_name<E: CpuElement>(model: &str, stem: &str, batch: usize) -> String {
    format!("{model}-{stem}-b{batch}{}", if E::IS_BF16 { "-bf16" } else { "" })
}

/// Packing, forward, backward and SGD, as the trainer's step.
fn training_step<E: CpuElement>(model: &'static str, stem: Stem, batch: usize) -> Row {
    let stem_name = if stem == Stem::Cifar { "cifar" } else { "imagenet" };
    let peer =
        json!({ "kind": "train", "model": model, "stem": stem_name, "batch": batch, "dtype": dtype::<E>() });
    Row::new(
        "step",
        row_name::<E>(model, stem_name, batch),
        Some((batch as f64, "images/s")),
        Prepare::host(move |seed| {
            let spec = ModelSpec { name: model.into(), stem, ..ModelSpec::default() };
            let plan = Arc::new(models::plan(&spec, batch).expect("a published network"));
            let (mut params, mut stats) = (plan.init_params(seed), plan.init_stats());
            let mut grad = vec![0.0; plan.num_params()];
            let x = uniform(seed, batch * spec.image.numel());
            let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
            let mut executor =
                Executor::<E>::with_packing(Arc::clone(&plan), Packing::OnUse).expect("memory for the batch");
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
    .beside([peer])
}

/// Logits of images, with running statistics.
fn inference<E: CpuElement>(model: &'static str, stem: Stem, batch: usize) -> Row {
    let stem_name = if stem == Stem::Cifar { "cifar" } else { "imagenet" };
    let peer =
        json!({ "kind": "infer", "model": model, "stem": stem_name, "batch": batch, "dtype": dtype::<E>() });
    Row::new(
        "infer",
        row_name::<E>(model, stem_name, batch),
        Some((batch as f64, "images/s")),
        Prepare::host(move |seed| {
            let spec = ModelSpec { name: model.into(), stem, ..ModelSpec::default() };
            let plan = Arc::new(models::plan(&spec, batch).expect("a published network"));
            let (params, stats) = (plan.init_params(seed), plan.init_stats());
            let x = uniform(seed, batch * spec.image.numel());
            let mut logits = vec![0.0; batch * plan.classes()];
            let mut network = Inference::<E>::new(plan, &params, &stats).expect("memory for the batch");
            Box::new(move || {
                network.logits(&x, batch, &mut logits).expect("a planned batch");
                assert!(logits.iter().all(|logit| logit.is_finite()), "{model}: a logit is not finite");
            })
        }),
    )
    .beside([peer])
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
