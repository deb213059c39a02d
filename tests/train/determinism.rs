//! Same seed: byte-identical parameters and an identical trace, whatever the thread count.

use super::{run, small};
use scadles::metrics::record::RunRecord;
use scadles::train::config::{ArrivalConfig, CompressionConfig, Partition, RunConfig, SyncConfig};

/// Everything that a run reports except wall time.
fn trace(record: RunRecord) -> String {
    let steps = record.steps.into_iter().map(|mut step| {
        step.wall_s = 0.0;
        step
    });
    let evals = record.evals.into_iter().map(|mut eval| {
        eval.wall_s = 0.0;
        eval
    });
    format!(
        "{:?}\n{:?}\n{:08x}",
        steps.collect::<Vec<_>>(),
        evals.collect::<Vec<_>>(),
        record.parameters_crc32
    )
}

fn assert_same_for_all_thread_counts(name: &str, config: &mut RunConfig) {
    let [one, two, three] = [1, 2, 3].map(|threads| {
        config.run.threads = threads;
        trace(run(config))
    });
    assert!(one == two && two == three, "{name}: the trace depends on the thread count");
    config.seed += 1;
    assert!(trace(run(config)) != one, "{name}: the seed changes nothing");
}

#[test]
fn adaptive_compression_with_injection_and_skewed_labels() {
    let mut config = small(4, &[9.0, 17.0, 5.0, 30.0]);
    config.data.partition = Partition::Labels { labels_per_device: 3 };
    config.injection.alpha = 0.5;
    config.injection.beta = 0.25;
    config.cluster.arrivals = ArrivalConfig::Poisson;
    assert_same_for_all_thread_counts("injection", &mut config);
}

#[test]
fn dense_and_local_sgd() {
    let mut config = small(3, &[9.0, 17.0, 5.0]);
    config.compression = CompressionConfig::None;
    assert_same_for_all_thread_counts("dense", &mut config);
    config.sync = SyncConfig::Local { steps: 2 };
    assert_same_for_all_thread_counts("local SGD", &mut config);
}
