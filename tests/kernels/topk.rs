//! `kernels/topk_*.cu` through [`CudaCompressors`], against [`DeviceCompressor`], bit for bit.

use crate::compressors::{End, KINDS, Kind, Pair, config, gradient, layers, open};
use crate::support::{Vector, normal};
use scadles::compress::cuda::CudaCompressors;
use scadles::compress::{BLOCK_LEN, CompressError, DeviceCompressor, Plan};
use scadles::rng::{Philox, Stream};
use scadles::train::config::{IndexCoding, TopKConfig, TopKScope, ValueCoding};
use std::sync::Arc;

#[test]
fn every_length_has_the_bits_of_the_cpu() {
    let Some(device) = open("every_length_has_the_bits_of_the_cpu") else { return };
    let lengths = [
        1,
        2,
        3,
        4,
        5,
        31,
        100,
        8191,
        8192,
        8193,
        16_384,
        16_385,
        24_577,
        BLOCK_LEN - 1,
        BLOCK_LEN,
        BLOCK_LEN + 1,
        BLOCK_LEN + 5,
    ];
    for (i, len) in lengths.into_iter().enumerate() {
        for density in [0.001, 0.1] {
            let mut pair = Pair::new(&device, len, &[], &config(density), 1);
            pair.steps(|step| gradient(KINDS[i % 2], len, step));
        }
    }
}

#[test]
fn every_distribution_has_the_bits_of_the_cpu() {
    let Some(device) = open("every_distribution_has_the_bits_of_the_cpu") else { return };
    let len = 2 * BLOCK_LEN + 4_711;
    for kind in KINDS {
        for density in [1e-4, 0.01, 0.12, 0.6, 1.0] {
            let mut pair = Pair::new(&device, len, &[], &config(density), 1);
            pair.step(&[gradient(kind, len, 1)], &[0.5], End::Sparse);
            pair.step(&[gradient(kind, len, 2)], &[0.25], End::Sparse);
        }
    }
}

#[test]
fn layers_of_any_length_have_the_bits_of_the_cpu() {
    let Some(device) = open("layers_of_any_length_have_the_bits_of_the_cpu") else { return };
    let numel = 170_003;
    let cuts = [0, 1, 2, 66, 67, 20_000, 20_001, 120_010, 136_394, 136_401, numel];
    let fixed: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
    for scope in [TopKScope::Layer, TopKScope::Vector] {
        for (i, density) in [1e-3, 0.1, 1.0].into_iter().enumerate() {
            let config = TopKConfig { scope, ..config(density) };
            let kind = [Kind::Normal, Kind::Integers, Kind::Sparse][i];
            let mut pair = Pair::new(&device, numel, &fixed, &config, 1);
            pair.step(&[gradient(kind, numel, 1)], &[0.5], End::Sparse);
            pair.step(&[gradient(Kind::Integers, numel, 2)], &[0.5], End::Sparse);
        }
    }
}

#[test]
fn every_coding_has_the_bytes_of_the_cpu() {
    let Some(device) = open("every_coding_has_the_bytes_of_the_cpu") else { return };
    let len = BLOCK_LEN + 9_001;
    for values in [ValueCoding::F32, ValueCoding::Bf16] {
        for indices in [IndexCoding::Smallest, IndexCoding::Delta, IndexCoding::Bitmap] {
            for error_feedback in [true, false] {
                for density in [0.0005, 0.02, 0.118, 0.7] {
                    let config = TopKConfig { values, indices, error_feedback, ..config(density) };
                    let mut pair = Pair::new(&device, len, &[], &config, 1);
                    pair.step(&[gradient(Kind::Wide, len, 3)], &[0.9], End::Sparse);
                    pair.step(&[gradient(Kind::Normal, len, 4)], &[0.1], End::Sparse);
                }
            }
        }
    }
    // Gaps of one, two and three bytes on both sides of each limit.
    let mut at = vec![0];
    for gap in [1, 127, 128, 129, 16_383, 16_384, 16_385, 1, 1] {
        at.push(at.last().unwrap() + gap);
    }
    at.extend([BLOCK_LEN - 1, BLOCK_LEN, 2 * BLOCK_LEN - 1]);
    let mut grad = vec![0.0; 2 * BLOCK_LEN];
    at.iter().for_each(|&i| grad[i] = i as f32 + 1.0);
    let config_of = |indices| TopKConfig { indices, ..config(at.len() as f64 / (2 * BLOCK_LEN) as f64) };
    for indices in [IndexCoding::Delta, IndexCoding::Smallest] {
        let mut pair = Pair::new(&device, grad.len(), &[], &config_of(indices), 1);
        pair.step(&[grad.clone()], &[1.0], End::Sparse);
    }
    // The largest numbers: bf16 has to stay finite.
    let config = TopKConfig { values: ValueCoding::Bf16, ..config(0.5) };
    let mut pair = Pair::new(&device, 6, &[], &config, 1);
    pair.step(&[vec![f32::MAX, 1.0, f32::MIN, 2.0, 3.0e38, -0.0]], &[1.0], End::Sparse);
}

