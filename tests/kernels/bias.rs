//! `kernels/bias.cu` against its definition in f64.

use crate::support::{Vector, assert_same_bits, device_or_skip, normal};
use crate::tensors::{Float, IMAGES, Images, Tolerance, assert_bits, assert_close, rounded, wide};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::linear::cuda;

/// Pixels and channels: linear layers and convolutions, channels in runs and not, one and several tiles and blocks.
const SHAPES: [(usize, usize); 10] =
    [(1, 1), (1, 10), (1, 1000), (49, 64), (9, 7), (300, 8), (260, 5), (33, 256), (31, 260), (2, 71)];

fn compare<E: Float>(
    device: &CudaDevice,
    images: Images,
    (pixels, k): (usize, usize),
    relu: bool,
    aligned: bool,
) {
    let per_image = pixels * k;
    let mut y = rounded::<E>(&normal(images.n * per_image, 1));
    y.iter_mut().step_by(5).for_each(|y| *y = E::of(0.0));
    let dy = rounded::<E>(&normal(images.n * per_image, 2));
    let run = || {
        let input = |values: &[E]| match images.n {
            0 => Vector::new(device, &vec![E::of(f32::NAN); images.bucket * per_image]),
            _ => images.input(device, values, aligned),
        };
        let (count, d_y, mut d_dy) = (images.count(device), input(&y), input(&dy));
        let mut dbias = Vector::new(device, &vec![f32::NAN; k]);
        let scratch_len = cuda::bias_scratch_len(pixels, k, images.bucket);
        let mut scratch = Vector::new(device, &vec![f32::NAN; scratch_len]);
        let (batch, relu_y) = (images.batch(&count), relu.then(|| d_y.view()));
        let (d_dbias, scratch_view) = (dbias.view_mut(), scratch.view_mut());
        cuda::bias_backward(device, pixels, k, batch, relu_y, d_dy.view_mut(), d_dbias, scratch_view)
            .unwrap();
        scratch.read();
        (images.read_changed(&d_dy, per_image), dbias.read())
    };
    let (found, dbias) = run();
    let masked: Vec<E> =
        dy.iter().zip(&y).map(|(dy, y)| if relu && y.f32() <= 0.0 { E::of(0.0) } else { *dy }).collect();
    let what = format!("{images:?}, {pixels} pixels, {k} channels, {relu}, {aligned}, bf16: {}", E::IS_BF16);
    assert_bits(&found, &masked, &what);
    let mut expected = vec![0.0; k];
    wide(&masked).iter().enumerate().for_each(|(i, dy)| expected[i % k] += dy);
    // f32 sums of up to a thousand terms of size 1.
    assert_close(&dbias, &expected, Tolerance { atol: 2e-5, rtol: 1e-5 }, &what);
    assert_same_bits(&run().1, &dbias, "once more");
}

#[test]
fn bias_gradients_are_sums_of_columns() {
    let Some(device) = device_or_skip("bias_gradients_are_sums_of_columns") else { return };
    for shape in SHAPES {
        for relu in [false, true] {
            for images in IMAGES {
                compare::<f32>(&device, images, shape, relu, true);
                compare::<bf16>(&device, images, shape, relu, true);
            }
            compare::<f32>(&device, IMAGES[1], shape, relu, false);
            compare::<bf16>(&device, IMAGES[1], shape, relu, false);
        }
    }
}

#[test]
fn nan_passes_and_shows() {
    let Some(device) = device_or_skip("nan_passes_and_shows") else { return };
    let images = Images { bucket: 1, n: 1 };
    let count = images.count(&device);
    let y = Vector::new(&device, &[f32::NAN, 1.0, -1.0, 1.0]);
    let mut dy = Vector::new(&device, &[5.0, f32::NAN, f32::NAN, 2.0]);
    let mut dbias = Vector::new(&device, &[0.0; 2]);
    let mut scratch = Vector::new(&device, &vec![0.0; cuda::bias_scratch_len(2, 2, 1)]);
    let (batch, relu_y) = (images.batch(&count), Some(y.view()));
    let (d_dy, d_dbias) = (dy.view_mut(), dbias.view_mut());
    cuda::bias_backward(&device, 2, 2, batch, relu_y, d_dy, d_dbias, scratch.view_mut()).unwrap();
    assert_same_bits(&dy.read(), &[5.0, f32::NAN, 0.0, 2.0], "dy");
    assert_same_bits(&dbias.read(), &[5.0, f32::NAN], "dbias");
}

#[test]
fn bias_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("bias_refuses_what_it_cannot_do") else { return };
    let images = Images { bucket: 2, n: 2 };
    let (count, mut dy) = (images.count(&device), Vector::new(&device, &[1.0f32; 8]));
    let (mut dbias, mut scratch) = (Vector::new(&device, &[1.0f32; 2]), Vector::new(&device, &[1.0f32; 1]));
    let mut run = |k| {
        let (batch, dbias, scratch) = (images.batch(&count), dbias.view_mut(), scratch.view_mut());
        cuda::bias_backward(&device, 2, k, batch, None, dy.view_mut(), dbias, scratch)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(run(1), "kernel bias_sums_f32: dy has 8 elements, expected 4");
    assert_eq!(run(2), "kernel bias_sums_f32: scratch has 1 elements, expected 2");
}
