//! 200 training steps on both backends: the losses stay together.

use crate::networks::{Images, OnCpu, OnGpu, plan};
use crate::support::device_or_skip;
use half::bf16;
use scadles::device::cuda::{CudaDevice, DeviceMomentum, Element, SgdStep};
use scadles::models::Stem;
use scadles::nn::Plan;
use scadles::optim::Sgd;
use scadles::train::config::OptimizerConfig;
use std::sync::Arc;

const STEPS: usize = 200;
/// Batches of changing size, as shares of the largest: most smaller than their bucket.
const BATCHES: [usize; 5] = [8, 6, 7, 4, 8];
/// Steps whose mean loss is compared.
const WINDOW: usize = 20;

fn batch(plan: &Plan, step: usize) -> Images {
    Images::draw(plan, plan.max_batch() * BATCHES[step % BATCHES.len()] / 8, step)
}

fn cpu_losses(plan: &Arc<Plan>, lr: f64) -> Vec<f64> {
    let config = OptimizerConfig::default();
    let mut params = plan.init_params(5);
    let mut sgd = Sgd::new(&config, params.len()).unwrap();
    let mut cpu = OnCpu::new(plan);
    (0..STEPS)
        .map(|step| {
            let images = batch(plan, step);
            let loss = cpu.forward_backward(&images, &params, step as u64);
            sgd.step(&mut params, &cpu.grad, lr).unwrap();
            loss.loss_sum / images.labels.len() as f64
        })
        .collect()
}

fn gpu_losses<E: Element>(device: &Arc<CudaDevice>, plan: &Arc<Plan>, lr: f64) -> Vec<f64> {
    let config = OptimizerConfig::default();
    let params = plan.init_params(5);
    let mut gpu = OnGpu::<E>::new(device, plan, &params);
    let mut velocity = device.zeros(params.len(), "momentum").unwrap();
    let numbers = SgdStep { lr: lr as f32, weight_decay: config.weight_decay as f32 };
    (0..STEPS)
        .map(|step| {
            let images = batch(plan, step);
            let loss = gpu.pass(&images, step as u64, true);
            let momentum = DeviceMomentum::Classic(velocity.view_mut(), config.momentum as f32);
            let (params, grad) = gpu.executor.params_and_grad();
            device.sgd(params, grad, momentum, numbers).unwrap();
            loss.loss_sum / images.labels.len() as f64
        })
        .collect()
}

fn means(losses: &[f64]) -> Vec<f64> {
    losses.chunks(WINDOW).map(|window| window.iter().sum::<f64>() / window.len() as f64).collect()
}

/// Rounding differences grow while a network trains, so single losses part in the end; means over 20 steps must not.
fn follow(name: &str, found: &[f64], expected: &[f64], first: f64, later: f64) {
    for (step, (found, expected)) in found.iter().zip(expected).take(3).enumerate() {
        assert!(
            (found - expected).abs() <= first * expected,
            "{name}, step {step}: loss {found}, expected {expected}"
        );
    }
    for (window, (found, expected)) in means(found).iter().zip(means(expected)).enumerate() {
        let step = window * WINDOW;
        assert!(
            (found - expected).abs() <= later * (expected + 0.3),
            "{name}, from step {step}: mean loss {found}, expected {expected}"
        );
    }
    let (begin, end) = (means(expected)[0], *means(expected).last().unwrap());
    assert!(end < 0.8 * begin, "{name}: the CPU learned nothing, {begin} to {end}");
}

fn compare(name: &str, device: &Arc<CudaDevice>, plan: &Arc<Plan>, lr: f64) {
    let expected = cpu_losses(plan, lr);
    follow(&format!("{name} f32"), &gpu_losses::<f32>(device, plan, lr), &expected, 5e-4, 0.1);
    follow(&format!("{name} bf16"), &gpu_losses::<bf16>(device, plan, lr), &expected, 0.05, 0.2);
}

#[test]
fn resnet_follows_the_cpu_for_200_steps() {
    let Some(device) = device_or_skip("resnet_follows_the_cpu_for_200_steps") else { return };
    compare("resnet20", &Arc::new(device), &plan("resnet20", Stem::Cifar, 0.25, 8, 8), 0.02);
}

#[test]
fn vgg_follows_the_cpu_for_200_steps() {
    let Some(device) = device_or_skip("vgg_follows_the_cpu_for_200_steps") else { return };
    // Its last maps have four pixels: batch norm over so few values takes a small learning rate.
    compare("vgg11_bn", &Arc::new(device), &plan("vgg11_bn", Stem::Cifar, 0.0625, 32, 4), 0.004);
}
