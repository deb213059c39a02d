//! `kernels/conv2d_wgrad.cu` against f64.

use crate::conv2d_reference::{
    CASES, Case, Stored, Sums, algorithms, assert_close, random, tolerance, values, wgrad,
};
use crate::support::{Vector, assert_same_bits, device_or_skip};
use half::bf16;
use scadles::device::cuda::{Batch, CudaDevice};
use scadles::ops::conv2d::cuda::{self, Algorithm, Pass, Tile};
use scadles::shape::Conv2dShape;

fn run<E: Stored>(device: &CudaDevice, algorithm: Algorithm, case: &Case, [x, dy]: [&[E]; 2]) -> Vec<f32> {
    let Case { shape, bucket, count } = *case;
    let (x, dy) = (Vector::aligned(device, x), Vector::aligned(device, dy));
    let number = Vector::new(device, &[count as i32]);
    // The gradient is a slice of a longer vector, at any element.
    let mut dfilter = Vector::new(device, &vec![f32::NAN; shape.filter_len()]);
    let mut scratch =
        Vector::aligned(device, &vec![f32::NAN; algorithm.scratch_len(&shape, Pass::Wgrad, bucket)]);
    let batch = Batch { bucket, count: number.view() };
    let (dfilter_view, scratch_view) = (dfilter.view_mut(), scratch.view_mut());
    cuda::wgrad_with(algorithm, device, &shape, batch, x.view(), dy.view(), dfilter_view, scratch_view)
        .unwrap();
    scratch.read();
    dfilter.read()
}

fn check_case<E: Stored>(device: &CudaDevice, case: &Case) {
    let Case { shape, bucket, count } = *case;
    let x: Vec<E> = random(count * shape.x_len(), bucket * shape.x_len(), 1);
    let dy: Vec<E> = random(count * shape.y_len(), bucket * shape.y_len(), 2);
    let (real_x, real_dy) = (values(&x[..count * shape.x_len()]), values(&dy[..count * shape.y_len()]));
    let Sums { values: dfilter, magnitudes } = wgrad(&shape, count, &real_x, &real_dy);
    for algorithm in algorithms::<E>(&shape, Pass::Wgrad) {
        let what = format!("{} {algorithm:?} {case:?}", algorithm.kernel::<E>(Pass::Wgrad));
        let found = run(device, algorithm, case, [&x, &dy]);
        // f32, whatever the inputs are.
        let allowed = |i: usize| tolerance::<f32>(dfilter[i], magnitudes[i], 1.0);
        assert_close(&found, |i| dfilter[i], allowed, &what);
    }
}

#[test]
fn wgrad_f32_is_the_sum_of_its_definition() {
    let Some(device) = device_or_skip("wgrad_f32_is_the_sum_of_its_definition") else { return };
    CASES.iter().for_each(|case| check_case::<f32>(&device, case));
}

#[test]
fn wgrad_bf16_is_the_sum_of_its_definition() {
    let Some(device) = device_or_skip("wgrad_bf16_is_the_sum_of_its_definition") else { return };
    CASES.iter().for_each(|case| check_case::<bf16>(&device, case));
}

/// The first stage of a ResNet for CIFAR-10, by the algorithm that is chosen, twice.
fn check_chosen<E: Stored>(device: &CudaDevice) {
    let shape = Conv2dShape { c: 16, h: 32, w: 32, k: 16, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };
    let bucket = 4;
    let algorithm = cuda::algorithm::<E>(device, &shape, Pass::Wgrad, bucket);
    let x = random::<E>(bucket * shape.x_len(), bucket * shape.x_len(), 1);
    let dy = random::<E>(bucket * shape.y_len(), bucket * shape.y_len(), 2);
    let sums = wgrad(&shape, bucket, &values(&x), &values(&dy));
    let (x, dy) = (Vector::aligned(device, &x), Vector::aligned(device, &dy));
    let count = Vector::new(device, &[bucket as i32]);
    let mut scratch =
        Vector::aligned(device, &vec![f32::NAN; cuda::scratch_len::<E>(device, &shape, bucket)]);
    let mut once = || {
        let mut dfilter = Vector::new(device, &vec![f32::NAN; shape.filter_len()]);
        let batch = Batch { bucket, count: count.view() };
        let (dfilter_view, scratch) = (dfilter.view_mut(), scratch.view_mut());
        cuda::wgrad(device, &shape, batch, x.view(), dy.view(), dfilter_view, scratch).unwrap();
        dfilter.read()
    };
    let dfilter = once();
    let allowed = |i: usize| tolerance::<f32>(sums.values[i], sums.magnitudes[i], 1.0);
    assert_close(&dfilter, |i| sums.values[i], allowed, &format!("{algorithm:?}"));
    assert_same_bits(&once(), &dfilter, "another run");
}

#[test]
fn wgrad_chooses_and_repeats_itself() {
    let Some(device) = device_or_skip("wgrad_chooses_and_repeats_itself") else { return };
    check_chosen::<f32>(&device);
    check_chosen::<bf16>(&device);
    let stem = Conv2dShape { c: 3, h: 32, w: 32, k: 64, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };
    let chosen = cuda::algorithm::<f32>(&device, &stem, Pass::Wgrad, 8);
    assert_eq!(chosen.kernel::<f32>(Pass::Wgrad), "conv2d_wgrad_simt_gather_f32");
    assert_ne!(chosen.tile, Tile::T64x64);
}

#[test]
fn wgrad_of_no_bucket_is_zero() {
    let Some(device) = device_or_skip("wgrad_of_no_bucket_is_zero") else { return };
    let shape = CASES[8].shape;
    let count = Vector::new(&device, &[0]);
    let (x, dy) = (Vector::<f32>::aligned(&device, &[]), Vector::<f32>::aligned(&device, &[]));
    let mut dfilter = Vector::new(&device, &vec![f32::NAN; shape.filter_len()]);
    let mut scratch = Vector::aligned(&device, &[0.0f32]);
    let batch = Batch { bucket: 0, count: count.view() };
    let (dfilter_view, scratch) = (dfilter.view_mut(), scratch.view_mut());
    cuda::wgrad(&device, &shape, batch, x.view(), dy.view(), dfilter_view, scratch).unwrap();
    assert_eq!(dfilter.read(), vec![0.0; shape.filter_len()]);
}
