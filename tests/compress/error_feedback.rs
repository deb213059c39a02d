//! Conservation: what is sent plus what stays is what there was, bit for bit, whatever the gate does.

use crate::support::{KINDS, Kind, assert_same_bits, decoded, sorted_top_k, vector};
use proptest::prelude::*;
use scadles::aggregate::{agg_weights, weighted_sum};
use scadles::compress::coding::decode_add;
use scadles::compress::{BLOCK_LEN, CompressError, DeviceCompressor, Plan};
use scadles::train::config::{Aggregation, IndexCoding, TopKConfig, TopKScope, ValueCoding};
use std::sync::Arc;

fn device(numel: usize, config: &TopKConfig) -> DeviceCompressor {
    let layers = [0..numel / 3, numel / 3..numel];
    let layers = if numel < 3 { &[] } else { &layers[..] };
    DeviceCompressor::new(Arc::new(Plan::new(numel, layers, config.scope).unwrap()), config).unwrap()
}

fn compensated(residual: &[f32], grad: &[f32], weight: f32) -> Vec<f32> {
    residual.iter().zip(grad).map(|(e, g)| e + weight * g).collect()
}

fn config() -> impl Strategy<Value = TopKConfig> {
    let scope = prop_oneof![Just(TopKScope::Vector), Just(TopKScope::Layer)];
    let values = prop_oneof![Just(ValueCoding::F32), Just(ValueCoding::Bf16)];
    let indices =
        prop_oneof![Just(IndexCoding::Smallest), Just(IndexCoding::Delta), Just(IndexCoding::Bitmap)];
    let density = prop_oneof![0.0005f64..0.01, 0.01f64..1.0, Just(1.0)];
    (density, scope, values, indices).prop_map(|(density, scope, values, indices)| TopKConfig {
        density,
        scope,
        values,
        indices,
        ..TopKConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sent_plus_residual_is_gradient_plus_residual(
        config in config(),
        numel in prop_oneof![1usize..200, BLOCK_LEN - 3..BLOCK_LEN + 40, Just(2 * BLOCK_LEN + 5)],
        kind in prop::sample::select(&KINDS[..]),
        steps in prop::collection::vec((0.01f32..1.0, 0u8..4), 1..6),
        seed in any::<u64>(),
    ) {
        let mut device = device(numel, &config);
        let mut bytes = vec![7; 3];
        for (step, (weight, action)) in steps.into_iter().enumerate() {
            let grad = vector(kind, numel, seed ^ step as u64);
            let before = device.residual().to_vec();
            // 0: no samples, 1: dense, others: sparse.
            let weight = if action == 0 { 0.0 } else { weight };
            let p = if action == 0 { before.clone() } else { compensated(&before, &grad, weight) };
            let norms = device.accumulate(&grad, weight).unwrap();
            prop_assert_eq!(norms.is_none(), action == 0);
            let sent = if action == 1 {
                let sent = device.dense().unwrap().to_vec();
                device.finish_dense();
                assert_same_bits(&sent, &p, "dense");
                sent
            } else {
                let bound = device.payload_bytes_bound();
                let info = device.encode_sparse(&mut bytes);
                prop_assert_eq!(info.bytes, bytes.len() as u64);
                prop_assert!(info.bytes <= bound, "{} bytes, bound {}", info.bytes, bound);
                prop_assert_eq!(info.elements, norms.map_or(0, |norms| norms.num_kept));
                decoded(&bytes, numel)
            };
            let sum: Vec<f32> = sent.iter().zip(device.residual()).map(|(s, e)| s + e).collect();
            assert_same_bits(&sum, &p, "sent + residual");
            let mut added = vec![0.0; numel];
            if action != 1 {
                decode_add(&bytes, &mut added).unwrap();
                prop_assert!(added == sent, "decode_add and iteration differ");
            }
        }
    }
}

#[test]
fn f32_payloads_hold_the_sorted_top_k_of_the_compensated_gradient() {
    let config = TopKConfig { density: 0.05, ..TopKConfig::default() };
    let mut device = device(100_000, &config);
    let mut bytes = Vec::new();
    for step in 0..3 {
        let grad = vector(Kind::Normal, 100_000, step);
        let p = compensated(device.residual(), &grad, 0.3);
        let norms = device.accumulate(&grad, 0.3).unwrap().unwrap();
        device.encode_sparse(&mut bytes);
        let mut expected = vec![0.0; 100_000];
        sorted_top_k(&p, &[0..100_000], 0.05).into_iter().for_each(|i| expected[i] = p[i]);
        assert_same_bits(&decoded(&bytes, 100_000), &expected, "payload");
        let square = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        assert!((norms.squared / square(&p) - 1.0).abs() < 1e-12);
        assert!((norms.topk_squared / square(&expected) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn over_a_cluster_sent_and_residuals_sum_to_gradients_and_residuals() {
    // Multiples of 2^-10 below 2^10 and weights of powers of two: every f32 sum is exact.
    let (numel, batches) = (5_000, [64, 32, 0, 16, 16]);
    let weights: Vec<f32> =
        agg_weights(&batches, Aggregation::BySamples).into_iter().map(|w| w as f32).collect();
    let mut devices: Vec<_> = batches.iter().map(|_| device(numel, &TopKConfig::default())).collect();
    let mut total_gradient = vec![0.0f32; numel];
    let mut total_sent = vec![0.0f32; numel];
    for step in 0..6u64 {
        let grads: Vec<Vec<f32>> = (0..devices.len() as u64)
            .map(|i| {
                vector(Kind::Normal, numel, 100 * step + i)
                    .iter()
                    .map(|x| (x * 64.0).round() / 64.0)
                    .collect()
            })
            .collect();
        let slices: Vec<&[f32]> = grads.iter().map(Vec::as_slice).collect();
        let mut sum = vec![0.0; numel];
        weighted_sum(&slices, &weights, &mut sum).unwrap();
        total_gradient.iter_mut().zip(&sum).for_each(|(total, x)| *total += x);
        for ((device, grad), &weight) in devices.iter_mut().zip(&grads).zip(&weights) {
            device.accumulate(grad, weight).unwrap();
            if step % 3 == 2 {
                if let Some(p) = device.dense() {
                    total_sent.iter_mut().zip(p).for_each(|(total, x)| *total += x);
                }
                device.finish_dense();
            } else {
                let mut bytes = Vec::new();
                device.encode_sparse(&mut bytes);
                decode_add(&bytes, &mut total_sent).unwrap();
            }
        }
        let mut sum = total_sent.clone();
        devices.iter().for_each(|d| sum.iter_mut().zip(d.residual()).for_each(|(sum, e)| *sum += e));
        assert!(sum == total_gradient, "step {step}");
    }
}

#[test]
fn a_device_without_samples_sends_nothing_and_keeps_its_residual() {
    let mut device = device(300, &TopKConfig::default());
    let mut bytes = Vec::new();
    device.accumulate(&vector(Kind::Normal, 300, 1), 0.5).unwrap();
    device.encode_sparse(&mut bytes);
    let before = device.residual().to_vec();
    assert!(before.iter().any(|&x| x != 0.0));

    assert_eq!(device.accumulate(&[f32::NAN; 300], 0.0), Ok(None));
    assert_eq!(device.encode_sparse(&mut bytes).elements, 0);
    assert_eq!(decoded(&bytes, 300), [0.0; 300]);
    assert_eq!(device.dense(), None);
    device.finish_dense();
    assert_same_bits(device.residual(), &before, "residual");
}

#[test]
fn without_error_feedback_the_remainder_is_dropped() {
    let config = TopKConfig { error_feedback: false, ..TopKConfig::default() };
    let mut device = device(300, &config);
    device.accumulate(&vector(Kind::Normal, 300, 1), 0.5).unwrap();
    assert_eq!(device.encode_sparse(&mut Vec::new()).elements, 30);
    assert_eq!(device.residual(), [0.0; 300]);
}

#[test]
fn bf16_never_sends_an_infinity() {
    let config = TopKConfig { density: 1.0, values: ValueCoding::Bf16, ..TopKConfig::default() };
    let mut device = device(2, &config);
    let mut bytes = Vec::new();
    device.accumulate(&[f32::MAX, -f32::MAX], 1.0).unwrap();
    device.encode_sparse(&mut bytes);
    let sent = decoded(&bytes, 2);
    assert_eq!(sent, [f32::from_bits(0x7f7f_0000), -f32::from_bits(0x7f7f_0000)]);
    assert_eq!([sent[0] + device.residual()[0], sent[1] + device.residual()[1]], [f32::MAX, -f32::MAX]);
}

#[test]
fn values_that_are_not_finite_are_named_and_the_residual_is_not_used_again() {
    for (grad, what) in [(f32::NAN, "gradient"), (f32::MAX, "compensated gradient")] {
        let mut device = device(100_000, &TopKConfig::default());
        device.load_residual(&vec![f32::MAX; 100_000]).unwrap();
        let mut bad = vec![-1.0; 100_000];
        bad[77_777] = grad;
        let error = device.accumulate(&bad, 1.0).unwrap_err();
        assert!(
            matches!(error, CompressError::NotFinite { what: w, index: 77_777, .. } if w == what),
            "{error}"
        );
        assert_eq!(device.accumulate(&[0.0; 100_000], 1.0), Err(CompressError::Poisoned));
        assert_eq!(device.encode_sparse(&mut Vec::new()).elements, 0);
        device.reset();
        assert!(device.accumulate(&[1.0; 100_000], 1.0).unwrap().is_some());
    }
}

#[test]
fn wrong_lengths_weights_and_scopes_are_refused() {
    let mut device = device(10, &TopKConfig::default());
    assert!(matches!(device.accumulate(&[0.0; 9], 1.0), Err(CompressError::Length { .. })));
    for weight in [-1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(device.accumulate(&[0.0; 10], weight), Err(CompressError::OutOfRange { .. })));
    }
    assert!(device.load_residual(&[0.0; 9]).is_err() && device.load_residual(&[f32::NAN; 10]).is_err());
    let plan = Arc::new(Plan::new(10, &[], TopKScope::Layer).unwrap());
    assert!(matches!(DeviceCompressor::new(plan, &TopKConfig::default()), Err(CompressError::Scope { .. })));
}

#[test]
fn a_loaded_residual_continues_bit_for_bit() {
    let mut original = device(1_000, &TopKConfig::default());
    original.accumulate(&vector(Kind::Normal, 1_000, 1), 0.5).unwrap();
    original.encode_sparse(&mut Vec::new());
    let mut resumed = device(1_000, &TopKConfig::default());
    resumed.load_residual(original.residual()).unwrap();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (device, out) in [(&mut original, &mut a), (&mut resumed, &mut b)] {
        device.accumulate(&vector(Kind::Normal, 1_000, 2), 0.25).unwrap();
        device.encode_sparse(out);
    }
    assert_eq!(a, b);
    assert_same_bits(resumed.residual(), original.residual(), "residual");
}
