//! DGC against the paper's algorithm written out, and its limits.

use crate::support::{Kind, assert_same_bits, decoded, sorted_top_k, vector};
use scadles::compress::dgc::DgcCompressor;
use scadles::compress::{CompressError, Plan};
use scadles::train::config::{DgcConfig, ValueCoding};
use std::sync::Arc;

const NUMEL: usize = 70_000;

fn device(config: &DgcConfig, momentum: f64, devices: usize) -> DgcCompressor {
    let plan = Arc::new(Plan::new(NUMEL, &[], Default::default()).unwrap());
    DgcCompressor::new(plan, config, momentum, devices).unwrap()
}

fn unclipped() -> DgcConfig {
    DgcConfig { density: 0.01, warmup: 0.0, clip_norm: 0.0, ..DgcConfig::default() }
}

#[test]
fn steps_follow_the_algorithm_bit_for_bit() {
    let mut device = device(&unclipped(), 0.75, 4);
    let (mut u, mut v) = (vec![0.0f32; NUMEL], vec![0.0f32; NUMEL]);
    let mut payload = Vec::new();
    for step in 0..5 {
        let grad = vector(Kind::Normal, NUMEL, step);
        device.accumulate(&grad, 0.25, 0.5).unwrap().unwrap();
        device.encode_sparse(&mut payload);
        for i in 0..NUMEL {
            u[i] = 0.75 * u[i] + 0.25 * grad[i];
            v[i] += u[i];
        }
        let mut sent = vec![0.0; NUMEL];
        for i in sorted_top_k(&v, &[0..NUMEL], 0.01) {
            sent[i] = v[i];
            (u[i], v[i]) = (0.0, 0.0);
        }
        assert_same_bits(&decoded(&payload, NUMEL), &sent, "sent");
        assert_same_bits(device.state().0, &u, "u");
        assert_same_bits(device.state().1, &v, "v");
    }
}

#[test]
fn with_bf16_the_rounding_error_stays_in_v() {
    let config = DgcConfig { values: ValueCoding::Bf16, ..unclipped() };
    let mut device = device(&config, 0.5, 1);
    let grad = vector(Kind::Normal, NUMEL, 1);
    device.accumulate(&grad, 1.0, 0.0).unwrap();
    let mut payload = Vec::new();
    device.encode_sparse(&mut payload);
    let sum: Vec<f32> = decoded(&payload, NUMEL).iter().zip(device.state().1).map(|(s, v)| s + v).collect();
    assert_same_bits(&sum, &grad, "sent + v");
}

#[test]
fn dense_steps_alone_are_sgd_with_momentum() {
    let mut device = device(&unclipped(), 0.5, 1);
    let mut u = vec![0.0f32; NUMEL];
    for step in 0..4 {
        let grad = vector(Kind::Normal, NUMEL, step);
        device.accumulate(&grad, 1.0, 0.0).unwrap();
        u.iter_mut().zip(&grad).for_each(|(u, g)| *u = 0.5 * *u + g);
        assert_same_bits(device.dense().unwrap(), &u, "dense step");
        device.finish_dense();
    }
}

#[test]
fn a_long_gradient_is_clipped_to_its_share_and_a_short_one_is_not() {
    let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let grad = vector(Kind::Normal, NUMEL, 1);
    for (clip_norm, clipped) in [(2.0, true), (1e6, false)] {
        let mut device = device(&DgcConfig { clip_norm, ..unclipped() }, 0.0, 16);
        device.accumulate(&grad, 0.5, 0.0).unwrap();
        let expected = if clipped { clip_norm / 4.0 } else { 0.5 * norm(&grad) };
        assert!((norm(device.dense().unwrap()) / expected - 1.0).abs() < 1e-6, "clip_norm {clip_norm}");
    }
}

#[test]
fn the_warm_up_sends_a_quarter_first() {
    let mut device = device(&DgcConfig { warmup: 0.2, ..unclipped() }, 0.0, 1);
    for (progress, elements) in [(0.0, NUMEL / 4), (0.3, NUMEL / 100)] {
        device.accumulate(&vector(Kind::Normal, NUMEL, 1), 1.0, progress).unwrap();
        assert_eq!(device.encode_sparse(&mut Vec::new()).elements, elements);
    }
}

#[test]
fn without_samples_nothing_changes() {
    let mut device = device(&unclipped(), 0.5, 1);
    device.accumulate(&vector(Kind::Normal, NUMEL, 1), 1.0, 0.0).unwrap();
    device.encode_sparse(&mut Vec::new());
    let before = device.clone();
    assert_eq!(device.accumulate(&[f32::NAN; NUMEL], 0.0, 0.0), Ok(None));
    assert_eq!(device.encode_sparse(&mut Vec::new()).elements, 0);
    assert_same_bits(device.state().0, before.state().0, "u");
    assert_same_bits(device.state().1, before.state().1, "v");
}

#[test]
fn bad_input_is_refused_and_a_clipped_device_survives_it() {
    let plan = || Arc::new(Plan::new(10, &[], Default::default()).unwrap());
    assert!(DgcCompressor::new(plan(), &DgcConfig { density: 0.0, ..unclipped() }, 0.9, 1).is_err());
    assert!(DgcCompressor::new(plan(), &DgcConfig { warmup: 1.0, ..unclipped() }, 0.9, 1).is_err());
    assert!(DgcCompressor::new(plan(), &DgcConfig { clip_norm: -1.0, ..unclipped() }, 0.9, 1).is_err());
    assert!(DgcCompressor::new(plan(), &unclipped(), 1.0, 1).is_err());
    assert!(DgcCompressor::new(plan(), &unclipped(), 0.9, 0).is_err());

    let mut grad = vector(Kind::Normal, NUMEL, 1);
    grad[69_000] = f32::INFINITY;
    for (clip_norm, survives) in [(1.0, true), (0.0, false)] {
        let mut device = device(&DgcConfig { clip_norm, ..unclipped() }, 0.5, 1);
        let error = device.accumulate(&grad, 1.0, 0.0).unwrap_err();
        assert!(matches!(error, CompressError::NotFinite { what: "gradient", index: 69_000, .. }), "{error}");
        assert_eq!(device.accumulate(&vector(Kind::Normal, NUMEL, 2), 1.0, 0.0).is_ok(), survives);
        device.reset();
        assert!(device.accumulate(&vector(Kind::Normal, NUMEL, 2), 1.0, 0.0).is_ok());
    }
}

#[test]
fn loaded_state_continues_bit_for_bit() {
    let mut original = device(&unclipped(), 0.9, 2);
    original.accumulate(&vector(Kind::Normal, NUMEL, 1), 0.5, 0.0).unwrap();
    original.encode_sparse(&mut Vec::new());
    let mut resumed = device(&unclipped(), 0.9, 2);
    resumed.load_state(original.state().0, original.state().1).unwrap();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (device, out) in [(&mut original, &mut a), (&mut resumed, &mut b)] {
        device.accumulate(&vector(Kind::Normal, NUMEL, 2), 0.5, 0.0).unwrap();
        device.encode_sparse(out);
    }
    assert_eq!(a, b);
    assert_same_bits(resumed.state().0, original.state().0, "u");
}
