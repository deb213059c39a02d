//! [`scadles::train::Trainer`] on CUDA: the whole cluster on one GPU, against the same run on the CPU.

use crate::support::device_or_skip;
use scadles::metrics::record::StepRecord;
use scadles::train::Trainer;
use scadles::train::config::{
    CompressionConfig, DeviceKind, DgcConfig, GateConfig, IndexCoding, OptimizerKind, Precision, RunConfig,
    SyncConfig, TopKConfig,
};

/// Three devices with few samples of the embedded data set, and a small network.
fn config() -> RunConfig {
    let mut config = RunConfig::default();
    config.model.width = 0.25;
    config.cluster.devices = 3;
    config.cluster.rates = scadles::train::config::RatesConfig::List(vec![3.0, 5.0, 2.0]);
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
    let steps = (0..config.run.steps).map(|_| trainer.step().unwrap()).collect();
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
fn what_has_no_kernels_goes_through_the_host() {
    let Some(_) = device_or_skip("what_has_no_kernels_goes_through_the_host") else { return };
    let dgc = CompressionConfig::Dgc(DgcConfig::default());
    let mut lars = RunConfig { compression: CompressionConfig::None, ..config() };
    lars.optimizer.kind = OptimizerKind::Lars;
    compare("lars", &lars, 1e-3);
    let local =
        RunConfig { compression: CompressionConfig::None, sync: SyncConfig::Local { steps: 2 }, ..config() };
    compare("local SGD", &local, 1e-3);
    let (steps, ..) = run(&RunConfig { compression: dgc, ..config() }, DeviceKind::Cuda);
    assert!(steps.iter().all(|step| step.loss.is_finite()));
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
