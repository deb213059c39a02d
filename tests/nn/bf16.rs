//! Activations in bf16 against f32: gradients, learning, threads, inference.

use super::Net;
use half::bf16;
use scadles::models::{self, ModelSpec, Stem};
use scadles::nn::{Inference, Plan};
use scadles::ops::conv2d::CpuElement;
use scadles::ops::input::ImageShape;
use std::sync::Arc;

const NETWORKS: [(&str, Stem, f64, [usize; 3]); 5] = [
    ("resnet20", Stem::Cifar, 0.5, [13, 10, 3]),
    // Channels that Winograd's algorithms take.
    ("resnet18", Stem::Cifar, 0.25, [16, 16, 3]),
    ("resnet50", Stem::Imagenet, 0.1, [32, 40, 3]),
    ("vgg11", Stem::Imagenet, 0.05, [32, 32, 3]),
    ("vgg11_bn", Stem::Cifar, 0.25, [32, 32, 1]),
];

const BATCH: usize = 16;

fn plan((name, stem, width, [h, w, c]): (&str, Stem, f64, [usize; 3])) -> Arc<Plan> {
    let image = ImageShape { h, w, c };
    let spec = ModelSpec { name: name.into(), stem, classes: 5, width, image };
    Arc::new(models::plan(&spec, BATCH).unwrap())
}

/// Cosine of the angle between two vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Least cosine of the gradients in bf16 and f32, and largest distance of the running statistics, relative to their size.
/// Rounding flips ReLUs, and batch norms over few pixels amplify that: PyTorch's autocast gives a cosine of 0.987 to 0.991
/// (resnet20) and 0.954 to 0.961 (resnet18) at these sizes, and 0.06 to 0.25 for resnet50, whose last stages see one or two
/// pixels an image.
fn bounds(network: &str) -> (f64, f64) {
    match network {
        "resnet50" => (0.0, 0.05),
        "resnet18" => (0.93, 0.002),
        _ => (0.97, 0.002),
    }
}

#[test]
fn a_step_is_near_that_of_f32() {
    for network in NETWORKS {
        let plan = plan(network);
        let (least_cosine, most_apart) = bounds(network.0);
        let (mut wide, mut narrow) = (Net::<f32>::stored(plan.clone()), Net::<bf16>::stored(plan));
        let batch = wide.batch(1, BATCH);
        let (expected, found) = (wide.step(&batch).loss_sum, narrow.step(&batch).loss_sum);
        let apart = (found - expected).abs() / expected;
        let cosine = cosine(&wide.grad, &narrow.grad);
        println!("{}: loss {apart:.4} apart, gradients' cosine {cosine:.4}", network.0);
        assert!(apart < 0.05, "{}: loss {found}, in f32 {expected}", network.0);
        assert!(cosine > least_cosine, "{}: cosine of the gradients is {cosine}", network.0);
        let size =
            |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let apart = size(&mut narrow.stats.iter().zip(&wide.stats).map(|(a, b)| a - b));
        // vgg11 has none.
        let apart = apart / size(&mut wide.stats.iter().copied()).max(f64::MIN_POSITIVE);
        println!("{}: statistics {apart:.5} of their size apart", network.0);
        assert!(apart < most_apart, "{}: statistics {apart} of their size apart", network.0);
        // Filters outweigh the activations of this vgg11, and odd channels are padded in pairs.
        let [narrow_bytes, wide_bytes] = [narrow.executor.memory_bytes(), wide.executor.memory_bytes()];
        assert!(
            narrow_bytes < wide_bytes || network.0 == "vgg11",
            "{}: {narrow_bytes}, {wide_bytes}",
            network.0
        );
    }
}

/// Mean loss of the last tenth of some steps of SGD on four batches.
fn trained<E: CpuElement>(plan: &Arc<Plan>, steps: usize) -> f64 {
    let mut net = Net::<E>::stored(plan.clone());
    let batches = [0, 1, 2, 3].map(|seed| net.batch(seed, BATCH));
    let mut momentum = vec![0.0f32; net.params.len()];
    let mut last = 0.0;
    for step in 0..steps {
        net.executor.load_params(&net.params).unwrap();
        let loss = net.step(&batches[step % batches.len()]).loss_sum / BATCH as f64;
        last += if step >= steps - steps / 10 { loss / (steps / 10) as f64 } else { 0.0 };
        for ((param, grad), momentum) in net.params.iter_mut().zip(&net.grad).zip(&mut momentum) {
            *momentum = 0.9 * *momentum + grad;
            *param -= 0.01 * *momentum;
        }
    }
    last
}

#[test]
fn it_learns_as_f32_does() {
    let plan = plan(NETWORKS[1]);
    let (wide, narrow) = (trained::<f32>(&plan, 80), trained::<bf16>(&plan, 80));
    println!("loss {wide:.4} in f32, {narrow:.4} in bf16");
    assert!(wide < 0.3 && narrow < 0.3, "loss {wide} in f32, {narrow} in bf16");
}

#[test]
fn results_do_not_depend_on_threads() {
    for network in [NETWORKS[1], NETWORKS[2]] {
        let plan = plan(network);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut net = Net::<bf16>::stored(plan.clone());
                let batch = net.batch(1, BATCH - 3);
                let loss = net.step(&batch).loss_sum.to_bits();
                let bits: Vec<u32> = net.grad.iter().chain(&net.stats).map(|value| value.to_bits()).collect();
                (loss, bits)
            })
        };
        let one = with(1);
        for threads in [2, 3, 7] {
            assert!(with(threads) == one, "{}: {threads} threads", network.0);
        }
    }
}

#[test]
fn inference_gives_the_executors_logits() {
    for network in NETWORKS {
        let mut net = Net::<bf16>::stored(plan(network));
        for step in 0..3 {
            let batch = net.batch(step, BATCH);
            net.step(&batch);
        }
        let mut inference = Inference::<bf16>::new(net.plan.clone(), &net.params, &net.stats).unwrap();
        let (x, _) = net.batch(9, BATCH);
        let [mut expected, mut found] = [vec![0.0; 5 * BATCH], vec![0.0; 5 * BATCH]];
        net.executor.logits(&x, BATCH, &net.params, &net.stats, &mut expected).unwrap();
        inference.logits(&x, BATCH, &mut found).unwrap();
        let size = expected.iter().fold(0.0f32, |size, logit| size.max(logit.abs()));
        let apart = expected.iter().zip(&found).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
        println!("{}: logits up to {:.4} of the largest apart", network.0, apart / size);
        // A rounding of 2^-9 in each of tens of layers, at other places.
        assert!(apart <= 0.1 * size, "{}: {apart} of {size}", network.0);
    }
}
