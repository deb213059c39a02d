//! The executor: varying batches, threads, gradients against finite differences, learning, bad calls.

mod bf16;
mod gradient;
mod inference;
mod steps;

use scadles::models::{self, ModelSpec, Stem};
use scadles::nn::{DropoutSeed, Executor, Plan};
use scadles::ops::conv2d::CpuElement;
use scadles::ops::input::ImageShape;
use scadles::ops::softmax_xent::LossStats;
use scadles::rng::{Philox, Stream};
use std::sync::Arc;

/// A small network with everything a step needs.
struct Net<E = f32> {
    plan: Arc<Plan>,
    executor: Executor<E>,
    params: Vec<f32>,
    stats: Vec<f32>,
    grad: Vec<f32>,
}

impl Net {
    fn new(name: &str, stem: Stem, width: f64, image: [usize; 3], max_batch: usize) -> Self {
        let [h, w, c] = image;
        let image = ImageShape { h, w, c };
        let spec = ModelSpec { name: name.into(), stem, classes: 5, width, image };
        Self::of(models::plan(&spec, max_batch).unwrap())
    }

    fn of(plan: Plan) -> Self {
        Self::stored(Arc::new(plan))
    }
}

impl<E: CpuElement> Net<E> {
    /// With activations stored as `E`.
    fn stored(plan: Arc<Plan>) -> Self {
        let (params, stats) = (plan.init_params(11), plan.init_stats());
        let mut executor = Executor::new(plan.clone()).unwrap();
        executor.load_params(&params).unwrap();
        let grad = vec![f32::NAN; plan.num_params()];
        Self { plan, executor, params, stats, grad }
    }

    /// Random images and labels.
    fn batch(&self, seed: u64, n: usize) -> (Vec<f32>, Vec<u32>) {
        let mut rng = Philox::new(seed, Stream::Images, 0);
        let x = (0..n * self.plan.image().numel()).map(|_| rng.normal() as f32).collect();
        (x, (0..n).map(|_| rng.below(5)).collect())
    }

    fn step(&mut self, (x, labels): &(Vec<f32>, Vec<u32>)) -> LossStats {
        let dropout = DropoutSeed { seed: 1, index: 7 };
        let Self { executor, params, stats, grad, .. } = self;
        executor.forward_backward(x, labels, params, stats, grad, dropout).unwrap()
    }
}
