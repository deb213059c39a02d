//! `kernels/weighted_sum.cu` against [`scadles::aggregate::weighted_sum`].

use crate::support::{LENGTHS, Vector, assert_same_bits, device_or_skip, edges, normal};
use scadles::aggregate::weighted_sum;

#[test]
fn weighted_sum_has_the_bits_of_the_cpu() {
    let Some(device) = device_or_skip("weighted_sum_has_the_bits_of_the_cpu") else { return };
    let check = |inputs: &[Vec<f32>], weights: &[f32], len: usize| {
        let mut expected = vec![f32::NAN; len];
        weighted_sum(&inputs.iter().map(Vec::as_slice).collect::<Vec<_>>(), weights, &mut expected).unwrap();
        let (inputs, weights) = (Vector::new(&device, &inputs.concat()), Vector::new(&device, weights));
        // What was in `out` before must not matter.
        let mut out = Vector::new(&device, &vec![f32::NAN; len]);
        device.weighted_sum(out.view_mut(), inputs.view(), weights.view()).unwrap();
        let ranks = weights.view().len();
        assert_same_bits(&out.read(), &expected, &format!("{ranks} ranks of {len} elements"));
    };
    let inputs = |ranks: u64, len: usize| (0..ranks).map(|rank| normal(len, rank)).collect::<Vec<_>>();
    for len in LENGTHS {
        check(&inputs(3, len), &[0.5, 0.2, 0.3], len);
    }
    for ranks in [0, 1, 2, 4, 5, 7, 8, 9, 17] {
        let weights: Vec<f32> = (0..ranks).map(|rank| 0.1 + rank as f32).collect();
        check(&inputs(ranks, 1_021), &weights, 1_021);
    }
    // An input of weight 0 is not read, wherever it stands.
    for idle in 0..6 {
        let (mut inputs, mut weights) = (inputs(6, 300), [0.25; 6]);
        inputs[idle].fill(f32::NAN);
        weights[idle] = if idle % 2 == 0 { 0.0 } else { -0.0 };
        check(&inputs, &weights, 300);
    }
    let len = edges(0).len();
    for weights in [[1.0, -1.0], [1e-38, 3e38], [0.5, f32::NAN], [f32::INFINITY, 1.0]] {
        check(&[edges(0), edges(1)], &weights, len);
    }
}

#[test]
fn weighted_sum_refuses_other_lengths() {
    let Some(device) = device_or_skip("weighted_sum_refuses_other_lengths") else { return };
    let (mut out, inputs) = (Vector::new(&device, &[1.0; 5]), Vector::new(&device, &[1.0; 14]));
    let weights = Vector::new(&device, &[1.0; 3]);
    let error = device.weighted_sum(out.view_mut(), inputs.view(), weights.view()).unwrap_err();
    assert_eq!(error.to_string(), "kernel weighted_sum_f32: inputs has 14 elements, expected 15");
    assert_eq!(out.read(), [1.0; 5]);
}
