//! Known defects of the published code that only a whole step shows; the others are in the tests of compression.

use super::{run, small};
use scadles::train::config::{InjectedBatch, InjectionConfig};

/// Equal shards with unequal batches make loaders end at different steps, and the next collective waits for ever.
#[test]
fn defect_4_equal_shards_with_unequal_batches_end_at_different_steps() {
    let (shard, batches) = (10, [10, 2]);
    let mut config = small(2, &batches.map(|batch| batch as f64));
    config.data.embedded_train = 2 * shard;
    config.run.steps = 7;
    // Defective: a loader ends with its shard, device 0 after one step and device 1 after five.
    let loader_steps = batches.map(|batch| shard.div_ceil(batch));
    assert!(loader_steps[0] != loader_steps[1] && loader_steps.iter().all(|&steps| steps < config.run.steps));
    // Ours: a stream goes on, and every device takes part in every step.
    let record = run(&config);
    assert_eq!(record.steps.len(), config.run.steps);
    assert!(record.steps.iter().all(|step| step.local_batch == [10, 2]));
}

/// Injection that only inflates the batch.
#[test]
fn defect_5_injection_that_only_inflates_the_batch() {
    let mut config = small(4, &[20.0]);
    config.run.steps = 2;
    let mut mean_batch = |injection: InjectionConfig| {
        config.injection = injection;
        let record = run(&config);
        let total: u64 = record.steps.iter().map(|step| step.global_batch).sum();
        total as f64 / (record.steps.len() * config.cluster.devices) as f64
    };
    let rule = |batch| InjectionConfig { alpha: 0.5, beta: 0.5, batch };
    let without = mean_batch(InjectionConfig::default());
    assert_eq!(without, 20.0);
    // Two of four devices give half of their batch to the three others: 1.5 givers' shares on average.
    assert_eq!(mean_batch(rule(InjectedBatch::Paper)), without + 1.5 * 10.0);
    // b / (1 + alpha beta N) of its own, as if a device also received what it gives: never above the wanted batch.
    assert_eq!(mean_batch(rule(InjectedBatch::Selsync)), 10.0 + 1.5 * 5.0);
}
