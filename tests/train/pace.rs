//! Cluster time: what the simulated cluster takes per step.

use super::{run, small};
use scadles::cluster::device_profile::NetworkCost;
use scadles::cluster::{DeviceProfile, Link};
use scadles::models::{self, ModelSpec};
use scadles::nn::Op;
use scadles::train::config::{
    Aggregation, ArrivalConfig, BatchPolicy, BufferPolicy, CompressionConfig, ComputeConfig, LinkConfig,
    RunConfig, Stem,
};

/// DDL on a cluster whose step takes `t` seconds of computing and nothing to communicate.
fn ddl(rates: &[f64], t: f64) -> RunConfig {
    let mut config = small(rates.len(), rates);
    config.model.width = 0.125;
    config.batch.policy = BatchPolicy::Fixed;
    config.batch.size = 64;
    config.buffer.policy = BufferPolicy::Persistence;
    config.aggregation = Aggregation::Uniform;
    config.compression = CompressionConfig::None;
    config.cluster.link = LinkConfig { bandwidth_mbit_s: 1e12, latency_ms: 0.0, efficiency: 1.0 };
    config.cluster.compute = ComputeConfig::Given { overhead_s: vec![t], per_sample_s: vec![0.0] };
    config
}

/// Fig. 6, baseline: a step takes `max(t, 64 / S_min)` once the first batch is there.
#[test]
fn the_baseline_step_is_the_larger_of_computing_and_the_slowest_stream() {
    let s1 = [50.0, 38.0, 12.0, 36.0];
    let s1_prime = [92.0, 38.0, 62.0, 22.0];
    let s2 = [136.0, 172.0, 174.0];
    for (rates, t, published) in [(&s1[..], 1.2, 5.33), (&s1_prime, 1.2, 2.91), (&s2, 1.23, 1.23)] {
        let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let record = run(&ddl(rates, t));
        for step in &record.steps[1..] {
            assert!((step.step_s - t.max(64.0 / slowest)).abs() < 1e-6, "{} at {rates:?}", step.step_s);
            assert!((step.step_s - published).abs() < 0.005, "{} against Fig. 6: {published}", step.step_s);
        }
    }
}

/// Fig. 6, ScaDLES: every device brings what one second gives it, so a step takes about a second.
#[test]
fn scadles_waits_for_one_second_of_samples_at_most() {
    let mut config = ddl(&[50.0, 38.0, 12.0, 36.0], 0.3);
    config.batch.policy = BatchPolicy::Rate;
    config.buffer.policy = BufferPolicy::Truncation;
    config.batch.min = 8;
    let record = run(&config);
    assert!(record.steps.iter().all(|step| step.local_batch == [50, 38, 12, 36]));
    for step in &record.steps[1..] {
        assert!((step.step_s - 1.0).abs() < 1e-6, "{}", step.step_s);
    }
}

/// The batch follows the rate of the moment, not that of the start.
#[test]
fn a_diurnal_stream_changes_the_batch_from_step_to_step() {
    let (rates, period_s, amplitude) = ([20.0, 10.0], 8.0, 0.9);
    let mut config = ddl(&rates, 1.0);
    config.cluster.arrivals = ArrivalConfig::Diurnal { period_s, amplitude };
    config.batch.policy = BatchPolicy::Rate;
    let record = run(&config);
    let mut begin_s = 0.0;
    for step in &record.steps {
        let swing = 1.0 + amplitude * (std::f64::consts::TAU * begin_s / period_s).sin();
        let wanted: Vec<u64> = rates.iter().map(|rate| (rate * swing).round().max(1.0) as u64).collect();
        assert_eq!(step.local_batch, wanted, "step {} begins at {begin_s} s", step.step);
        begin_s = step.time_s;
    }
    let first: Vec<u64> = record.steps.iter().map(|step| step.local_batch[0]).collect();
    assert!(first.iter().max() > first.iter().min(), "the rate never changed: {first:?}");
}

#[test]
fn persistence_piles_up_and_truncation_does_not() {
    let rates = [4.0, 40.0];
    let mut config = ddl(&rates, 0.1);
    config.batch.size = 8;
    config.run.steps = 10;
    let held = |config: &RunConfig| run(config).steps.last().unwrap().occupancy_samples.clone();
    // 10 steps of 2 s and the 0.1 s of the last one: 804 samples arrived at the fast device, 80 are trained on.
    assert_eq!(held(&config), [0, 724]);
    config.buffer.policy = BufferPolicy::Truncation;
    assert_eq!(held(&config), [0, 40]);
}

#[test]
fn communication_takes_the_time_of_the_ring() {
    let mut config = ddl(&[64.0, 64.0], 1.0);
    config.cluster.link = LinkConfig { bandwidth_mbit_s: 10.0, latency_ms: 1.0, efficiency: 1.0 };
    let record = run(&config);
    let bytes = 4.0 * record.parameters as f64;
    // All-reduce between two devices: two rounds of half the vector; and one round of the batch sizes.
    let expected = 2.0 * (1e-3 + bytes / 2.0 / 1.25e6) + (1e-3 + 8.0 / 1.25e6);
    let step = record.steps.last().unwrap();
    assert!((step.comm_s - expected).abs() < 1e-6, "{} against {expected}", step.comm_s);
    assert!((step.step_s - (1.0 + expected)).abs() < 1e-6);
    assert_eq!(step.dense_bytes, 2 * 4 * record.parameters);
    assert_eq!(step.sent_bytes, step.dense_bytes + 2 * 8);
    assert_eq!(step.received_bytes, step.sent_bytes);
}

/// Fig. 6, ResNet-152, from the calibrated device and link: published seconds per step within 8 %.
///
/// S2' under ScaDLES (published 2.22 s) is left out: with smaller batches than S2 it should be shorter, not longer.
#[test]
fn the_calibrated_cluster_takes_the_published_times() {
    let spec =
        ModelSpec { name: "resnet152".into(), stem: Stem::Imagenet, classes: 1000, ..ModelSpec::default() };
    let plan = models::plan(&spec, 1).unwrap();
    let cost = NetworkCost {
        macs_per_image: plan.macs_per_image() as u64,
        weighted_layers: plan.layers().iter().filter(|layer| matches!(layer.op, Op::Conv2d { .. })).count(),
    };
    let device = DeviceProfile::k80(cost);
    let sync = Link::new(&LinkConfig::default()).all_reduce_time(4 * plan.num_params() as u64, 8);
    // Largest batch of the cluster, published time: the baseline on S2, ScaDLES on S2, S1 and S1'.
    for (batch, published) in [(64, 1.23), (410, 1.85), (82, 1.32), (92, 1.19)] {
        let step_s = (device.compute_time(batch) + sync).as_secs_f64();
        assert!(
            (step_s / published - 1.0).abs() < 0.08,
            "batch {batch}: {step_s} s, published {published} s"
        );
    }
}
