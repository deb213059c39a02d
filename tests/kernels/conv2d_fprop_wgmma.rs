//! `kernels/conv2d_fprop_wgmma.cu` against the definition in f64.

use crate::conv2d_reference::{self as reference, Case, Sums};
use crate::hopper_cases::{
    BEFORE, CASES, algorithms, assert_chosen, assert_sums, batch, count, hopper_or_skip, images, values,
    written,
};
use crate::support::{Mark, Vector, normal};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::conv2d::cuda::{Algorithm, Epilogue, Pass, fprop_with};

/// Rows of an entry of the statistics.
const STATISTICS_ROWS: usize = 128;

#[derive(Clone, Copy, Debug, Default)]
struct Extras {
    bias: bool,
    relu: bool,
    statistics: bool,
}

fn expected(case: &Case, x: &[f32], filter: &[f32], bias: Option<&[f32]>, relu: bool) -> Sums {
    let mut y = reference::fprop(&case.shape, case.count, x, filter);
    for (i, value) in y.values.iter_mut().enumerate() {
        let bias = bias.map_or(0.0, |bias| f64::from(bias[i % case.shape.k]));
        *value += bias;
        y.magnitudes[i] += bias.abs();
        if relu {
            *value = value.max(0.0);
        }
    }
    y
}

/// The statistics of what was stored, per 128 rows; entries without rows are as before.
fn assert_statistics(found: &[f32], y: &[f32], k: usize, what: &str) {
    let tiles: Vec<&[f32]> = y.chunks(STATISTICS_ROWS * k).collect();
    for (i, &found) in found.iter().enumerate() {
        let (tile, which, channel) = (i / (2 * k), i / k % 2, i % k);
        let Some(rows) = tiles.get(tile) else {
            assert_eq!(found, f32::MARK, "{what}: statistics beyond the batch were written");
            continue;
        };
        let column = || rows.iter().skip(channel).step_by(k).map(|&y| f64::from(y));
        let sum: f64 = column().sum();
        let mean = sum / (rows.len() / k) as f64;
        let (expected, scale) = match which {
            0 => (sum, column().map(f64::abs).sum::<f64>()),
            _ => (column().map(|y| (y - mean).powi(2)).sum(), column().map(|y| y * y).sum()),
        };
        // A few roundings of f32 in each of 128 terms.
        let error = (f64::from(found) - expected).abs();
        assert!(error <= scale * 1e-6 + 1e-30, "{what}: statistics [{i}] are {found}, expected {expected}");
    }
}

fn check(device: &CudaDevice, algorithm: Algorithm, case: &Case, extras: Extras) {
    let Case { shape, bucket, count: n } = *case;
    let what = format!("{algorithm:?}, {case:?}, {extras:?}");
    let (x, filter) = (values(n * shape.x_len(), 1), values(shape.filter_len(), 2));
    let bias = extras.bias.then(|| normal(shape.k, 3));
    let expected = expected(case, &x, &filter, bias.as_deref(), extras.relu);
    let x = images(device, &x, bucket * shape.x_len());
    let filter = images(device, &filter, shape.filter_len());
    let bias = bias.map(|bias| Vector::new(device, &bias));
    let tiles = (bucket * shape.p() * shape.q()).div_ceil(STATISTICS_ROWS);
    let mut statistics = Vector::new(device, &vec![f32::MARK; tiles * 2 * shape.k]);
    let mut y = Vector::aligned(device, &vec![BEFORE; bucket * shape.y_len()]);
    let mut scratch = Vector::aligned(device, &[]);
    let num_images = count(device, case);
    let epilogue = Epilogue {
        bias: bias.as_ref().map(|bias| bias.view()),
        relu: extras.relu,
        statistics: extras.statistics.then(|| statistics.view_mut()),
    };
    let batch = batch(case, &num_images);
    let views = (x.view(), filter.view(), y.view_mut());
    fprop_with(algorithm, device, &shape, batch, views.0, views.1, epilogue, views.2, scratch.view_mut())
        .unwrap();
    let y = written(&y.read(), n * shape.y_len(), &what);
    assert_sums(&y, &expected, true, &what);
    if extras.statistics {
        assert_statistics(&statistics.read(), &y, shape.k, &what);
    }
}

#[test]
fn fprop_wgmma_is_the_convolution() {
    let Some(device) = hopper_or_skip("fprop_wgmma_is_the_convolution") else { return };
    assert_chosen(&device, Pass::Fprop);
    for algorithm in algorithms(Pass::Fprop) {
        for case in &CASES {
            check(&device, algorithm, case, Extras::default());
        }
    }
}

#[test]
fn fprop_wgmma_adds_bias_clamps_and_takes_statistics() {
    let Some(device) = hopper_or_skip("fprop_wgmma_adds_bias_clamps_and_takes_statistics") else { return };
    for algorithm in algorithms(Pass::Fprop) {
        for case in [0, 4, 5, 6, 8, 11, 13].map(|i| CASES[i]) {
            check(&device, algorithm, &case, Extras { bias: true, statistics: true, ..Extras::default() });
            check(&device, algorithm, &case, Extras { bias: true, relu: true, ..Extras::default() });
        }
    }
}

#[test]
fn fprop_wgmma_gives_the_same_bits_again() {
    let Some(device) = hopper_or_skip("fprop_wgmma_gives_the_same_bits_again") else { return };
    let Case { shape, bucket, .. } = CASES[0];
    let x = images(&device, &values(bucket * shape.x_len(), 1), bucket * shape.x_len());
    let filter = images(&device, &values(shape.filter_len(), 2), shape.filter_len());
    let num_images = count(&device, &CASES[0]);
    for algorithm in algorithms(Pass::Fprop) {
        let run = || {
            let mut y = Vector::aligned(&device, &vec![bf16::ZERO; bucket * shape.y_len()]);
            let mut scratch = Vector::aligned(&device, &[]);
            let batch = batch(&CASES[0], &num_images);
            let (x, filter) = (x.view(), filter.view());
            let (y_view, scratch) = (y.view_mut(), scratch.view_mut());
            fprop_with(algorithm, &device, &shape, batch, x, filter, Epilogue::default(), y_view, scratch)
                .unwrap();
            y.read()
        };
        assert!(run() == run(), "{algorithm:?}");
    }
}
