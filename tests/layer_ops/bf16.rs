//! Ops on bf16 against the same ops on the same numbers in f32: equal but for one rounding at the end.

use super::check::normal;
use half::bf16;
use scadles::ops::batchnorm2d::{
    self, Epilogue, Extent, Gradients, Parameters, RunningStatistics, Saved, TrainStatistics,
};
use scadles::ops::pad_shortcut::{self, PadShortcutShape};
use scadles::ops::pool2d::{self, AdaptiveAvgShape, Pool2dShape};
use scadles::ops::{dropout, elementwise, linear, relu};

/// Lengths around lanes, tiles of elementwise ops and one another.
const LENS: [usize; 5] = [1, 31, 4096, 32 * 1024 + 1, 70_001];

/// Random numbers as bf16, with some NaN and infinities, and the same numbers as f32.
fn pair(seed: u64, len: usize) -> (Vec<bf16>, Vec<f32>) {
    let mut stored = round(&normal(len, seed));
    for (i, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0].into_iter().enumerate() {
        if let Some(value) = stored.get_mut(17 * i + 11) {
            *value = bf16::from_f32(special);
        }
    }
    let widened = widen(&stored);
    (stored, widened)
}

/// As [`pair`], all finite.
fn finite(seed: u64, len: usize) -> (Vec<bf16>, Vec<f32>) {
    let stored = round(&normal(len, seed));
    let widened = widen(&stored);
    (stored, widened)
}

fn round(from: &[f32]) -> Vec<bf16> {
    from.iter().map(|&value| bf16::from_f32(value)).collect()
}

fn widen(from: &[bf16]) -> Vec<f32> {
    from.iter().map(|value| value.to_f32()).collect()
}

#[track_caller]
fn assert_rounded(got: &[bf16], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let want = bf16::from_f32(*want);
        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        assert!(same, "element {i} is {got}, not {want}");
    }
}

#[test]
fn elementwise_ops_round_once() {
    for len in LENS {
        let ((a, a32), (b, b32)) = (pair(1, len), pair(2, len));
        let (mut sum, mut sum32) = (a.clone(), a32.clone());
        elementwise::add_inplace(&mut sum, &b);
        elementwise::add_inplace(&mut sum32, &b32);
        assert_rounded(&sum, &sum32);
        let (mut sum, mut sum32) = (a.clone(), a32.clone());
        elementwise::add_relu_inplace(&mut sum, &b);
        elementwise::add_relu_inplace(&mut sum32, &b32);
        assert_rounded(&sum, &sum32);
        let (mut dy, mut dy32) = (a.clone(), a32.clone());
        relu::backward_inplace(&b, &mut dy);
        relu::backward_inplace(&b32, &mut dy32);
        assert_rounded(&dy, &dy32);
        let (mut y, mut y32) = (b.clone(), b32.clone());
        dropout::forward(0.3, 7, 2, &a, &mut y);
        dropout::forward(0.3, 7, 2, &a32, &mut y32);
        assert_rounded(&y, &y32);
    }
}

#[test]
fn pooling_rounds_once() {
    for (shape, n) in [
        (Pool2dShape { c: 1, h: 5, w: 7, window: 3, stride: 2, pad: 1 }, 3),
        (Pool2dShape { c: 130, h: 6, w: 6, window: 2, stride: 2, pad: 0 }, 2),
    ] {
        let (x, x32) = pair(3, n * shape.x_len());
        let (dy, dy32) = finite(4, n * shape.y_len());
        let (mut y, mut y32) = (vec![bf16::ZERO; dy.len()], vec![0.0; dy.len()]);
        let (mut at, mut at32) = (vec![0; dy.len()], vec![0; dy.len()]);
        pool2d::max_forward(&shape, n, &x, &mut y, &mut at);
        pool2d::max_forward(&shape, n, &x32, &mut y32, &mut at32);
        assert_rounded(&y, &y32);
        assert_eq!(at, at32);
        let (mut dx, mut dx32) = (vec![bf16::ONE; x.len()], vec![1.0; x.len()]);
        pool2d::max_backward(&shape, n, &dy, &at, &mut dx);
        pool2d::max_backward(&shape, n, &dy32, &at, &mut dx32);
        assert_rounded(&dx, &dx32);
    }
    for (shape, n) in [
        (AdaptiveAvgShape { c: 131, h: 4, w: 4, out_h: 1, out_w: 1 }, 2),
        (AdaptiveAvgShape { c: 3, h: 5, w: 7, out_h: 2, out_w: 3 }, 3),
    ] {
        let ((x, x32), (dy, dy32)) = (finite(5, n * shape.x_len()), finite(6, n * shape.y_len()));
        let (mut y, mut y32) = (vec![bf16::ZERO; dy.len()], vec![0.0; dy.len()]);
        pool2d::adaptive_avg_forward(&shape, n, &x, &mut y);
        pool2d::adaptive_avg_forward(&shape, n, &x32, &mut y32);
        assert_rounded(&y, &y32);
        let (mut dx, mut dx32) = (vec![bf16::ONE; x.len()], vec![1.0; x.len()]);
        pool2d::adaptive_avg_backward(&shape, n, &dy, &mut dx);
        pool2d::adaptive_avg_backward(&shape, n, &dy32, &mut dx32);
        assert_rounded(&dx, &dx32);
    }
}

