//! `kernels/conv2d_dgrad_wgmma.cu` against the definition in f64.

use crate::conv2d_reference::{self as reference, Case};
use crate::hopper_cases::{
    BEFORE, CASES, algorithms, assert_chosen, assert_sums, batch, count, hopper_or_skip, images, values,
    written,
};
use crate::support::Vector;
use scadles::device::cuda::CudaDevice;
use scadles::ops::conv2d::cuda::{Algorithm, Pass, Tile, algorithm, dgrad_with};

fn is_supported(case: &Case) -> bool {
    case.shape.stride == 1 || case.shape.dilation == 1
}

fn check(device: &CudaDevice, algorithm: Algorithm, case: &Case, accumulate: bool) {
    let Case { shape, bucket, count: n } = *case;
    let what = format!("{algorithm:?}, {case:?}, accumulate {accumulate}");
    let (dy, filter) = (values(n * shape.y_len(), 1), values(shape.filter_len(), 2));
    let mut expected = reference::dgrad(&shape, n, &dy, &filter);
    if accumulate {
        for value in &mut expected.values {
            *value += f64::from(BEFORE.to_f32());
        }
        for magnitude in &mut expected.magnitudes {
            *magnitude += f64::from(BEFORE.to_f32());
        }
    }
    let dy = images(device, &dy, bucket * shape.y_len());
    let filter = images(device, &filter, shape.filter_len());
    let mut dx = Vector::aligned(device, &vec![BEFORE; bucket * shape.x_len()]);
    let mut scratch = Vector::aligned(device, &[]);
    let num_images = count(device, case);
    let batch = batch(case, &num_images);
    let (dy, filter, dx_view) = (dy.view(), filter.view(), dx.view_mut());
    dgrad_with(algorithm, device, &shape, batch, dy, filter, dx_view, accumulate, scratch.view_mut())
        .unwrap();
    let dx = written(&dx.read(), n * shape.x_len(), &what);
    assert_sums(&dx, &expected, true, &what);
}

#[test]
fn dgrad_wgmma_is_the_gradient_and_adds_to_it() {
    let Some(device) = hopper_or_skip("dgrad_wgmma_is_the_gradient_and_adds_to_it") else { return };
    assert_chosen(&device, Pass::Dgrad);
    for algorithm in algorithms(Pass::Dgrad) {
        for case in CASES.iter().filter(|case| is_supported(case)) {
            check(&device, algorithm, case, false);
        }
        for case in [0, 4, 5, 6, 11, 13, 14].map(|i| CASES[i]) {
            check(&device, algorithm, &case, true);
        }
    }
}

#[test]
fn dgrad_wgmma_leaves_dilation_with_a_stride_to_others() {
    let Some(device) = hopper_or_skip("dgrad_wgmma_leaves_dilation_with_a_stride_to_others") else { return };
    for Case { shape, bucket, .. } in CASES.iter().filter(|case| !is_supported(case)) {
        let chosen = algorithm::<half::bf16>(&device, shape, Pass::Dgrad, *bucket);
        assert!(!matches!(chosen.tile, Tile::Wgmma { .. }), "{chosen:?} for {shape:?}");
    }
}
