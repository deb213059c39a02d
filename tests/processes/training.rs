//! Training over several processes against training in one.

use crate::{job, link};
use scadles::comm::{Communicator, LocalCommunicator};
use scadles::metrics::record::StepRecord;
use scadles::train::Trainer;
use scadles::train::config::{
    BatchPolicy, CompressionConfig, DeviceKind, GateConfig, InjectionConfig, RatesConfig, RunConfig,
    SyncConfig, TopKConfig,
};

const DEVICES: usize = 4;
const STEPS: usize = 8;

fn config() -> RunConfig {
    let mut config = RunConfig::default();
    config.model.width = 0.25;
    config.cluster.device = DeviceKind::Cpu;
    config.cluster.devices = DEVICES;
    // The last device has a sample every five seconds: some steps bring it none.
    config.cluster.rates = RatesConfig::List(vec![12.0, 9.0, 20.0, 0.2]);
    config.cluster.wait_limit_s = 1.5;
    (config.data.embedded_train, config.data.embedded_test) = (200, 40);
    config.batch.min = 1;
    config.run.steps = STEPS;
    config
}

fn kinds() -> Vec<(&'static str, RunConfig)> {
    let gate = GateConfig::Paper { delta: 0.6, ewma: 0.5 };
    let top_k = CompressionConfig::TopK(TopKConfig { density: 0.05, gate, ..TopKConfig::default() });
    let injection = InjectionConfig { alpha: 0.5, beta: 0.25, ..InjectionConfig::default() };
    let mut available = RunConfig { compression: CompressionConfig::None, ..config() };
    available.batch.policy = BatchPolicy::Available;
    vec![
        ("dense", RunConfig { compression: CompressionConfig::None, ..config() }),
        ("top-k", RunConfig { compression: top_k, ..config() }),
        ("injection", RunConfig { compression: top_k, injection, ..config() }),
        ("available", available),
        (
            "local",
            RunConfig {
                sync: SyncConfig::Local { steps: 3 },
                compression: CompressionConfig::None,
                ..config()
            },
        ),
    ]
}

/// What a run leaves, but for wall times.
fn train(config: &RunConfig, comm: Box<dyn Communicator>) -> (Vec<f32>, Vec<StepRecord>, [f64; 3]) {
    let mut trainer = Trainer::with_communicator(config, comm).unwrap();
    let records = (0..STEPS)
        .map(|_| StepRecord { wall_s: 0.0, drift: Vec::new(), ..trainer.step().unwrap() })
        .collect();
    trainer.check_params().unwrap();
    let eval = trainer.evaluate().unwrap();
    (trainer.params().unwrap().into_owned(), records, [eval.loss, eval.top1, eval.time_s])
}

#[test]
fn a_process_per_device_trains_as_one_process_does_to_the_last_bit() {
    for (name, config) in kinds() {
        let alone = train(&config, Box::new(LocalCommunicator::new(DEVICES, link())));
        let without = alone.1.iter().filter(|record| record.local_batch[3] == 0).count();
        let may_lack = matches!(name, "dense" | "top-k");
        assert!(!may_lack || without > 0, "{name}: the slow device always has samples");
        for (process, together) in
            job(DEVICES, DEVICES, |_, comm| train(&config, Box::new(comm))).iter().enumerate()
        {
            assert!(
                together.0 == alone.0,
                "{name}: process {process} has other parameters than one process alone"
            );
            // NaN, the age of no sample, is not equal to itself.
            assert_eq!(
                format!("{:?}", together.1),
                format!("{:?}", alone.1),
                "{name}: records of process {process}"
            );
            // The merged statistics of batch norm are rounded once per process.
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs();
            assert!(
                close(together.2[0], alone.2[0]) && together.2[1..] == alone.2[1..],
                "{name}: evaluation {:?} of process {process}, {:?} of one alone",
                together.2,
                alone.2
            );
        }
    }
}

#[test]
fn two_processes_of_two_devices_have_the_same_parameters_and_those_of_one_to_rounding() {
    let config = RunConfig { compression: CompressionConfig::None, ..config() };
    let alone = train(&config, Box::new(LocalCommunicator::new(DEVICES, link())));
    let together = job(2, DEVICES, |_, comm| train(&config, Box::new(comm)));
    assert!(together[0].0 == together[1].0);
    let far = alone.0.iter().zip(&together[0].0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-2, "parameters are {far} apart");
}
