//! [`scadles::train::Trainer`] on CUDA: the whole cluster on one GPU, against the same run on the CPU.

use crate::support::device_or_skip;
use scadles::metrics::record::StepRecord;
use scadles::train::Trainer;
use scadles::train::config::{
    BatchNormStatistics, ClockKind, CompressionConfig, ComputeConfig, DeviceKind, DgcConfig, GateConfig,
    IndexCoding, OptimizerKind, Partition, Precision, RatesConfig, RunConfig, SyncConfig, TopKConfig,
    TopKScope,
};

/// Three devices with few samples of the embedded data set, and a small network.
fn config() -> RunConfig {
    let mut config = RunConfig::default();
    config.model.width = 0.25;
    config.cluster.devices = 3;
    config.cluster.rates = RatesConfig::List(vec![3.0, 5.0, 2.0]);
    (config.batch.min, config.batch.size) = (1, 4);
    (config.data.embedded_train, config.data.embedded_test) = (60, 20);
    config.run.steps = 4;
    // Small, so that rounding does not grow within these steps: batch norm over few images magnifies it.
    config.optimizer.lr = 0.005;
    config
}

fn top_k() -> TopKConfig {
    TopKConfig { density: 0.05, gate: GateConfig::Always, ..TopKConfig::default() }
}

fn run(config: &RunConfig, device: DeviceKind) -> (Vec<StepRecord>, f64, Vec<f32>) {
    let mut config = config.clone();
    config.cluster.device = device;
    let mut trainer = Trainer::new(&config).unwrap();
    let step = |number| {
        // In between as well: training goes on as if nobody had looked.
        if number == config.run.steps / 2 {
            trainer.evaluate().unwrap();
        }
        trainer.step().unwrap()
    };
    let steps = (0..config.run.steps).map(step).collect();
    assert!(!trainer.diverged());
    let loss = trainer.evaluate().unwrap().loss;
    (steps, loss, trainer.params().unwrap().into_owned())
}

fn close(found: f64, expected: f64, rtol: f64) -> bool {
    (found - expected).abs() <= rtol * expected.abs().max(1e-9)
}

/// The same samples, batches, traffic and times; losses and norms up to rounding.
fn compare(name: &str, config: &RunConfig, rtol: f64) {
    let (expected, expected_loss, expected_params) = run(config, DeviceKind::Cpu);
    let (found, found_loss, found_params) = run(config, DeviceKind::Cuda);
    for (found, expected) in found.iter().zip(&expected) {
        let step = expected.step;
        assert_eq!(found.local_batch, expected.local_batch, "{name}, step {step}");
        assert_eq!(found.compressed, expected.compressed, "{name}, step {step}");
        assert_eq!(found.sent_elements, expected.sent_elements, "{name}, step {step}");
        assert_eq!(found.time_s, expected.time_s, "{name}, step {step}: cluster time");
        assert!(
            close(found.loss, expected.loss, rtol),
            "{name}, step {step}: {found:?} against {expected:?}"
        );
        // A ReLU whose input is within rounding of 0 may be open on one and closed on the other, and in images with flat
        // backgrounds many open together.
        let norms = (found.grad_norm, expected.grad_norm);
        assert!(close(norms.0, norms.1, 0.1), "{name}, step {step}: gradient norms {norms:?}");
    }
    assert!(close(found_loss, expected_loss, 10.0 * rtol), "{name}: {found_loss} against {expected_loss}");
    let apart = crate::networks::distance(&found_params, &expected_params);
    assert!(apart < 10.0 * rtol, "{name}: parameters {apart:.1e} apart");
}

