//! Each method trains, and does what it says to bytes, weights and samples.

use super::{run, small};
use scadles::train::config::{
    Aggregation, ArrivalConfig, BatchNormStatistics, BatchPolicy, BufferPolicy, ClockKind, CompressionConfig,
    ComputeConfig, DgcConfig, GateConfig, InjectedBatch, OptimizerKind, Partition, RunConfig, SyncConfig,
    TopKConfig, ValueCoding,
};

/// Mean loss of the last steps against that of the first ones.
fn assert_learns(name: &str, config: &RunConfig) {
    let record = run(config);
    let mean = |steps: &[scadles::metrics::record::StepRecord]| {
        steps.iter().map(|step| step.loss).sum::<f64>() / steps.len() as f64
    };
    let steps = &record.steps;
    let (first, last) = (mean(&steps[..5]), mean(&steps[steps.len() - 5..]));
    assert!(last < 0.9 * first, "{name}: loss {first:.3} -> {last:.3}");
}

fn learning() -> RunConfig {
    let mut config = small(3, &[20.0, 8.0, 12.0]);
    config.run.steps = 40;
    config.batch.size = 16;
    config
}

fn top_k(gate: GateConfig) -> TopKConfig {
    TopKConfig { gate, ..TopKConfig::default() }
}

#[test]
fn every_compression_learns() {
    let mut config = learning();
    for (name, compression) in [
        ("none", CompressionConfig::None),
        ("top-k", CompressionConfig::TopK(top_k(GateConfig::Always))),
        ("top-k, reference gate", CompressionConfig::TopK(top_k(GateConfig::Reference { delta: 0.3 }))),
        (
            "top-k, bf16",
            CompressionConfig::TopK(TopKConfig { values: ValueCoding::Bf16, ..Default::default() }),
        ),
        ("dgc", CompressionConfig::Dgc(DgcConfig { density: 0.05, ..DgcConfig::default() })),
    ] {
        config.compression = compression;
        assert_learns(name, &config);
    }
}

#[test]
fn every_update_learns() {
    let mut config = learning();
    config.compression = CompressionConfig::None;
    config.sync = SyncConfig::Local { steps: 4 };
    assert_learns("local SGD", &config);
    config.sync = SyncConfig::EveryStep;
    config.optimizer.nesterov = true;
    config.aggregation = Aggregation::Uniform;
    config.batch_norm = BatchNormStatistics::Local;
    assert_learns("nesterov, uniform weights, local statistics", &config);
    config.optimizer.nesterov = false;
    config.optimizer.kind = OptimizerKind::Lars;
    (config.optimizer.lr, config.optimizer.trust) = (2.0, 0.02);
    assert_learns("lars", &config);
}

#[test]
fn local_sgd_moves_bytes_only_when_it_averages() {
    let mut config = small(3, &[9.0, 17.0, 5.0]);
    config.compression = CompressionConfig::None;
    config.sync = SyncConfig::Local { steps: 3 };
    config.run.steps = 7;
    let record = run(&config);
    // The last step averages too, or what was trained since the sixth would be lost.
    let averages = [false, false, true, false, false, true, true];
    for (step, averages) in record.steps.iter().zip(averages) {
        let moved = [step.sent_elements, step.sent_bytes, step.received_bytes].map(|count| count > 0);
        assert_eq!((moved, step.comm_s > 0.0), ([averages; 3], averages), "step {}", step.step);
    }
}

#[test]
fn local_sgd_averages_when_it_is_due_even_if_nobody_has_samples_then() {
    let mut config = small(2, &[0.5]);
    config.compression = CompressionConfig::None;
    config.sync = SyncConfig::Local { steps: 3 };
    config.batch.policy = BatchPolicy::Available;
    config.cluster.compute = ComputeConfig::Given { overhead_s: vec![0.0], per_sample_s: vec![0.0] };
    // Samples come every 2 s and patience ends after 1.5 s: every second step has samples, from the second.
    config.cluster.wait_limit_s = 1.5;
    let mut trainer = scadles::train::Trainer::new(&config).unwrap();
    let initial = trainer.params().unwrap().to_vec();
    let batches: Vec<u64> = (0..3).map(|_| trainer.step().unwrap().global_batch).collect();
    assert_eq!(batches, [0, 2, 0]);
    assert!(*trainer.params().unwrap() != initial, "the average was skipped");
}

