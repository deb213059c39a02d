//! Training steps of whole networks: forward and backward, images/s. Peer: PyTorch's `loss.backward()` at the same batch.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scadles::models::{self, ModelSpec};
use scadles::nn::{DropoutSeed, Executor};
use scadles::rng::{Philox, Stream};
use std::sync::Arc;

const BATCH: usize = 64;

fn forward_backward(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward_backward");
    group.sample_size(10).throughput(Throughput::Elements(BATCH as u64));
    for name in ["resnet20", "resnet18"] {
        let spec = ModelSpec { name: name.into(), ..ModelSpec::default() };
        let plan = Arc::new(models::plan(&spec, BATCH).expect("a published network"));
        let (params, mut stats) = (plan.init_params(1), plan.init_stats());
        let mut grad = vec![0.0; plan.num_params()];
        let mut rng = Philox::new(1, Stream::Images, 0);
        let x: Vec<f32> = (0..BATCH * spec.image.numel()).map(|_| rng.normal() as f32).collect();
        let labels: Vec<u32> = (0..BATCH).map(|_| rng.below(10)).collect();
        let mut executor = Executor::<f32>::new(plan).expect("memory for 64 images");
        group.bench_function(BenchmarkId::new(name, BATCH), |b| {
            b.iter(|| {
                executor.load_params(&params).expect("parameters of this plan");
                let dropout = DropoutSeed { seed: 1, index: 0 };
                let loss = executor.forward_backward(&x, &labels, &params, &mut stats, &mut grad, dropout);
                loss.expect("a batch of this plan")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, forward_backward);
criterion_main!(benches);
