//! What every engine must do when devices have no samples, when a gradient is not finite, and with devices elsewhere.
//!
//! The tests of [`on_cuda`] run on a GPU where there is one, and on the emulator.

#[allow(dead_code, reason = "shared with the integration tests")]
#[path = "../../../tests/support/emulator.rs"]
mod emulator;

use super::*;
use crate::cluster::Link;
use crate::comm::{CommError, LocalCommunicator, Traffic};
use crate::models::{self, ModelSpec};
use crate::ops::conv2d::CpuElement;
use crate::ops::input::ImageShape;
use crate::rng::{Philox, Stream};
use crate::train::config::{
    CompressionConfig, DgcConfig, GateConfig, LinkConfig, OptimizerKind, SyncConfig, TopKConfig, ValueCoding,
};
use crate::train::device_batch::Images;
use std::ops::Range;

const BATCH: usize = 4;

/// One of two processes with a device each, where the other one does the same.
struct Mirrored;

impl Communicator for Mirrored {
    fn world_size(&self) -> usize {
        2
    }

    fn local_ranks(&self) -> Range<usize> {
        0..1
    }

    fn all_gather_scalars(
        &mut self,
        local: &[f64],
        all: &mut [f64],
    ) -> std::result::Result<Traffic, CommError> {
        all.copy_from_slice(&[local[0], local[0]]);
        Ok(Traffic::default())
    }

    fn all_reduce_sum(&mut self, vector: &mut [f32]) -> std::result::Result<Traffic, CommError> {
        vector.iter_mut().for_each(|x| *x += *x);
        Ok(Traffic::default())
    }

    fn all_gather_bytes(
        &mut self,
        local: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> std::result::Result<Traffic, CommError> {
        (0..2).for_each(|rank| visit(rank, &local[0]));
        Ok(Traffic::default())
    }

    fn all_reduce_hosted(&mut self, _: usize) -> std::result::Result<Traffic, CommError> {
        Err(CommError::NotHosted { op: "all_reduce_hosted", hosted: 1, world_size: 2 })
    }

    fn all_gather_hosted(&mut self, _: &[u64]) -> std::result::Result<Traffic, CommError> {
        Err(CommError::NotHosted { op: "all_gather_hosted", hosted: 1, world_size: 2 })
    }
}

fn together() -> LocalCommunicator {
    LocalCommunicator::new(2, Link::new(&LinkConfig::default()))
}

/// Every way from gradients to parameters.
fn updates() -> Vec<(&'static str, RunConfig)> {
    let always = TopKConfig { density: 0.05, gate: GateConfig::Always, ..TopKConfig::default() };
    let closed = TopKConfig { gate: GateConfig::Paper { delta: 0.0, ewma: 0.5 }, ..always };
    let rounded = TopKConfig { values: ValueCoding::Bf16, error_feedback: false, ..always };
    let with = |compression| RunConfig { compression, ..RunConfig::default() };
    let dense = with(CompressionConfig::None);
    let mut lars = dense.clone();
    lars.optimizer.kind = OptimizerKind::Lars;
    vec![
        ("top-k", with(CompressionConfig::TopK(always))),
        ("top-k, closed gate", with(CompressionConfig::TopK(closed))),
        ("top-k, bf16 without error feedback", with(CompressionConfig::TopK(rounded))),
        ("DGC", with(CompressionConfig::Dgc(DgcConfig::default()))),
        ("LARS", lars),
        ("local SGD", RunConfig { sync: SyncConfig::Local { steps: 2 }, ..dense.clone() }),
        ("dense", dense),
    ]
}

/// Makes an engine that hosts this many of two devices.
type Open = dyn Fn(&RunConfig, &Arc<Plan>, usize) -> Box<dyn Engine>;

/// Makes engines of one kind.
struct Bench<'a> {
    plan: Arc<Plan>,
    open: &'a Open,
}

impl<'a> Bench<'a> {
    fn new(open: &'a Open) -> Self {
        let image = ImageShape { h: 8, w: 8, c: 3 };
        let spec = ModelSpec { name: "resnet20".into(), width: 0.25, image, ..ModelSpec::default() };
        Self { plan: Arc::new(models::plan(&spec, BATCH).unwrap()), open }
    }

    fn engine(&self, config: &RunConfig, hosted: usize) -> Box<dyn Engine> {
        (self.open)(config, &self.plan, hosted)
    }

    fn start(plan: &Plan) -> (Vec<f32>, Vec<f32>) {
        (plan.init_params(3), plan.init_stats())
    }
}