#[test]
fn devices_do_not_disturb_each_other() {
    let Some(device) = open("devices_do_not_disturb_each_other") else { return };
    let (len, devices) = (20_011, 6);
    let mut pair = Pair::new(&device, len, &[0..300, 300..len], &config(0.05), devices);
    for step in 0..6usize {
        let grads: Vec<_> = (0..devices)
            .map(|i| match i == step {
                true => vec![f32::NAN; len], // whatever an idle device has in its buffer
                false => gradient(KINDS[i % KINDS.len()], len, (step * devices + i) as u64),
            })
            .collect();
        let weights: Vec<f32> =
            (0..devices).map(|i| if i == step { 0.0 } else { (i + 1) as f32 / 21.0 }).collect();
        pair.step(&grads, &weights, [End::Sparse, End::Dense][step % 2]);
    }
    pair.step(&vec![vec![1.0; len]; devices], &[0.0; 6], End::Sparse);
    pair.step(&vec![vec![1.0; len]; devices], &[0.0; 6], End::Dense);
}

/// Where the sample of a group of `len` elements looks.
fn sampled(len: usize) -> Vec<usize> {
    let samples = (len / 64).clamp(1 << 11, 1 << 15) as u64;
    let fraction = |i: u64| u128::from((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..samples).map(|i| ((fraction(i) * len as u128) >> 64) as usize).collect()
}

#[test]
fn a_bracket_that_misses_or_overflows_changes_nothing() {
    let Some(device) = open("a_bracket_that_misses_or_overflows_changes_nothing") else { return };
    let len = BLOCK_LEN + 20_000;
    // The sample sees small numbers only: the key lies above its bracket.
    let mut above = normal(len, 1).iter().map(|x| 100.0 + x).collect::<Vec<_>>();
    sampled(len).into_iter().for_each(|i| above[i] = 0.001 * (i % 97) as f32);
    // Large ones only: below.
    let mut below = normal(len, 2).iter().map(|x| 0.01 * x).collect::<Vec<_>>();
    sampled(len).into_iter().for_each(|i| below[i] = 5.0 + (i % 97) as f32);
    // A plateau strictly inside its bracket, more than there is room for, that it never sees.
    let mut plateau = vec![2.0; len];
    sampled(len).into_iter().for_each(|i| plateau[i] = if i % 10 == 0 { 3.0 } else { 1.0 });
    // The same, spread over neighbouring keys.
    let mut crowd: Vec<f32> = (0..len).map(|i| 2.0 + (i * 7919 % 1009) as f32 * 1e-5).collect();
    sampled(len).into_iter().for_each(|i| crowd[i] = if i % 10 == 0 { 3.0 } else { 1.0 });
    // As the plateau, but the key is the low end of the bracket and the candidates above it do not fit.
    let mut low = vec![2.0; len];
    sampled(len).into_iter().for_each(|i| low[i] = 3.0);
    sampled(len).into_iter().take(2).for_each(|i| low[i] = 0.0);
    let all_but_one = (len - 1) as f64 / len as f64;
    for (name, grad, density) in [
        ("above", above, 0.3),
        ("below", below, 0.3),
        ("plateau", plateau, 0.1),
        ("crowd", crowd, 0.1),
        ("low", low, all_but_one),
    ] {
        let other = Kind::Normal;
        let mut pair = Pair::new(&device, len, &[], &config(density), 1);
        pair.step(&[grad], &[1.0], End::Open);
        assert_eq!(pair.gpu.fallbacks(0), 1, "{name}: the bracket was of use");
        pair.step(&[vec![0.0; len]], &[1.0], End::Sparse);
        pair.step(&[gradient(other, len, 4)], &[1.0], End::Sparse);
    }
    // Only one of several groups.
    let config = TopKConfig { scope: TopKScope::Layer, ..config(0.1) };
    let half = 40_000;
    let mut grad = gradient(Kind::Normal, 2 * half + 50, 5);
    sampled(half).into_iter().for_each(|i| grad[half + i] = 1e-3 * (i % 7) as f32);
    grad[half..2 * half].iter_mut().for_each(|x| *x += if x.abs() < 0.1 { 0.0 } else { 9.0 });
    let mut pair =
        Pair::new(&device, grad.len(), &[0..half, half..2 * half, 2 * half..grad.len()], &config, 1);
    pair.step(&[grad], &[1.0], End::Sparse);
    assert_eq!(pair.gpu.fallbacks(0), 1);
}

#[test]
fn a_long_vector_is_shared_by_all_blocks() {
    let Some(device) = open("a_long_vector_is_shared_by_all_blocks") else { return };
    let len = 700_001;
    let crowded = |i: usize| 2.0 + (i * 7919 % 10_007) as f32 * 1e-5;
    let mut crowd: Vec<f32> = (0..len).map(crowded).collect();
    sampled(len).into_iter().for_each(|i| crowd[i] = if i % 10 == 0 { 3.0 } else { 1.0 });
    let mut pair = Pair::new(&device, len, &[], &config(0.1), 1);
    pair.step(&[crowd], &[1.0], End::Sparse);
    assert_eq!(pair.gpu.fallbacks(0), 1);
    pair.gpu.reset(0).unwrap();
    pair.cpu[0].reset();
    pair.step(&[gradient(Kind::Normal, len, 1)], &[0.5], End::Sparse);
    assert_eq!(pair.gpu.fallbacks(0), 0);
}

#[test]
fn ties_and_zeros_need_no_search_of_the_vector() {
    let Some(device) = open("ties_and_zeros_need_no_search_of_the_vector") else { return };
    let len = 50_000;
    for kind in [Kind::Normal, Kind::Integers, Kind::Zeros, Kind::Sparse, Kind::Plateaus] {
        for density in [0.001, 0.1, 0.5, 1.0] {
            let mut pair = Pair::new(&device, len, &[], &config(density), 1);
            pair.step(&[gradient(kind, len, 8)], &[0.5], End::Sparse);
            assert_eq!(pair.gpu.fallbacks(0), 0, "{kind:?} at {density}");
        }
    }
}

#[test]
fn what_is_not_finite_is_named_and_poisons_the_device() {
    let Some(device) = open("what_is_not_finite_is_named_and_poisons_the_device") else { return };
    let len = 30_000;
    let config = config(0.01);
    for (bad, value, residual) in [
        (&[29_999, 7][..], f32::NAN, 0.0),
        (&[12_345], f32::INFINITY, 0.0),
        (&[8_191, 8_192], f32::NEG_INFINITY, 0.0),
        (&[20_000, 20_001], f32::MAX, f32::MAX), // the sum overflows
    ] {
        let mut pair = Pair::new(&device, len, &[], &config, 2);
        let start = vec![residual; len];
        let mut grad = gradient(Kind::Normal, len, 6);
        bad.iter().for_each(|&i| grad[i] = value);
        let expected = {
            pair.cpu[1].load_residual(&start).unwrap();
            pair.cpu[1].accumulate(&grad, 1.0).unwrap_err()
        };
        pair.gpu.load_residual(1, &start).unwrap();
        let good = Vector::aligned(&device, &gradient(Kind::Normal, len, 7));
        let vector = Vector::aligned(&device, &grad);
        pair.gpu.accumulate(0, good.view(), 1.0).unwrap();
        pair.gpu.accumulate(1, vector.view(), 1.0).unwrap();
        pair.gpu.read().unwrap();
        assert!(pair.gpu.norms(0).unwrap().is_some());
        assert_eq!(pair.gpu.norms(1).unwrap_err().to_string(), expected.to_string());
        let again = pair.gpu.accumulate(1, good.view(), 1.0).unwrap_err();
        assert_eq!(again.to_string(), CompressError::Poisoned.to_string());

        // It sends nothing; the other does.
        let mut blocks = vec![Vec::new(); 2];
        let infos = pair.gpu.encode_sparse(&mut blocks).unwrap();
        assert_eq!((infos[0].elements, infos[1].elements), (300, 0));
        let mut sum = Vector::new(&device, &vec![1.0; len]);
        pair.gpu.add_sent(1, sum.view_mut()).unwrap();
        pair.gpu.add_dense(sum.view_mut()).unwrap();
        assert_eq!(sum.read(), vec![1.0; len]);

        pair.gpu.reset(1).unwrap();
        pair.cpu[1].reset();
        pair.gpu.reset(0).unwrap();
        pair.step(&vec![gradient(Kind::Normal, len, 9); 2], &[0.5, 0.5], End::Sparse);
    }
}

#[test]
fn bad_input_is_refused_as_on_the_cpu() {
    let Some(device) = open("bad_input_is_refused_as_on_the_cpu") else { return };
    let plan = Arc::new(Plan::new(10, &[], TopKScope::Vector).unwrap());
    for config in
        [config(0.0), config(1.5), config(f64::NAN), TopKConfig { scope: TopKScope::Layer, ..config(0.1) }]
    {
        let expected = DeviceCompressor::new(Arc::clone(&plan), &config).unwrap_err();
        let found = CudaCompressors::new(Arc::clone(&device), Arc::clone(&plan), &config, 1).unwrap_err();
        assert_eq!(found.to_string(), expected.to_string());
    }
    let mut pair = Pair::new(&device, 10, &[], &config(0.1), 1);
    for (len, weight) in [(9, 1.0), (11, 1.0), (10, -0.5), (10, f32::NAN), (10, f32::INFINITY)] {
        let expected = pair.cpu[0].accumulate(&vec![1.0; len], weight).unwrap_err();
        let grad = Vector::new(&device, &vec![1.0; len]);
        let found = pair.gpu.accumulate(0, grad.view(), weight).unwrap_err();
        assert_eq!(found.to_string(), expected.to_string());
    }
    for residual in [vec![0.0; 9], [vec![0.0; 9], vec![f32::NAN]].concat()] {
        let expected = pair.cpu[0].load_residual(&residual).unwrap_err();
        assert_eq!(pair.gpu.load_residual(0, &residual).unwrap_err().to_string(), expected.to_string());
    }
    let mut short = Vector::new(&device, &[0.0; 9]);
    assert!(pair.gpu.add_sent(0, short.view_mut()).is_err());
    assert!(pair.gpu.add_dense(short.view_mut()).is_err());
    let residual = [-0.0, 1.0, -2.0, 0.0, 3.5, -0.0, 7.0, 0.5, 0.25, -9.0];
    pair.cpu[0].load_residual(&residual).unwrap();
    pair.gpu.load_residual(0, &residual).unwrap();
    pair.step(&[vec![-0.0; 10]], &[0.5], End::Open);
    pair.step(&[vec![-1.0; 10]], &[0.5], End::Sparse);
}

#[test]
fn two_runs_have_the_same_bits_in_all_they_report() {
    let Some(device) = open("two_runs_have_the_same_bits_in_all_they_report") else { return };
    let numel = 100_003;
    let layers = [0..5, 5..40_000, 40_000..numel];
    let run = || {
        let plan = Arc::new(Plan::new(numel, &layers, TopKScope::Vector).unwrap());
        let mut gpu = CudaCompressors::new(Arc::clone(&device), plan, &config(0.07), 1).unwrap();
        let mut blocks = [Vec::new()];
        let mut seen = Vec::new();
        for step in 0..3 {
            let grad = Vector::aligned(&device, &gradient(Kind::Normal, numel, step));
            gpu.accumulate(0, grad.view(), 0.3).unwrap();
            gpu.read().unwrap();
            let norms = gpu.norms(0).unwrap().unwrap();
            gpu.encode_sparse(&mut blocks).unwrap();
            let sums = [norms.squared, norms.topk_squared, norms.layer_sum, norms.layer_topk_sum];
            seen.push((sums.map(f64::to_bits), blocks[0].clone(), device.download(gpu.residual(0)).unwrap()));
        }
        seen
    };
    assert!(run() == run());
}

#[test]
fn random_steps_have_the_bits_of_the_cpu() {
    let Some(device) = open("random_steps_have_the_bits_of_the_cpu") else { return };
    for case in 0..24u64 {
        let mut rng = Philox::new(case, Stream::Init, 5);
        let mut pick = |n: usize| rng.below(n as u32) as usize;
        let numel = [1 + pick(300), 8_000 + pick(400), 16_000 + pick(1_000), 1 + pick(90_000)][pick(4)];
        let config = TopKConfig {
            density: [0.0003, 0.003, 0.03, 0.115, 0.125, 0.5, 1.0][pick(7)],
            scope: [TopKScope::Vector, TopKScope::Layer][pick(2)],
            error_feedback: pick(4) > 0,
            values: [ValueCoding::F32, ValueCoding::Bf16][pick(2)],
            indices: [IndexCoding::Smallest, IndexCoding::Delta, IndexCoding::Bitmap][pick(3)],
            ..TopKConfig::default()
        };
        let layers = if pick(3) == 0 { Vec::new() } else { layers(numel, case) };
        let mut pair = Pair::new(&device, numel, &layers, &config, 2);
        for step in 0..3 {
            let grads: Vec<_> =
                (0..2).map(|i| gradient(KINDS[pick(KINDS.len())], numel, case * 8 + step * 2 + i)).collect();
            let weights = [[0.0, 0.5, 0.3][pick(3)], [1.0, 0.1][pick(2)]];
            let end = [End::Sparse, End::Sparse, End::Dense, End::Open][pick(4)];
            pair.step(&grads, &weights, end);
        }
    }
}
