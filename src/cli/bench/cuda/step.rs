//! Whole training steps: a batch from pinned memory, forward, backward, norm of the gradient, update.

use super::data::Stored;
use super::{FMA, Gpu};
use crate::cli::bench::{Failure, Row, Timed};
use crate::device::cuda::{DeviceMomentum, SgdStep};
use crate::models::{self, ModelSpec};
use crate::nn::cuda::{CudaExecutor, HostBatch, HostHeader};
use crate::ops::input::Normalizer;
use crate::ops::norm;
use crate::rng::{Philox, Stream};
use crate::train::config::Stem;
use half::bf16;
use std::sync::Arc;

/// Networks by their names in rows; `im` is the stem of ImageNet.
const NETWORKS: [(&str, &str, Stem); 5] = [
    ("resnet18", "resnet18", Stem::Cifar),
    ("resnet20", "resnet20", Stem::Cifar),
    ("vgg19bn", "vgg19_bn", Stem::Cifar),
    ("resnet152im", "resnet152", Stem::Imagenet),
    ("resnet152", "resnet152", Stem::Cifar),
];
const BATCHES: [usize; 4] = [256, 64, 1024, 16];
/// Steps between two readings of the clock.
const STEPS: usize = 4;

pub(super) fn rows(gpu: &Gpu) -> Vec<Row> {
    let mut rows = Vec::new();
    let (networks, batches) = if gpu.tiny { (1..3, &[2][..]) } else { (0..NETWORKS.len(), &BATCHES[..]) };
    for &batch in batches {
        for network in &NETWORKS[networks.clone()] {
            rows.push(row::<bf16>(gpu, *network, batch));
            rows.push(row::<f32>(gpu, *network, batch));
        }
    }
    rows
}

fn spec(name: &str, stem: Stem, tiny: bool) -> ModelSpec {
    let full = ModelSpec { name: name.into(), stem, ..ModelSpec::default() };
    if tiny { ModelSpec { width: 0.125, ..full } } else { full }
}

fn row<E: Stored>(gpu: &Gpu, (name, model, stem): (&str, &'static str, Stem), batch: usize) -> Row {
    let spec = spec(model, stem, gpu.tiny);
    let macs = models::plan(&spec, 1).expect("a published network").macs_per_image();
    // Backward is twice forward.
    let flop = 3.0 * 2.0 * (batch * macs) as f64;
    let multiplying = if E::IS_BF16 { gpu.matrix() } else { FMA };
    let name = format!("train {name} b={batch} {}", E::NAME);
    gpu.row(name, (batch as f64, "images/s"), vec![(flop, multiplying)], move |gpu, seed| {
        prepare::<E>(gpu, seed, &spec, batch)
    })
}

fn prepare<E: Stored>(gpu: &Gpu, seed: u64, spec: &ModelSpec, batch: usize) -> Result<Timed, Failure> {
    let device = Arc::clone(&gpu.device);
    let (free_bytes, _) = device.memory_bytes()?;
    let plan = Arc::new(models::plan(spec, batch)?);
    let normalizer = Normalizer::new(&[0.5; 3], &[0.25; 3]);
    let mut executor = CudaExecutor::<E>::new(Arc::clone(&device), Arc::clone(&plan), normalizer, seed)?;
    device.copy_from_host(&plan.init_params(seed), executor.params_and_grad().0)?;
    device.copy_from_host(&plan.init_stats(), executor.stats_mut())?;

    let mut rng = Philox::new(seed, Stream::Images, 0);
    let mut pixels = device.pinned::<u8>(batch * plan.image().numel())?;
    pixels.iter_mut().for_each(|pixel| *pixel = rng.below(256) as u8);
    let placements = device.pinned::<i32>(3 * batch)?;
    let labels: Vec<u32> = (0..batch).map(|_| rng.below(plan.classes() as u32)).collect();
    let mut header = HostHeader::new(&device, batch)?;

    let numel = plan.num_params();
    let mut velocity = gpu.zeros::<f32>(numel)?;
    let mut squared_norm = gpu.zeros::<f64>(1)?;
    let mut scratch = gpu.zeros::<f64>(norm::cuda::scratch_len(numel))?;
    let step = SgdStep { lr: 1e-4, weight_decay: 5e-4 };
    let mut index = 0;
    let mut run = move |executor: &mut CudaExecutor<E>, steps: usize| -> Result<(), Failure> {
        for _ in 0..steps {
            index += 1;
            executor.pack()?;
            let batch =
                HostBatch { pixels: &pixels, placements: &placements, labels: &labels, dropout_index: index };
            // SAFETY: pixels and labels stay as they are; the header is written again only after the wait below.
            unsafe { executor.forward_backward(batch, &mut header) }?;
            let total = squared_norm.view_mut();
            norm::cuda::sum_of_squares(executor.device(), executor.grad(), total, scratch.view_mut())?;
            let device = Arc::clone(executor.device());
            // As in training: the host reads loss and norm before it lets the parameters move.
            device.synchronize()?;
            let (params, grad) = executor.params_and_grad();
            let momentum = DeviceMomentum::Classic(velocity.view_mut(), 0.9);
            device.sgd(params, grad, momentum, step)?;
        }
        Ok(())
    };
    executor.clear_loss()?;
    run(&mut executor, 1)?;
    let loss = device.download(executor.loss())?[0] / batch as f64;
    // Untrained, a network is about as wrong as one that guesses.
    let guessing = (plan.classes() as f64).ln();
    if !(loss > 0.1 * guessing && loss < 10.0 * guessing) {
        return Err(format!("wrong result: the first loss is {loss}, not near {guessing:.2}").into());
    }
    let memory_bytes = free_bytes.saturating_sub(device.memory_bytes()?.0);
    let clock = gpu.clone();
    let call = move || Ok(clock.elapsed(|| run(&mut executor, STEPS))? / STEPS as f64);
    Ok(Timed { call: Box::new(call), memory_bytes: Some(memory_bytes) })
}
