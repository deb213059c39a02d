//! The ops as plain loops in f64, NHWC, written from their definitions.

use scadles::ops::pad_shortcut::PadShortcutShape;
use scadles::ops::pool2d::{AdaptiveAvgShape, Pool2dShape};

/// Mean and biased variance per channel of `x` `[rows, C]`.
pub fn statistics(c: usize, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let rows = x.len() / c;
    let channel = |k: usize| (0..rows).map(move |row| x[row * c + k]);
    let mean: Vec<f64> = (0..c).map(|k| channel(k).sum::<f64>() / rows as f64).collect();
    let var = (0..c).map(|k| channel(k).map(|x| (x - mean[k]).powi(2)).sum::<f64>() / rows as f64).collect();
    (mean, var)
}

/// `relu?(gamma * (x - mean) / sqrt(var + eps) + beta + shortcut?)`.
pub fn normalize(
    x: &[f64],
    (mean, var): (&[f64], &[f64]),
    (gamma, beta): (&[f64], &[f64]),
    shortcut: Option<&[f64]>,
    relu: bool,
) -> Vec<f64> {
    let c = mean.len();
    let eps = f64::from(scadles::ops::batchnorm2d::EPS);
    (0..x.len())
        .map(|i| {
            let k = i % c;
            let y = gamma[k] * (x[i] - mean[k]) / (var[k] + eps).sqrt() + beta[k];
            let y = y + shortcut.map_or(0.0, |shortcut| shortcut[i]);
            if relu { y.max(0.0) } else { y }
        })
        .collect()
}

/// Maximum of each window and its position `r * window + s`.
pub fn max_pool(shape: &Pool2dShape, n: usize, x: &[f64]) -> (Vec<f64>, Vec<u8>) {
    let Pool2dShape { c, h, w, window, stride, pad } = *shape;
    let (mut y, mut argmax) = (Vec::new(), Vec::new());
    for image in 0..n {
        for p in 0..(h + 2 * pad - window) / stride + 1 {
            for q in 0..(w + 2 * pad - window) / stride + 1 {
                for k in 0..c {
                    let mut best = None;
                    for r in 0..window {
                        for s in 0..window {
                            let (row, column) = (p * stride + r, q * stride + s);
                            if row < pad || column < pad || row - pad >= h || column - pad >= w {
                                continue;
                            }
                            let value = x[((image * h + row - pad) * w + column - pad) * c + k];
                            if best.is_none_or(|(greatest, _)| value > greatest || value.is_nan()) {
                                best = Some((value, (r * window + s) as u8));
                            }
                        }
                    }
                    let (value, position) = best.expect("a window meets the image");
                    y.push(value);
                    argmax.push(position);
                }
            }
        }
    }
    (y, argmax)
}

/// Scatters `dy` to where each window's maximum was.
pub fn max_pool_backward(shape: &Pool2dShape, n: usize, dy: &[f64], argmax: &[u8]) -> Vec<f64> {
    let Pool2dShape { c, h, w, window, stride, pad } = *shape;
    let (p_extent, q_extent) = ((h + 2 * pad - window) / stride + 1, (w + 2 * pad - window) / stride + 1);
    let mut dx = vec![0.0; n * h * w * c];
    for (i, (dy, position)) in dy.iter().zip(argmax).enumerate() {
        let (pixel, k) = (i / c, i % c);
        let (image, p, q) = (pixel / (p_extent * q_extent), pixel / q_extent % p_extent, pixel % q_extent);
        let (r, s) = (usize::from(*position) / window, usize::from(*position) % window);
        dx[((image * h + p * stride + r - pad) * w + q * stride + s - pad) * c + k] += dy;
    }
    dx
}

/// Mean of each bin `floor(i * in / out) .. ceil((i + 1) * in / out)`.
pub fn adaptive_avg(shape: &AdaptiveAvgShape, n: usize, x: &[f64]) -> Vec<f64> {
    let AdaptiveAvgShape { c, h, w, out_h, out_w } = *shape;
    let bin = |i: usize, extent: usize, out: usize| {
        let (low, high) = ((i * extent) as f64 / out as f64, ((i + 1) * extent) as f64 / out as f64);
        low.floor() as usize..high.ceil() as usize
    };
    let mut y = Vec::new();
    for image in 0..n {
        for p in 0..out_h {
            for q in 0..out_w {
                for k in 0..c {
                    let (mut sum, mut count) = (0.0, 0.0);
                    for row in bin(p, h, out_h) {
                        for column in bin(q, w, out_w) {
                            sum += x[((image * h + row) * w + column) * c + k];
                            count += 1.0;
                        }
                    }
                    y.push(sum / count);
                }
            }
        }
    }
    y
}

/// Every `stride`-th pixel with `(K - C) / 2` zero channels before it and the rest after it.
pub fn pad_shortcut(shape: &PadShortcutShape, n: usize, x: &[f64]) -> Vec<f64> {
    let PadShortcutShape { c, h, w, k, stride } = *shape;
    let mut y = Vec::new();
    for image in 0..n {
        for row in (0..h).step_by(stride) {
            for column in (0..w).step_by(stride) {
                for channel in 0..k {
                    let source = channel.checked_sub((k - c) / 2).filter(|&source| source < c);
                    y.push(source.map_or(0.0, |source| x[((image * h + row) * w + column) * c + source]));
                }
            }
        }
    }
    y
}

/// Cross-entropy of each row.
pub fn cross_entropy(classes: usize, logits: &[f64], labels: &[u32]) -> Vec<f64> {
    let rows = logits.chunks_exact(classes).zip(labels);
    rows.map(|(logits, &label)| {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        max + logits.iter().map(|logit| (logit - max).exp()).sum::<f64>().ln() - logits[label as usize]
    })
    .collect()
}

/// Place of the label in a full sort of the row: greater logits first, of equal ones the lower class.
pub fn rank(logits: &[f32], label: u32) -> usize {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).expect("no NaN").then(a.cmp(&b)));
    order.iter().position(|&class| class == label as usize).expect("label is a class")
}