#[test]
fn compression_never_sends_more_than_dense() {
    // With 16 devices at density 0.5, gathering payloads would move far more than the dense sum.
    let mut config = small(16, &[4.0]);
    config.compression = CompressionConfig::TopK(TopKConfig { density: 0.5, ..top_k(GateConfig::Always) });
    config.run.steps = 3;
    for step in run(&config).steps {
        assert!(!step.compressed);
        // Beyond the dense sum only batch sizes, gate values and payload bounds travel: 8 bytes each, 15 hops.
        assert!(step.sent_bytes <= step.dense_bytes + 3 * 16 * 8 * 15, "{} bytes", step.sent_bytes);
    }
    config.compression = CompressionConfig::TopK(TopKConfig { density: 0.01, ..top_k(GateConfig::Always) });
    for step in run(&config).steps {
        assert!(step.compressed && step.sent_bytes < step.dense_bytes / 4, "{} bytes", step.sent_bytes);
    }
}

#[test]
fn injection_counts_its_samples_and_the_corrected_batch_stays() {
    let mut config = small(4, &[20.0]);
    config.data.partition = Partition::Labels { labels_per_device: 1 };
    (config.injection.alpha, config.injection.beta) = (0.5, 0.5);
    for (rule, own) in [(InjectedBatch::Selsync, 10), (InjectedBatch::Paper, 20)] {
        config.injection.batch = rule;
        for step in run(&config).steps {
            // Two givers share half of their batch with the three others.
            assert_eq!(step.injected_samples, own);
            assert_eq!(step.injected_bytes, own * (3072 + 12));
            let given = own / 2;
            let mut batches = step.local_batch.clone();
            batches.sort_unstable();
            assert_eq!(batches, [own + given, own + given, own + 2 * given, own + 2 * given]);
        }
    }
}

#[test]
fn a_device_without_samples_joins_with_weight_zero() {
    let mut config = small(3, &[0.4, 30.0, 20.0]);
    config.batch.policy = BatchPolicy::Available;
    config.run.steps = 8;
    let record = run(&config);
    assert!(record.steps.iter().any(|step| step.local_batch[0] == 0));
    assert!(record.steps.iter().all(|step| step.loss.is_finite() && step.global_batch > 0));
}

#[test]
fn a_step_without_any_sample_changes_nothing_but_time() {
    let mut config = small(2, &[0.001]);
    config.batch.policy = BatchPolicy::Available;
    config.cluster.wait_limit_s = 2.0;
    config.run.steps = 1;
    let before = {
        let trainer = scadles::train::Trainer::new(&config).unwrap();
        crc32fast::hash(bytemuck::cast_slice(&trainer.params().unwrap()))
    };
    let record = run(&config);
    assert_eq!((record.steps[0].global_batch, record.steps[0].time_s.round()), (0, 2.0));
    assert_eq!(record.parameters_crc32, before);
    assert_eq!(record.steps[0].loss, 0.0);
}

#[test]
fn streams_of_every_kind_feed_it() {
    let mut config = small(3, &[20.0, 8.0, 12.0]);
    for arrivals in [
        ArrivalConfig::Poisson,
        ArrivalConfig::Bursty { on_s: 2.0, off_s: 3.0 },
        ArrivalConfig::Diurnal { period_s: 20.0, amplitude: 0.9 },
    ] {
        for policy in [BufferPolicy::Persistence, BufferPolicy::Truncation, BufferPolicy::Reservoir] {
            config.cluster.arrivals = arrivals.clone();
            config.buffer.policy = policy;
            let record = run(&config);
            for step in &record.steps {
                for device in 0..3 {
                    let arrived = step.arrived_samples[device];
                    let trained: u64 =
                        record.steps[..step.step as usize].iter().map(|s| s.local_batch[device]).sum();
                    let held = step.occupancy_samples[device];
                    assert_eq!(
                        arrived,
                        trained + held + step.dropped_samples[device],
                        "{arrivals:?} {policy:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_wall_clock_feeds_it_through_the_ring() {
    let mut config = small(2, &[200.0, 100.0]);
    config.cluster.clock = ClockKind::Real;
    config.batch.policy = BatchPolicy::Available;
    // The profile of a simulated device says nothing about real time.
    config.cluster.compute = ComputeConfig::Given { overhead_s: vec![1000.0], per_sample_s: vec![0.0] };
    let record = run(&config);
    assert_eq!(record.steps.len(), 6);
    assert!(record.steps.iter().all(|step| step.compute_s > 0.0 && step.compute_s <= step.step_s));
    assert!(record.steps.iter().all(|step| step.global_batch > 0 && step.step_s > 0.0));
    let times: Vec<f64> = record.steps.iter().map(|step| step.time_s).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
}
