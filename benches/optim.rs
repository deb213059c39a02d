//! Optimizer steps at ResNet-18's size; SGD with momentum moves 20 bytes an element, LARS 28 (another read of two vectors for the norms).

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scadles::optim::{LarsLayer, Optimizer};
use scadles::train::config::{OptimizerConfig, OptimizerKind};

const NUMEL: usize = 11_173_962;

fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("optim/resnet18");
    group.sample_size(20);
    let grad: Vec<f32> = (0..NUMEL).map(|i| (i % 1009) as f32 * 1e-6).collect();
    for (name, kind, nesterov, bytes) in [
        ("sgd", OptimizerKind::Sgd, false, 20),
        ("sgd_nesterov", OptimizerKind::Sgd, true, 20),
        ("lars", OptimizerKind::Lars, false, 28),
    ] {
        let config = OptimizerConfig { kind, nesterov, ..OptimizerConfig::default() };
        let layers = vec![LarsLayer { range: 0..NUMEL, adapt: true }];
        let mut optimizer = Optimizer::new(&config, NUMEL, layers).expect("a valid configuration");
        let mut params = vec![0.1; NUMEL];
        group.throughput(Throughput::Bytes(bytes * NUMEL as u64));
        group.bench_function(name, |b| {
            b.iter(|| optimizer.step(&mut params, &grad, 1e-3).expect("equal lengths"))
        });
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
