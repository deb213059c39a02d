//! `kernels/conv2d_fprop.cu` against f64.

use crate::conv2d_reference::{
    CASES, Case, Stored, Sums, algorithms, assert_close, fprop, random, tolerance, values,
};
use crate::support::{Mark, Vector, device_or_skip, normal};
use half::bf16;
use scadles::device::cuda::{Batch, CudaDevice};
use scadles::ops::conv2d::cuda::{self, Algorithm, Epilogue, Pass, Tile};
use scadles::shape::Conv2dShape;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    Plain,
    BiasRelu,
    BiasStatistics,
}

/// `y` and the statistics, after a run with what lies beyond the count NaN, or marked and compared.
fn run<E: Stored>(
    device: &CudaDevice,
    algorithm: Algorithm,
    case: &Case,
    [x, filter]: [&[E]; 2],
    bias: &[f32],
    leaves: Leaves,
) -> (Vec<E>, Vec<f32>) {
    let Case { shape, bucket, count } = *case;
    let (x, filter, bias) =
        (Vector::aligned(device, x), Vector::aligned(device, filter), Vector::new(device, bias));
    let number = Vector::new(device, &[count as i32]);
    let mut y = vec![E::NAN; count * shape.y_len()];
    y.resize(bucket * shape.y_len(), E::MARK);
    let mut y = Vector::aligned(device, &y);
    let mut scratch =
        Vector::aligned(device, &vec![f32::NAN; algorithm.scratch_len(&shape, Pass::Fprop, bucket)]);
    let rows = shape.p() * shape.q();
    let [tiles, all_tiles] =
        [count, bucket].map(|n| (n * rows).div_ceil(algorithm.statistics_tile_rows()) * 2 * shape.k);
    let mut statistics = vec![f32::NAN; tiles];
    statistics.resize(all_tiles, f32::MARK);
    let mut statistics = Vector::new(device, &statistics);
    let epilogue = Epilogue {
        bias: (leaves != Leaves::Plain).then(|| bias.view()),
        relu: leaves == Leaves::BiasRelu,
        statistics: (leaves == Leaves::BiasStatistics).then(|| statistics.view_mut()),
    };
    let batch = Batch { bucket, count: number.view() };
    let (x, filter) = (x.view(), filter.view());
    cuda::fprop_with(algorithm, device, &shape, batch, x, filter, epilogue, y.view_mut(), scratch.view_mut())
        .unwrap();
    scratch.read();
    let (mut y, mut statistics) = (y.read(), statistics.read());
    assert!(y[count * shape.y_len()..].iter().all(|&y| y == E::MARK), "wrote beyond the count: {case:?}");
    assert!(statistics[tiles..].iter().all(|&x| x == f32::MARK), "wrote beyond the tiles: {case:?}");
    y.truncate(count * shape.y_len());
    statistics.truncate(tiles);
    (y, statistics)
}

/// Merges tile statistics into mean and biased variance of each channel.
fn merge(statistics: &[f32], rows: usize, tile_rows: usize, k: usize) -> Vec<(f64, f64)> {
    let merged = (0..k).map(|channel| {
        let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for (tile, of_tile) in statistics.chunks(2 * k).enumerate() {
            let number = tile_rows.min(rows - tile * tile_rows) as f64;
            let tile_mean = f64::from(of_tile[channel]) / number;
            let delta = tile_mean - mean;
            squares += f64::from(of_tile[k + channel]) + delta * delta * n * number / (n + number);
            mean += delta * number / (n + number);
            n += number;
        }
        (mean, squares / n)
    });
    merged.collect()
}

fn check_statistics<E: Stored>(y: &[E], statistics: &[f32], tile_rows: usize, k: usize, what: &str) {
    let rows = y.len() / k;
    if rows == 0 {
        return; // no tile was written, which `run` has checked
    }
    for (channel, (mean, variance)) in merge(statistics, rows, tile_rows, k).into_iter().enumerate() {
        // Of the stored values, in two passes over all of them.
        let column = || y.iter().skip(channel).step_by(k).map(|y| f64::from(y.value()));
        let expected_mean = column().sum::<f64>() / rows as f64;
        let expected = column().map(|y| (y - expected_mean).powi(2)).sum::<f64>() / rows as f64;
        let size = column().map(f64::abs).sum::<f64>() / rows as f64;
        assert!((mean - expected_mean).abs() <= 2f64.powi(-20) * size, "{what}: mean of {channel}");
        // The tile's mean is f32: its error enters squared. The rest are roundings of deviations and of their sum.
        assert!(
            (variance - expected).abs() <= 2f64.powi(-18) * expected + (2f64.powi(-20) * size).powi(2),
            "{what}: variance of {channel} is {variance:e}, expected {expected:e}"
        );
    }
}

fn check_case<E: Stored>(device: &CudaDevice, case: &Case) {
    let Case { shape, bucket, count } = *case;
    let x: Vec<E> = random(count * shape.x_len(), bucket * shape.x_len(), 1);
    let filter: Vec<E> = random(shape.filter_len(), shape.filter_len(), 2);
    // A mean far from 0 shows whether deviations are taken from it.
    let bias: Vec<f32> = normal(shape.k, 3).iter().map(|b| b * 30.0).collect();
    let Sums { values: y, magnitudes } =
        fprop(&shape, count, &values(&x[..count * shape.x_len()]), &values(&filter));
    for algorithm in algorithms::<E>(&shape, Pass::Fprop) {
        for leaves in [Leaves::Plain, Leaves::BiasRelu, Leaves::BiasStatistics] {
            let what = format!("{} {algorithm:?} {case:?} {leaves:?}", algorithm.kernel::<E>(Pass::Fprop));
            let (found, statistics) = run(device, algorithm, case, [&x, &filter], &bias, leaves);
            let expected = |i: usize| match leaves {
                Leaves::Plain => y[i],
                Leaves::BiasRelu => (y[i] + f64::from(bias[i % shape.k])).max(0.0),
                Leaves::BiasStatistics => y[i] + f64::from(bias[i % shape.k]),
            };
            let allowed = |i: usize| {
                tolerance::<E>(expected(i), magnitudes[i] + f64::from(bias[i % shape.k].abs()), 1.0)
            };
            assert_close(&values(&found), expected, allowed, &what);
            if leaves == Leaves::BiasStatistics {
                check_statistics(&found, &statistics, algorithm.statistics_tile_rows(), shape.k, &what);
            }
        }
    }
}

