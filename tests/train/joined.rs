//! Dense and without batch norm, N devices equal one device on the joined batch, to rounding.

use super::small;
use scadles::data;
use scadles::train::Trainer;
use scadles::train::config::{
    Aggregation, BufferPolicy, CompressionConfig, ComputeConfig, Partition, RatesConfig, RunConfig,
};

const SAMPLES: usize = 60;
const DEVICES: usize = 4;
const STEPS: usize = 3;

/// Every device brings the whole of its share in each step, so all devices together bring the whole data set.
fn whole_shares(devices: usize) -> RunConfig {
    let mut config = small(devices, &[]);
    config.model.name = "vgg11".into();
    config.model.width = 0.125;
    (config.data.embedded_train, config.data.embedded_test) = (SAMPLES, 10);
    config.data.augment = false;
    config.data.partition = Partition::Dirichlet { alpha: 0.5 };
    config.compression = CompressionConfig::None;
    config.buffer.policy = BufferPolicy::Persistence;
    config.cluster.compute = ComputeConfig::Given { overhead_s: vec![0.0], per_sample_s: vec![0.0] };
    config.batch.size = SAMPLES / devices; // the same base global batch, so the same scaled learning rate
    config.optimizer.lr = 0.05;

    let all = data::embedded(config.seed, SAMPLES, 10).train;
    let rule = &config.data.partition;
    let shares = data::partition(all.labels(), all.classes(), devices, rule, config.seed).unwrap();
    config.cluster.rates = RatesConfig::List(shares.iter().map(|share| share.len() as f64).collect());
    config
}

/// Parameters before and after the steps.
fn trained(config: &RunConfig) -> (Vec<f32>, Vec<f32>) {
    let mut trainer = Trainer::new(config).unwrap();
    let before = trainer.params().unwrap().to_vec();
    for _ in 0..STEPS {
        assert_eq!(trainer.step().unwrap().global_batch, SAMPLES as u64);
    }
    (before, trainer.params().unwrap().to_vec())
}

/// Largest difference; NaN if there is one.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |max, x| if x > max || x.is_nan() { x } else { max })
}

#[test]
fn several_devices_equal_one_on_the_joined_batch() {
    let (before, one) = trained(&whole_shares(1));
    let moved = distance(&before, &one);
    assert!(moved > 1e-3, "the steps moved no parameter by more than {moved}");

    let mut config = whole_shares(DEVICES);
    let RatesConfig::List(rates) = &config.cluster.rates else { unreachable!("a list is set above") };
    assert!(
        rates.iter().any(|&rate| rate != rates[0]),
        "unequal shares, or weights would not matter: {rates:?}"
    );
    let (_, several) = trained(&config);
    // Sums of f32 in another order, over three steps: some units in the last of 24 bits.
    let off = distance(&one, &several);
    assert!(off <= 1e-4 * moved, "{off} of {moved}");

    // Weights that ignore how many samples each device has are noticed.
    config.aggregation = Aggregation::Uniform;
    let off = distance(&one, &trained(&config).1);
    assert!(off > 1e-2 * moved, "uniform weights differ by {off} of {moved} only");
}