/// What a pixel is multiplied by in each channel. Good images have zeros in the first; 255 becomes infinite there.
const SCALES: [f32; 3] = [1e38, 1.0, 1.0];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Good(u64),
    /// Its gradient is not finite.
    Bad,
    Empty,
}

fn batch(engine: &dyn Engine, plan: &Plan, content: Content) -> DeviceBatch {
    let mut batch = engine.new_batch(BATCH).unwrap();
    let (key, first) = match content {
        Content::Good(key) => (key, 0),
        Content::Bad => (0, 255),
        Content::Empty => return batch,
    };
    let mut rng = Philox::new(key, Stream::Images, 1);
    batch.labels.extend((0..BATCH).map(|_| rng.below(plan.classes() as u32)));
    for i in 0..BATCH * plan.image().numel() {
        let value = if i % 3 == 0 { first } else { rng.below(5) as u8 };
        match &mut batch.images {
            Images::Ready(x) => x[i] = f32::from(value) * SCALES[i % 3],
            Images::Raw { pixels, .. } => pixels[i] = value,
        }
    }
    batch
}

/// One step of the hosted devices.
fn step(
    engine: &mut dyn Engine,
    plan: &Plan,
    comm: &mut dyn Communicator,
    number: u64,
    contents: &[Content],
    weights: &[f64],
) -> StepOutcome {
    let batches: Vec<_> = contents.iter().map(|&content| batch(engine, plan, content)).collect();
    engine.begin_step().unwrap();
    for (index, batch) in batches.iter().enumerate() {
        let dropout = DropoutSeed { seed: 1, index: number };
        let agg_weight = weights[index];
        let device = DeviceStep { index, agg_weight, progress: 0.5, local_lr: 0.01, dropout };
        engine.train(batch, device).unwrap();
    }
    let global_batch =
        (BATCH as f64 * weights.iter().filter(|&&weight| weight > 0.0).count() as f64) as usize;
    let outcome =
        engine.end_step(ClusterStep { step: number, global_batch, weights, lr: 0.01 }, comm).unwrap();
    let losses = engine.device_losses();
    let sum: f64 = losses.iter().map(|loss| loss.loss_sum).sum();
    let all = outcome.loss.loss_sum;
    assert_eq!(losses.len(), contents.len());
    // Differences of running sums round.
    assert!(
        !all.is_finite() || (sum - all).abs() <= 1e-9 * all,
        "the losses of the devices add up to {sum}, not {all}"
    );
    outcome
}