#[test]
fn every_way_to_aggregate_gives_the_cpus_run() {
    let Some(_) = device_or_skip("every_way_to_aggregate_gives_the_cpus_run") else { return };
    let with = |compression| RunConfig { compression, ..config() };
    compare("dense", &with(CompressionConfig::None), 1e-3);
    // Bitmaps have one size whatever is selected, so that bytes and times can be compared exactly.
    let bitmap = TopKConfig { indices: IndexCoding::Bitmap, ..top_k() };
    compare("top-k", &with(CompressionConfig::TopK(bitmap)), 1e-2);
    let closed = TopKConfig { gate: GateConfig::Paper { delta: 0.0, ewma: 0.5 }, ..top_k() };
    compare("closed gate", &with(CompressionConfig::TopK(closed)), 1e-2);
}

#[test]
fn every_optimizer_gives_the_cpus_run() {
    let Some(_) = device_or_skip("every_optimizer_gives_the_cpus_run") else { return };
    let dense = RunConfig { compression: CompressionConfig::None, ..config() };
    let with = |change: fn(&mut RunConfig)| {
        let mut config = dense.clone();
        change(&mut config);
        config
    };
    compare("Nesterov", &with(|config| config.optimizer.nesterov = true), 1e-3);
    compare("no momentum", &with(|config| config.optimizer.momentum = 0.0), 1e-3);
    compare("local SGD", &with(|config| config.sync = SyncConfig::Local { steps: 2 }), 1e-3);
    // These two take the gradient to the host.
    compare("LARS", &with(|config| config.optimizer.kind = OptimizerKind::Lars), 1e-3);
    let bitmap = DgcConfig { density: 0.3, ..DgcConfig::default() };
    compare("DGC", &RunConfig { compression: CompressionConfig::Dgc(bitmap), ..dense.clone() }, 1e-2);
}

#[test]
fn what_is_around_the_engine_gives_the_cpus_run() {
    let Some(_) = device_or_skip("what_is_around_the_engine_gives_the_cpus_run") else { return };
    let bitmap = TopKConfig { indices: IndexCoding::Bitmap, scope: TopKScope::Layer, ..top_k() };
    let mut skewed = RunConfig { compression: CompressionConfig::TopK(bitmap), ..config() };
    skewed.data.partition = Partition::Labels { labels_per_device: 4 };
    (skewed.injection.alpha, skewed.injection.beta) = (0.5, 0.5);
    skewed.batch_norm = BatchNormStatistics::Local;
    skewed.data.augment = true;
    compare("top-k per layer, injection, local statistics", &skewed, 1e-2);
}

/// Times are those of the machine, so nothing but the samples can be compared.
#[test]
fn it_runs_on_the_wall_clock_and_with_measured_times() {
    let Some(_) = device_or_skip("it_runs_on_the_wall_clock_and_with_measured_times") else { return };
    let mut measured = RunConfig { compression: CompressionConfig::None, ..config() };
    measured.cluster.compute = ComputeConfig::Measured { slowdown: 2.0 };
    measured.run.steps = 2;
    let mut real = measured.clone();
    real.cluster.clock = ClockKind::Real;
    real.cluster.rates = RatesConfig::List(vec![40.0, 80.0, 60.0]);
    for (name, config) in [("measured", measured), ("real", real)] {
        let (steps, loss, _) = run(&config, DeviceKind::Cuda);
        assert!(loss.is_finite(), "{name}");
        for step in steps {
            assert!(step.loss.is_finite() && step.global_batch > 0, "{name}: {step:?}");
            assert!(step.compute_s > 0.0 && step.step_s >= step.compute_s, "{name}: {step:?}");
        }
    }
}

#[test]
fn bf16_trains_and_repeats_itself() {
    let Some(_) = device_or_skip("bf16_trains_and_repeats_itself") else { return };
    let mut config = RunConfig { compression: CompressionConfig::TopK(top_k()), ..config() };
    config.cluster.precision = Precision::Bf16;
    config.run.steps = 3;
    let (steps, _, params) = run(&config, DeviceKind::Cuda);
    assert!(steps.iter().all(|step| step.compressed && step.loss.is_finite()));
    let (_, _, again) = run(&config, DeviceKind::Cuda);
    assert!(params.iter().map(|x| x.to_bits()).eq(again.iter().map(|x| x.to_bits())), "two runs differ");
}
