//! `kernels/conv2d_dgrad.cu` against f64.

use crate::conv2d_reference::{
    CASES, Case, Stored, Sums, algorithms, assert_close, dgrad, random, tolerance, values,
};
use crate::support::{Vector, device_or_skip};
use half::bf16;
use scadles::device::cuda::{Batch, CudaDevice};
use scadles::ops::conv2d::cuda::{self, Algorithm, Pass, Tile};
use scadles::shape::Conv2dShape;

/// `dx` of the images there are; with `before`, what it is added to.
fn run<E: Stored>(
    device: &CudaDevice,
    algorithm: Algorithm,
    case: &Case,
    [dy, filter]: [&[E]; 2],
    before: Option<&[E]>,
) -> Vec<E> {
    let Case { shape, bucket, count } = *case;
    let (dy, filter) = (Vector::aligned(device, dy), Vector::aligned(device, filter));
    let number = Vector::new(device, &[count as i32]);
    let len = count * shape.x_len();
    let mut dx = before.map_or_else(|| vec![E::NAN; len], <[E]>::to_vec);
    dx.resize(bucket * shape.x_len(), E::MARK);
    let mut dx = Vector::aligned(device, &dx);
    let mut scratch =
        Vector::aligned(device, &vec![f32::NAN; algorithm.scratch_len(&shape, Pass::Dgrad, bucket)]);
    let batch = Batch { bucket, count: number.view() };
    let (dy, filter, accumulate) = (dy.view(), filter.view(), before.is_some());
    let (dx_view, scratch_view) = (dx.view_mut(), scratch.view_mut());
    cuda::dgrad_with(algorithm, device, &shape, batch, dy, filter, dx_view, accumulate, scratch_view)
        .unwrap();
    scratch.read();
    let mut dx = dx.read();
    assert!(dx[len..].iter().all(|&x| x == E::MARK), "wrote beyond the count: {case:?}");
    dx.truncate(len);
    dx
}

fn check_case<E: Stored>(device: &CudaDevice, case: &Case) {
    let Case { shape, bucket, count } = *case;
    let dy: Vec<E> = random(count * shape.y_len(), bucket * shape.y_len(), 1);
    let filter: Vec<E> = random(shape.filter_len(), shape.filter_len(), 2);
    let before: Vec<E> = random(count * shape.x_len(), count * shape.x_len(), 3);
    let Sums { values: dx, magnitudes } =
        dgrad(&shape, count, &values(&dy[..count * shape.y_len()]), &values(&filter));
    for algorithm in algorithms::<E>(&shape, Pass::Dgrad) {
        for before in [None, Some(&before[..])] {
            let accumulate = before.is_some();
            let what = format!(
                "{} {algorithm:?} {case:?} accumulate {accumulate}",
                algorithm.kernel::<E>(Pass::Dgrad)
            );
            let found = run(device, algorithm, case, [&dy, &filter], before);
            let was = |i: usize| before.map_or(0.0, |before| f64::from(before[i].value()));
            let allowed = |i: usize| tolerance::<E>(dx[i] + was(i), magnitudes[i] + was(i).abs(), 1.0);
            assert_close(&values(&found), |i| dx[i] + was(i), allowed, &what);
        }
    }
}

#[test]
fn dgrad_f32_is_the_sum_of_its_definition() {
    let Some(device) = device_or_skip("dgrad_f32_is_the_sum_of_its_definition") else { return };
    CASES.iter().for_each(|case| check_case::<f32>(&device, case));
}

#[test]
fn dgrad_bf16_is_the_sum_of_its_definition() {
    let Some(device) = device_or_skip("dgrad_bf16_is_the_sum_of_its_definition") else { return };
    CASES.iter().for_each(|case| check_case::<bf16>(&device, case));
}

/// A layer that halves a ResNet's images, by the algorithm that is chosen, twice.
fn check_chosen<E: Stored>(device: &CudaDevice) {
    let shape = Conv2dShape { c: 16, h: 32, w: 32, k: 32, r: 3, s: 3, stride: 2, pad: 1, dilation: 1 };
    let bucket = 4;
    let algorithm = cuda::algorithm::<E>(device, &shape, Pass::Dgrad, bucket);
    let dy = random::<E>(bucket * shape.y_len(), bucket * shape.y_len(), 1);
    let filter = random::<E>(shape.filter_len(), shape.filter_len(), 2);
    let sums = dgrad(&shape, bucket, &values(&dy), &values(&filter));
    let (dy, filter) = (Vector::aligned(device, &dy), Vector::aligned(device, &filter));
    let count = Vector::new(device, &[bucket as i32]);
    let mut scratch =
        Vector::aligned(device, &vec![f32::NAN; cuda::scratch_len::<E>(device, &shape, bucket)]);
    let mut once = || {
        let mut dx = Vector::aligned(device, &vec![E::NAN; bucket * shape.x_len()]);
        let batch = Batch { bucket, count: count.view() };
        let (dx_view, scratch) = (dx.view_mut(), scratch.view_mut());
        cuda::dgrad(device, &shape, batch, dy.view(), filter.view(), dx_view, false, scratch).unwrap();
        dx.read()
    };
    let dx = once();
    let allowed = |i: usize| tolerance::<E>(sums.values[i], sums.magnitudes[i], 1.0);
    assert_close(&values(&dx), |i| sums.values[i], allowed, &format!("{algorithm:?}"));
    assert!(dx == once(), "another run, other bits");
}

#[test]
fn dgrad_chooses_and_repeats_itself() {
    let Some(device) = device_or_skip("dgrad_chooses_and_repeats_itself") else { return };
    check_chosen::<f32>(&device);
    check_chosen::<bf16>(&device);
    let last = Conv2dShape { c: 512, h: 1, w: 1, k: 10, r: 1, s: 1, stride: 1, pad: 0, dilation: 1 };
    let chosen = cuda::algorithm::<bf16>(&device, &last, Pass::Dgrad, 64);
    assert_eq!(chosen.kernel::<bf16>(Pass::Dgrad), "conv2d_dgrad_mma_gather_bf16");
    let chosen = cuda::algorithm::<f32>(&device, &Conv2dShape { k: 12, ..last }, Pass::Dgrad, 64);
    assert_ne!(chosen.tile, Tile::Gather);
}