#[test]
fn the_pad_shortcut_copies() {
    let (shape, n) = (PadShortcutShape { c: 5, h: 7, w: 4, k: 12, stride: 2 }, 3);
    let ((x, x32), (dy, dy32)) = (pair(7, n * shape.x_len()), pair(8, n * shape.y_len()));
    let (mut y, mut y32) = (vec![bf16::ONE; dy.len()], vec![1.0; dy.len()]);
    pad_shortcut::forward(&shape, n, &x, &mut y);
    pad_shortcut::forward(&shape, n, &x32, &mut y32);
    assert_rounded(&y, &y32);
    let (mut dx, mut dx32) = (vec![bf16::ONE; x.len()], vec![1.0; x.len()]);
    pad_shortcut::backward(&shape, n, &dy, &mut dx);
    pad_shortcut::backward(&shape, n, &dy32, &mut dx32);
    assert_rounded(&dx, &dx32);
}

/// Sums, statistics and gradients of parameters are f32, and so equal.
#[test]
fn batch_norm_rounds_once() {
    for (rows, c) in [(1, 1), (37, 3), (600, 64), (40, 2048)] {
        for (has_shortcut, relu) in [(false, false), (true, true)] {
            let extent = Extent { rows, c };
            let ((x, x32), (shortcut, shortcut32)) = (finite(1, rows * c), finite(2, rows * c));
            let (gamma, beta) = (normal(c, 3), normal(c, 4));
            let parameters = Parameters { gamma: &gamma, beta: &beta };
            let mut scratch = vec![0.0; batchnorm2d::scratch_len(rows, c)];
            let (mut y, mut y32) = (vec![bf16::ZERO; rows * c], vec![0.0; rows * c]);
            let mut numbers = [[(); 4].map(|()| vec![1.0; c]), [(); 4].map(|()| vec![1.0; c])];
            let [first, second] = &mut numbers;
            let epilogue = Epilogue { shortcut: has_shortcut.then_some(&shortcut[..]), relu };
            batchnorm2d::forward_train(
                extent,
                &x,
                parameters,
                epilogue,
                &mut y,
                statistics(first),
                &mut scratch,
            );
            let epilogue = Epilogue { shortcut: has_shortcut.then_some(&shortcut32[..]), relu };
            batchnorm2d::forward_train(
                extent,
                &x32,
                parameters,
                epilogue,
                &mut y32,
                statistics(second),
                &mut scratch,
            );
            assert_rounded(&y, &y32);
            assert_eq!(numbers[0], numbers[1]);

            let [mean, inv_std, running_mean, running_var] = &numbers[0];
            let running = RunningStatistics { mean: running_mean, var: running_var };
            let epilogue = Epilogue { shortcut: has_shortcut.then_some(&shortcut[..]), relu };
            batchnorm2d::forward_eval(extent, &x, parameters, running, epilogue, &mut y);
            let epilogue = Epilogue { shortcut: has_shortcut.then_some(&shortcut32[..]), relu };
            batchnorm2d::forward_eval(extent, &x32, parameters, running, epilogue, &mut y32);
            assert_rounded(&y, &y32);

            let (y32, (mut dy, mut dy32)) = (widen(&y), finite(5, rows * c));
            let (mut dx, mut dx32) = (vec![bf16::ZERO; rows * c], vec![0.0; rows * c]);
            let mut grads = [[(); 2].map(|()| vec![1.0; c]), [(); 2].map(|()| vec![1.0; c])];
            let [[dgamma, dbeta], [dgamma32, dbeta32]] = &mut grads;
            let saved = Saved { x: &x, relu_y: relu.then_some(&y[..]), gamma: &gamma, mean, inv_std };
            batchnorm2d::backward(
                extent,
                saved,
                &mut dy,
                Gradients { dx: &mut dx, dgamma, dbeta },
                &mut scratch,
            );
            let saved = Saved { x: &x32, relu_y: relu.then_some(&y32[..]), gamma: &gamma, mean, inv_std };
            let gradients = Gradients { dx: &mut dx32, dgamma: dgamma32, dbeta: dbeta32 };
            batchnorm2d::backward(extent, saved, &mut dy32, gradients, &mut scratch);
            assert_rounded(&dx, &dx32);
            assert_rounded(&dy, &dy32);
            assert_eq!(grads[0], grads[1]);
        }
    }
}

fn statistics(numbers: &mut [Vec<f32>; 4]) -> TrainStatistics<'_> {
    let [saved_mean, saved_inv_std, running_mean, running_var] = numbers;
    TrainStatistics { saved_mean, saved_inv_std, running_mean, running_var }
}

#[test]
fn a_bias_sums_in_f32() {
    let (rows, k) = (1500, 3);
    let (dy, dy32) = finite(1, rows * k);
    let mut scratch = vec![0.0; linear::bias_scratch_len(rows, k)];
    let (mut dbias, mut dbias32) = ([1.0; 3], [2.0; 3]);
    linear::bias_backward(rows, k, &dy, &mut dbias, &mut scratch);
    linear::bias_backward(rows, k, &dy32, &mut dbias32, &mut scratch);
    assert_eq!(dbias, dbias32);
}
