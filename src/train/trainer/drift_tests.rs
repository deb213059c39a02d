//! A run in which the classes of one device's stream change.

use super::*;
use crate::metrics::record::DriftKind;
use crate::stream::VirtualStream;
use crate::stream::source::{ReplaySource, Samples};
use crate::train::config::{DeviceKind, DriftConfig, DriftReaction, PageHinkleyConfig, RatesConfig};

const RATE: f64 = 20.0;
const CHANGE: u64 = 45;

fn config(react: DriftReaction) -> RunConfig {
    let mut config = RunConfig::default();
    config.model.width = 0.25;
    (config.data.embedded_train, config.data.embedded_test) = (400, 50);
    config.cluster.devices = 2;
    config.cluster.device = DeviceKind::Cpu;
    config.cluster.rates = RatesConfig::List(vec![RATE]);
    config.buffer.keep = 200;
    config.run.steps = 60;
    config.optimizer.lr = 0.1;
    config.optimizer.schedule = crate::train::config::ScheduleConfig::Constant;
    let drift = PageHinkleyConfig { label_window: 100, react, ..PageHinkleyConfig::default() };
    config.drift = DriftConfig::PageHinkley(drift);
    config
}

/// A stream of the images of these classes from the beginning of time.
fn stream(
    config: &RunConfig,
    device: u64,
    classes: std::ops::Range<u32>,
) -> Box<dyn crate::stream::DeviceStream> {
    let train = setup::load_data(config).unwrap().train;
    let of = |i: &u32| classes.contains(&train.labels()[*i as usize]);
    let share: Vec<u32> = (0..train.labels().len() as u32).filter(of).collect();
    let rates = RateModel::new(&config.cluster.rates, &config.cluster.arrivals, 2, config.seed).unwrap();
    let samples: Arc<dyn Samples> = Arc::new(train);
    let source =
        ReplaySource::new(samples, share, rates.arrivals(device as usize), config.seed, device).unwrap();
    Box::new(VirtualStream::new(source, &config.buffer, config.seed, device).unwrap())
}

/// All steps of a run in which device 1 sees classes 0 to 4 first and 5 to 9 from step [`CHANGE`] on.
fn steps(config: &RunConfig) -> Vec<StepRecord> {
    let mut trainer = Trainer::new(config).unwrap();
    for device in 0..2 {
        trainer.devices[device].stream = stream(config, device as u64, 0..5);
    }
    (1..=config.run.steps as u64)
        .map(|number| {
            if number == CHANGE {
                trainer.devices[1].stream = stream(config, 1, 5..10);
            }
            trainer.step().unwrap()
        })
        .collect()
}

#[test]
fn new_classes_are_found_in_labels_and_loss_of_their_device() {
    let steps = steps(&config(DriftReaction::LrBoost));
    let found: Vec<(u64, u64, DriftKind)> = steps
        .iter()
        .flat_map(|step| step.drift.iter().map(|drift| (step.step, drift.device, drift.kind)))
        .collect();
    let first = |kind| found.iter().find(|drift| drift.2 == kind).map(|drift| drift.0);
    // The other device's loss may follow: the network that both train moves to the new classes.
    let labels_or_first =
        found.iter().enumerate().filter(|(i, drift)| *i < 2 || drift.2 == DriftKind::Labels);
    assert!(labels_or_first.map(|(_, drift)| drift.1).all(|device| device == 1), "{found:?}");
    assert!(found.iter().all(|drift| drift.0 >= CHANGE), "{found:?}");
    // 100 labels are five steps.
    assert!(first(DriftKind::Labels).is_some_and(|step| step < CHANGE + 5), "{found:?}");
    assert!(first(DriftKind::Loss).is_some_and(|step| step < CHANGE + 10), "{found:?}");
    let drifted = found[0].0;
    let lr = |number: u64| steps[number as usize - 1].lr;
    assert_eq!(lr(drifted), lr(1));
    assert!((lr(drifted + 1) - 2.0 * lr(1)).abs() < 1e-12, "{} {}", lr(drifted + 1), lr(1));
    for step in &steps {
        let sum: f64 = step.device_loss.iter().zip(&step.local_batch).map(|(loss, &n)| loss * n as f64).sum();
        assert!((sum / step.global_batch as f64 - step.loss).abs() < 1e-9, "step {}", step.step);
    }
}

#[test]
fn a_device_that_drifted_drops_what_is_not_new() {
    let (kept, dropped) = (steps(&config(DriftReaction::None)), steps(&config(DriftReaction::KeepNewest)));
    let drifted = dropped.iter().position(|step| !step.drift.is_empty()).unwrap();
    // The new stream brings 45 s at once, of which truncation keeps 200 samples; a second brings 20.
    assert_eq!(kept[drifted].occupancy_samples[1], 200);
    assert!((20..=42).contains(&dropped[drifted].occupancy_samples[1]), "{:?}", dropped[drifted]);
    assert_eq!(kept[drifted].occupancy_samples[0], dropped[drifted].occupancy_samples[0]);
    let held = |step: &StepRecord| step.dropped_samples[1] + step.occupancy_samples[1];
    assert_eq!(held(&kept[drifted]), held(&dropped[drifted]));
}

#[test]
fn every_sample_is_accounted_for_and_the_oldest_has_an_age() {
    let mut config = config(DriftReaction::None);
    // A batch of 15 of the 20 that come each second: the rest waits, up to 200.
    config.batch = crate::train::config::BatchConfig {
        policy: crate::train::config::BatchPolicy::Fixed,
        size: 15,
        ..config.batch
    };
    config.cluster.compute =
        crate::train::config::ComputeConfig::Given { overhead_s: vec![1.0], per_sample_s: vec![0.0] };
    let mut trainer = Trainer::new(&config).unwrap();
    let steps: Vec<StepRecord> = (0..50).map(|_| trainer.step().unwrap()).collect();
    for step in &steps {
        for device in 0..2 {
            let held = step.occupancy_samples[device];
            let out = step.taken_samples[device] + step.dropped_samples[device] + held;
            assert_eq!(step.arrived_samples[device], out, "step {}", step.step);
            assert_eq!(step.taken_samples[device], 15 * step.step);
            // They came 20 a second, so the oldest of them is as old as that.
            let age_s = step.oldest_age_s[device];
            let expected_s = held as f64 / RATE;
            assert!((age_s - expected_s).abs() <= 1.0 / RATE + 1e-6, "step {}: {age_s} {held}", step.step);
        }
        assert_eq!((step.dead_lettered_samples[1], step.lag_samples[1]), (0, 0));
    }
    assert_eq!(steps[49].occupancy_samples, [200, 200]);
}