#[test]
fn fprop_f32_is_the_sum_of_its_definition() {
    let Some(device) = device_or_skip("fprop_f32_is_the_sum_of_its_definition") else { return };
    CASES.iter().for_each(|case| check_case::<f32>(&device, case));
}

#[test]
fn fprop_bf16_is_the_sum_of_its_definition() {
    let Some(device) = device_or_skip("fprop_bf16_is_the_sum_of_its_definition") else { return };
    CASES.iter().for_each(|case| check_case::<bf16>(&device, case));
}

/// The first stage of a ResNet for CIFAR-10, by the algorithm that is chosen, twice.
fn check_chosen<E: Stored>(device: &CudaDevice) {
    let shape = Conv2dShape { c: 16, h: 32, w: 32, k: 16, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };
    let bucket = 4;
    let algorithm = cuda::algorithm::<E>(device, &shape, Pass::Fprop, bucket);
    assert_eq!(algorithm.statistics_tile_rows(), cuda::statistics_tile_rows::<E>(device, &shape, bucket));
    let x = random::<E>(bucket * shape.x_len(), bucket * shape.x_len(), 1);
    let filter = random::<E>(shape.filter_len(), shape.filter_len(), 2);
    let sums = fprop(&shape, bucket, &values(&x), &values(&filter));
    let (x, filter) = (Vector::aligned(device, &x), Vector::aligned(device, &filter));
    let count = Vector::new(device, &[bucket as i32]);
    let mut scratch =
        Vector::aligned(device, &vec![f32::NAN; cuda::scratch_len::<E>(device, &shape, bucket)]);
    let mut once = || {
        let mut y = Vector::aligned(device, &vec![E::NAN; bucket * shape.y_len()]);
        let batch = Batch { bucket, count: count.view() };
        let (y_view, scratch) = (y.view_mut(), scratch.view_mut());
        cuda::fprop(device, &shape, batch, x.view(), filter.view(), Epilogue::default(), y_view, scratch)
            .unwrap();
        y.read()
    };
    let y = once();
    let allowed = |i: usize| tolerance::<E>(sums.values[i], sums.magnitudes[i], 1.0);
    assert_close(&values(&y), |i| sums.values[i], allowed, &format!("{algorithm:?}"));
    assert!(y == once(), "another run, other bits");
}

#[test]
fn fprop_chooses_and_repeats_itself() {
    let Some(device) = device_or_skip("fprop_chooses_and_repeats_itself") else { return };
    check_chosen::<f32>(&device);
    check_chosen::<bf16>(&device);
    let stem = Conv2dShape { c: 3, h: 32, w: 32, k: 64, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };
    let chosen = cuda::algorithm::<bf16>(&device, &stem, Pass::Fprop, 8);
    assert_eq!(chosen.kernel::<bf16>(Pass::Fprop), "conv2d_fprop_mma_gather_bf16");
    let large = cuda::algorithm::<f32>(&device, &Conv2dShape { c: 256, k: 256, ..stem }, Pass::Fprop, 4096);
    assert_eq!(large, Algorithm { tile: Tile::T128x128, splits: 1 });
    assert_eq!(large.kernel::<f32>(Pass::Fprop), "conv2d_fprop_simt_128x128_f32");
}

#[test]
fn fprop_refuses_other_lengths() {
    let Some(device) = device_or_skip("fprop_refuses_other_lengths") else { return };
    let shape = CASES[8].shape;
    let vector = |len: usize| Vector::aligned(&device, &vec![0.0f32; len]);
    let count = Vector::new(&device, &[1]);
    let (x, filter, mut y) = (vector(shape.x_len()), vector(shape.filter_len()), vector(shape.y_len()));
    let (bias, mut scratch) = (vector(shape.k - 1), vector(7));
    let batch = Batch { bucket: 1, count: count.view() };
    let split = Algorithm { tile: Tile::T64x64, splits: 2 };
    let mut refused = |algorithm: Algorithm, x: &Vector, batch: Batch, bias: Option<&Vector>| {
        let epilogue = Epilogue { bias: bias.map(Vector::view), ..Epilogue::default() };
        let (y, scratch) = (y.view_mut(), scratch.view_mut());
        let done = cuda::fprop_with(
            algorithm,
            &device,
            &shape,
            batch,
            x.view(),
            filter.view(),
            epilogue,
            y,
            scratch,
        );
        done.unwrap_err().to_string()
    };
    let whole = Algorithm { splits: 1, ..split };
    let said = refused(whole, &vector(239), batch, None);
    assert_eq!(said, "kernel conv2d_fprop: x has 239 elements, expected 240");
    let said = refused(whole, &x, batch, Some(&bias));
    assert_eq!(said, "kernel conv2d_fprop: bias has 15 elements, expected 16");
    let said = refused(split, &x, batch, None);
    assert_eq!(said, "kernel conv2d_fprop: scratch has 7 elements, expected 960");
    let said = refused(whole, &x, Batch { bucket: 1 << 30, ..batch }, None);
    assert!(said.contains("the number of pixels of a batch and a tile is"), "{said}");
}
