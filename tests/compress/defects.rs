//! Known defects of the published code, each beside ours: the defective order breaks a property that ours keeps.

use crate::support::{Kind, decoded, sorted_top_k, vector};
use scadles::aggregate::{
    Collective, break_even_density, choose_collective, dense_all_reduce_bytes, reference_all_gather_bytes,
    sparse_all_gather_bytes,
};
use scadles::compress::{DeviceCompressor, Gate, Plan};
use scadles::train::config::{GateConfig, TopKConfig};
use std::sync::Arc;

const NUMEL: usize = 2_000;
const DENSITY: f64 = 0.1;

fn ours() -> DeviceCompressor {
    let plan = Arc::new(Plan::new(NUMEL, &[], Default::default()).unwrap());
    DeviceCompressor::new(plan, &TopKConfig { density: DENSITY, ..TopKConfig::default() }).unwrap()
}

fn top_k_of(p: &[f32]) -> Vec<f32> {
    let mut kept = vec![0.0; p.len()];
    sorted_top_k(p, &[0..p.len()], DENSITY).into_iter().for_each(|i| kept[i] = p[i]);
    kept
}

fn plus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn minus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn squared(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum()
}

/// Integers, so that sums are exact.
fn gradient(step: u64) -> Vec<f32> {
    vector(Kind::Normal, NUMEL, step).iter().map(|x| (100.0 * x).round()).collect()
}

/// Largest difference between everything applied plus the residual and the sum of all gradients.
fn surplus(applied: &[f32], residual: &[f32], gradients: &[f32]) -> f32 {
    minus(&plus(applied, residual), gradients).iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// Sparse, dense, sparse, dense ...
fn is_dense(step: u64) -> bool {
    step % 2 == 1
}

#[test]
fn defect_1_a_residual_written_before_the_gate_decides_is_applied_twice() {
    let (mut applied, mut residual) = (vec![0.0; NUMEL], vec![0.0; NUMEL]);
    let (mut our_applied, mut device) = (vec![0.0; NUMEL], ours());
    let mut gradients = vec![0.0; NUMEL];
    for step in 0..4 {
        let grad = gradient(step);
        gradients = plus(&gradients, &grad);

        // Defective: the residual becomes p - topk(p), and only then the gate chooses; a dense step sends all of p.
        let p = plus(&residual, &grad);
        let kept = top_k_of(&p);
        residual = minus(&p, &kept);
        applied = plus(&applied, if is_dense(step) { &p } else { &kept });

        device.accumulate(&grad, 1.0).unwrap();
        if is_dense(step) {
            our_applied = plus(&our_applied, device.dense().unwrap());
            device.finish_dense();
        } else {
            let mut payload = Vec::new();
            device.encode_sparse(&mut payload);
            our_applied = plus(&our_applied, &decoded(&payload, NUMEL));
        }
        assert_eq!(surplus(&our_applied, device.residual(), &gradients), 0.0, "step {step}");
    }
    assert!(
        surplus(&applied, &residual, &gradients) > 0.0,
        "the defective order was expected to break the law"
    );
}

#[test]
fn defect_2_a_gate_that_compares_the_raw_gradient_with_the_compensated_top_k() {
    let config = GateConfig::Paper { delta: 0.3, ewma: 1.0 };
    let (mut device, mut gate) = (ours(), Gate::new(config));
    let mut defective_values = Vec::new();
    for step in 0..30 {
        // Gradients of one direction, as early in training: residuals grow until an element's turn comes.
        let grad = plus(&gradient(100), &gradient(step));
        let p = plus(device.residual(), &grad);
        let kept = top_k_of(&p);
        defective_values.push((squared(&grad) - squared(&kept)).abs() / squared(&grad));

        // The property: the value is the share of p's energy that is not sent, so never above 1 - density.
        let norms = device.accumulate(&grad, 1.0).unwrap().unwrap();
        let mut payload = Vec::new();
        device.encode_sparse(&mut payload);
        let dropped = squared(device.residual()) / squared(&p);
        let value = gate.observe(&norms);
        assert!((value - dropped).abs() < 1e-12, "step {step}: {value}, dropped {dropped}");
        assert!(value <= 1.0 - DENSITY);
    }
    // Residuals make topk(p) longer than the raw gradient: its value leaves the range that a share can have.
    let largest = defective_values.iter().copied().fold(0.0, f64::max);
    assert!(largest > 1.0, "the defective gate was expected to leave [0, 1]: {largest}");
}

#[test]
fn defect_3_sparse_that_moves_more_than_dense() {
    let (numel, world_size) = (1_000_000, 10);
    let per_parameter = |bytes: u64| bytes as f64 / numel as f64;
    // The defect: f32 values and i64 indices, gathered whatever it costs.
    assert_eq!(per_parameter(reference_all_gather_bytes(numel / 10, world_size)), 10.8);
    assert_eq!(per_parameter(dense_all_reduce_bytes(numel, world_size)), 7.2);
    assert_eq!(choose_collective(&[12 * numel as u64 / 10; 10], numel), Collective::DenseAllReduce);

    // Ours at the same density: coded indices, and never more than dense, on either side of the break-even density.
    let plan = Arc::new(Plan::new(numel, &[], Default::default()).unwrap());
    let grad = vector(Kind::Normal, numel, 1);
    for (density, expected) in [
        (0.1, Collective::SparseAllGather),
        (0.155, Collective::SparseAllGather),
        (0.17, Collective::DenseAllReduce),
    ] {
        let config = TopKConfig { density, ..TopKConfig::default() };
        let mut device = DeviceCompressor::new(Arc::clone(&plan), &config).unwrap();
        device.accumulate(&grad, 0.1).unwrap();
        let chosen = choose_collective(&vec![device.payload_bytes_bound(); world_size], numel);
        assert_eq!(chosen, expected, "density {density}");
        let info = device.encode_sparse(&mut Vec::new());
        let gathered = sparse_all_gather_bytes(&vec![info.bytes; world_size]);
        assert_eq!(
            gathered <= dense_all_reduce_bytes(numel, world_size),
            expected == Collective::SparseAllGather
        );
        let per_kept = info.bytes as f64 / info.elements as f64;
        assert_eq!(
            density < break_even_density(world_size, per_kept),
            expected == Collective::SparseAllGather
        );
    }
}
