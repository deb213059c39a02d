//! `kernels/conv2d_wgrad_wgmma.cu` against the definition in f64.

use crate::conv2d_reference::{self as reference, Case};
use crate::hopper_cases::{
    CASES, algorithms, assert_chosen, assert_sums, batch, count, hopper_or_skip, images, values,
};
use crate::support::{Mark, Vector};
use scadles::device::cuda::CudaDevice;
use scadles::ops::conv2d::cuda::{Algorithm, Pass, wgrad_with};

fn check(device: &CudaDevice, algorithm: Algorithm, case: &Case, aligned: bool) {
    let Case { shape, bucket, count: n } = *case;
    let what = format!("{algorithm:?}, {case:?}, aligned {aligned}");
    let (x, dy) = (values(n * shape.x_len(), 1), values(n * shape.y_len(), 2));
    let expected = reference::wgrad(&shape, n, &x, &dy);
    let x = images(device, &x, bucket * shape.x_len());
    let dy = images(device, &dy, bucket * shape.y_len());
    let before = vec![f32::MARK; shape.filter_len()];
    let mut dfilter = if aligned { Vector::aligned(device, &before) } else { Vector::new(device, &before) };
    let scratch_len = algorithm.scratch_len(&shape, Pass::Wgrad, bucket);
    let mut scratch = Vector::aligned(device, &vec![f32::NAN; scratch_len]);
    let num_images = count(device, case);
    let batch = batch(case, &num_images);
    let (x, dy, out) = (x.view(), dy.view(), dfilter.view_mut());
    wgrad_with(algorithm, device, &shape, batch, x, dy, out, scratch.view_mut()).unwrap();
    assert_sums(&dfilter.read(), &expected, false, &what);
}

#[test]
fn wgrad_wgmma_is_the_gradient() {
    let Some(device) = hopper_or_skip("wgrad_wgmma_is_the_gradient") else { return };
    assert_chosen(&device, Pass::Wgrad);
    for algorithm in algorithms(Pass::Wgrad) {
        for case in &CASES {
            check(&device, algorithm, case, false);
        }
    }
}

#[test]
fn wgrad_wgmma_adds_up_its_parts() {
    let Some(device) = hopper_or_skip("wgrad_wgmma_adds_up_its_parts") else { return };
    for algorithm in algorithms(Pass::Wgrad) {
        for (case, splits) in [(0, 2), (2, 3), (5, 4), (11, 3), (13, 2), (16, 7)] {
            let case = &CASES[case];
            check(&device, Algorithm { splits, ..algorithm }, case, true);
        }
    }
}
