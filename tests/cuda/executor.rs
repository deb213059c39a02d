//! One pass of [`scadles::nn::cuda::CudaExecutor`] against the CPU's executor.

use crate::networks::{Images, OnCpu, OnGpu, distance, plan};
use crate::support::device_or_skip;
use half::bf16;
use scadles::device::cuda::{CudaDevice, Element};
use scadles::models::Stem;
use scadles::nn::Plan;
use scadles::nn::cuda::{HostBatch, HostHeader};
use std::sync::Arc;

/// Every kind of layer: bottlenecks, both shortcuts, both stems, batch norm or bias, max-pool, dropout, linear layers.
fn networks() -> Vec<(&'static str, Arc<Plan>)> {
    vec![
        ("resnet20", plan("resnet20", Stem::Cifar, 0.25, 8, 9)),
        ("resnet18, imagenet stem", plan("resnet18", Stem::Imagenet, 0.125, 16, 9)),
        ("resnet50", plan("resnet50", Stem::Cifar, 0.05, 8, 9)),
        ("vgg11_bn", plan("vgg11_bn", Stem::Cifar, 0.125, 32, 9)),
        ("vgg11, imagenet head", plan("vgg11", Stem::Imagenet, 0.0625, 32, 9)),
    ]
}

/// Largest relative distances of loss, gradient and statistics.
struct Tolerance {
    loss: f64,
    grad: f64,
    stats: f64,
    /// Also allowed for the gradient: this many times what rounding the parameters alone to bf16 does on the CPU. Batch
    /// norm over few pixels magnifies rounding, differently in each network and batch.
    noise: f64,
}

/// f32: sums in another order, magnified by batch norm over few pixels (seen: 2e-7 to 3e-4).
const F32: Tolerance = Tolerance { loss: 1e-4, grad: 1e-3, stats: 1e-5, noise: 0.0 };
/// bf16: 8 bits of activations, filters and gradients (seen: 0.2 to 1.2 times the noise, which has those of the filters only).
const BF16: Tolerance = Tolerance { loss: 0.15, grad: 0.02, stats: 0.1, noise: 2.0 };

fn compare<E: Element>(device: &Arc<CudaDevice>, name: &str, plan: &Arc<Plan>, tolerance: &Tolerance) {
    let params = plan.init_params(3);
    let rounded: Vec<f32> = params.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
    let (mut cpu, mut gpu) = (OnCpu::new(plan), OnGpu::<E>::new(device, plan, &params));
    // A full bucket, a batch smaller than its bucket in the same graph, and another bucket.
    for (step, n) in [8, 5, 9].into_iter().enumerate() {
        let images = Images::draw(plan, n, step);
        let mut noise = 0.0;
        let expected = cpu.forward_backward(&images, &params, step as u64);
        if tolerance.noise > 0.0 {
            let mut other = OnCpu::new(plan);
            other.forward_backward(&images, &rounded, step as u64);
            noise = distance(&other.grad, &cpu.grad);
        }
        let found = gpu.pass(&images, step as u64, true);
        let apart = (found.loss_sum - expected.loss_sum).abs() / expected.loss_sum;
        assert!(apart <= tolerance.loss, "{name}, {n} images: loss {found:?}, expected {expected:?}");
        let apart = distance(&gpu.grad(), &cpu.grad);
        let allowed = tolerance.grad + tolerance.noise * noise;
        assert!(apart <= allowed, "{name}, {n} images: gradient {apart:.1e} apart, {allowed:.1e} allowed");
        let apart = distance(&gpu.stats(), &cpu.stats);
        assert!(apart <= tolerance.stats, "{name}, {n} images: statistics {apart:.1e} apart");
    }
    let images = Images::draw(plan, 7, 99);
    let x = cpu.images(&images);
    let expected = cpu.executor.evaluate(&x, &images.labels, &params, &cpu.stats).unwrap();
    let found = gpu.pass(&images, 0, false);
    let apart = (found.loss_sum - expected.loss_sum).abs() / expected.loss_sum;
    assert!(apart <= tolerance.loss, "{name}: evaluation {found:?}, expected {expected:?}");
}

#[test]
fn every_kind_of_network_has_the_cpus_gradient_in_f32() {
    let Some(device) = device_or_skip("every_kind_of_network_has_the_cpus_gradient_in_f32") else { return };
    let device = Arc::new(device);
    for (name, plan) in networks() {
        compare::<f32>(&device, name, &plan, &F32);
    }
}

#[test]
fn every_kind_of_network_has_the_cpus_gradient_in_bf16() {
    let Some(device) = device_or_skip("every_kind_of_network_has_the_cpus_gradient_in_bf16") else { return };
    let device = Arc::new(device);
    for (name, plan) in networks() {
        compare::<bf16>(&device, name, &plan, &BF16);
    }
}

#[test]
fn the_same_pass_gives_the_same_bytes() {
    let Some(device) = device_or_skip("the_same_pass_gives_the_same_bytes") else { return };
    let device = Arc::new(device);
    let plan = plan("resnet20", Stem::Cifar, 0.25, 8, 9);
    let params = plan.init_params(3);
    let images = Images::draw(&plan, 9, 0);
    let grads: Vec<Vec<u32>> = (0..2)
        .map(|_| {
            let mut gpu = OnGpu::<bf16>::new(&device, &plan, &params);
            gpu.pass(&images, 0, true);
            gpu.grad().iter().map(|x| x.to_bits()).collect()
        })
        .collect();
    assert!(grads[0] == grads[1]);
}

#[test]
fn a_batch_that_does_not_fit_is_an_error_and_changes_nothing() {
    let Some(device) = device_or_skip("a_batch_that_does_not_fit_is_an_error_and_changes_nothing") else {
        return;
    };
    let device = Arc::new(device);
    let plan = plan("resnet20", Stem::Cifar, 0.25, 8, 4);
    let params = plan.init_params(3);
    let (larger, images) = (Images::draw(&plan, 5, 0), Images::draw(&plan, 4, 0));
    let numel = plan.image().numel();
    let expected = OnGpu::<f32>::new(&device, &plan, &params).pass(&images, 0, true);
    let mut gpu = OnGpu::<f32>::new(&device, &plan, &params);
    for (labels, pixels, placements, header, part) in [
        (&larger.labels, 5 * numel, 15, 5, "the batch has 5 elements, expected 4"),
        (&images.labels, 4 * numel - 1, 12, 4, "pixels has"),
        (&images.labels, 4 * numel, 11, 4, "placements has 11 elements, expected 12"),
        (&images.labels, 4 * numel, 12, 3, "the header has 7 elements, expected 8"),
    ] {
        let (pixels, placements) = (device.pinned(pixels).unwrap(), device.pinned(placements).unwrap());
        let batch = HostBatch { pixels: &pixels, placements: &placements, labels, dropout_index: 0 };
        let mut header = HostHeader::new(&device, header).unwrap();
        // SAFETY: nothing is queued.
        let error = unsafe { gpu.executor.forward_backward(batch, &mut header) }.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        // SAFETY: nothing is queued.
        let error = unsafe { gpu.executor.evaluate(batch, &mut header) }.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(gpu.pass(&images, 0, true), expected);
}

#[test]
fn pinned_memory_that_the_host_lacks_is_named() {
    let Some(device) = device_or_skip("pinned_memory_that_the_host_lacks_is_named") else { return };
    let error = device.pinned::<u8>(1 << 60).unwrap_err().to_string();
    assert!(error.contains("the host has no room to pin") && error.contains("--device cpu"), "{error}");
}