fn bits(engine: &dyn Engine) -> Vec<u32> {
    engine.params().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// Two processes that do the same, against one that hosts both devices.
fn two_processes_give_the_bytes_of_one(bench: &Bench<'_>) {
    for (name, config) in updates() {
        let (mut one, mut half) = (bench.engine(&config, 2), bench.engine(&config, 1));
        let start = bits(one.as_ref());
        for number in 1..=4 {
            let good = Content::Good(number);
            let weights = [0.5, 0.5];
            let expected = step(one.as_mut(), &bench.plan, &mut together(), number, &[good; 2], &weights);
            let found = step(half.as_mut(), &bench.plan, &mut Mirrored, number, &[good], &weights);
            assert_eq!(found.exchange.compressed, expected.exchange.compressed, "{name}, step {number}");
            assert_eq!(found.grad_norm, expected.grad_norm, "{name}, step {number}");
            assert!(!found.diverged && !expected.diverged, "{name}, step {number}");
            assert!(bits(half.as_ref()) == bits(one.as_ref()), "{name}, step {number}: parameters differ");
        }
        assert!(bits(one.as_ref()) != start, "{name}: nothing moved");
    }
}

/// Steps without samples of one device, and of both.
fn devices_without_samples_change_nothing(bench: &Bench<'_>) {
    for (name, config) in updates() {
        let (mut engine, mut comm) = (bench.engine(&config, 2), together());
        let mut go = |number, contents: [Content; 2], weights: [f64; 2]| {
            let before = bits(engine.as_ref());
            let outcome = step(engine.as_mut(), &bench.plan, &mut comm, number, &contents, &weights);
            assert!(!outcome.diverged, "{name}, step {number}");
            (outcome, bits(engine.as_ref()) != before)
        };
        go(1, [Content::Good(1), Content::Good(2)], [0.5, 0.5]);
        let (outcome, moved) = go(2, [Content::Empty, Content::Good(3)], [0.0, 1.0]);
        assert!(moved && outcome.loss.loss_sum > 0.0 && outcome.grad_norm > 0.0, "{name}");
        let (outcome, moved) = go(3, [Content::Empty; 2], [0.0, 0.0]);
        assert!(!moved, "{name}: parameters moved without samples");
        assert_eq!((outcome.loss.loss_sum, outcome.grad_norm), (0.0, 0.0), "{name}");
        // Local SGD averages what step 2 left open only when it is due; nothing is left open here.
        let (_, moved) = go(4, [Content::Good(4), Content::Empty], [1.0, 0.0]);
        assert!(moved, "{name}: parameters stay after a step without samples");
    }
}

/// A gradient that is not finite, in one device, at each place.
fn a_diverged_step_moves_nothing_and_the_next_goes_on(bench: &Bench<'_>) {
    for (name, config) in updates() {
        for bad in 0..2 {
            let (mut engine, mut comm) = (bench.engine(&config, 2), together());
            let mut contents = [Content::Good(1), Content::Good(2)];
            let mut go = |number, contents: &[Content; 2]| {
                let outcome = step(engine.as_mut(), &bench.plan, &mut comm, number, contents, &[0.5, 0.5]);
                (outcome.diverged, bits(engine.as_ref()))
            };
            // Local SGD averages after steps 2 and 4: the bad step is not due for it.
            let (diverged, _) = go(1, &contents);
            assert!(!diverged, "{name}, {bad}");
            let (diverged, before) = go(2, &contents);
            assert!(!diverged, "{name}, {bad}");
            contents[bad] = Content::Bad;
            let (diverged, after) = go(3, &contents);
            assert!(diverged, "{name}, {bad}: not noticed");
            assert!(after == before, "{name}, {bad}: parameters moved");
            contents[bad] = Content::Good(3);
            let (diverged, after) = go(4, &contents);
            assert!(!diverged && after != before, "{name}, {bad}: it does not go on");
            assert!(after.iter().all(|&x| f32::from_bits(x).is_finite()), "{name}, {bad}");
        }
    }
}

fn all(bench: &Bench<'_>) {
    two_processes_give_the_bytes_of_one(bench);
    devices_without_samples_change_nothing(bench);
    a_diverged_step_moves_nothing_and_the_next_goes_on(bench);
}

fn on_cpu<E: CpuElement>() {
    all(&Bench::new(&|config, plan, hosted| {
        Box::new(CpuEngine::<E>::new(config, plan, Bench::start(plan), hosted, 2).unwrap())
    }));
}

#[test]
fn the_cpus_engine_in_f32() {
    on_cpu::<f32>();
}

#[test]
fn the_cpus_engine_in_bf16() {
    on_cpu::<bf16>();
}

/// Tests that need a GPU or the emulator.
mod on_cuda {
    use super::*;

    fn run<E: crate::device::cuda::Element>(name: &str) {
        let Ok(gpu) = Device::open(crate::train::config::DeviceKind::Cuda) else {
            assert!(std::env::var("REQUIRE_GPU").is_err(), "{name} needs a GPU");
            println!("skipped: {name} (no GPU)");
            return;
        };
        drop(gpu);
        all(&Bench::new(&|config, plan, hosted| {
            let Ok(Device::Cuda(gpu)) = Device::open(crate::train::config::DeviceKind::Cuda) else {
                panic!("the GPU was there");
            };
            let normalizer = Normalizer::new(&[0.0; 3], &SCALES.map(|scale| 1.0 / 255.0 / scale));
            let start = Bench::start(plan);
            Box::new(CudaEngine::<E>::new(config, gpu, plan, normalizer, start, hosted, 2).unwrap())
        }));
    }

    #[test]
    fn the_gpus_engine_in_f32() {
        run::<f32>("the_gpus_engine_in_f32");
    }

    #[test]
    fn the_gpus_engine_in_bf16() {
        run::<bf16>("the_gpus_engine_in_bf16");
    }
}

#[test]
fn the_gpus_engine_on_the_emulator() {
    let Some(emulator) = emulator::emulator_or_skip("the_gpus_engine_on_the_emulator") else { return };
    let mut command = emulator.command(std::env::current_exe().unwrap());
    let output = command.args(["engine::tests::on_cuda", "--test-threads", "1"]).output().unwrap();
    let said = emulator::text(&output);
    assert!(output.status.success() && !said.contains("skipped:") && said.contains(" 2 passed"), "{said}");
}
