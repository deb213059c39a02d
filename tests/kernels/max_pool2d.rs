//! `kernels/max_pool2d.cu` against its definition in f64 and, for ties and NaN, against the CPU bit for bit.

use crate::reference;
use crate::support::{Vector, device_or_skip, normal};
use crate::tensors::{Float, IMAGES, Images, Tolerance, assert_bits, assert_close, rounded, wide};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::pool2d::{self, Pool2dShape, cuda};

const fn shape(
    c: usize,
    (h, w): (usize, usize),
    (window, stride, pad): (usize, usize, usize),
) -> Pool2dShape {
    Pool2dShape { c, h, w, window, stride, pad }
}

/// The networks' windows and others, on images that are no squares; channels that fall into runs and not; a tile and more.
const SHAPES: [Pool2dShape; 11] = [
    shape(1, (1, 1), (1, 1, 0)),
    shape(8, (6, 8), (2, 2, 0)),
    shape(16, (7, 5), (3, 2, 1)),
    shape(3, (9, 4), (3, 2, 1)),
    shape(5, (5, 7), (2, 1, 1)),
    shape(4, (7, 11), (5, 3, 2)),
    shape(4, (3, 3), (3, 1, 1)),
    shape(7, (16, 15), (15, 1, 7)),
    shape(12, (4, 9), (2, 3, 0)),
    shape(300, (5, 4), (3, 2, 1)),
    shape(4, (40, 41), (2, 2, 0)),
];

/// What both passes of a batch give: y, argmax, dx.
fn run<E: Float>(
    device: &CudaDevice,
    shape: &Pool2dShape,
    images: Images,
    (x, dy): (&[E], &[E]),
    aligned: bool,
) -> (Vec<E>, Vec<u8>, Vec<E>) {
    let count = images.count(device);
    let mut y = images.output::<E>(device, shape.y_len(), aligned);
    let mut argmax = images.output::<u8>(device, shape.y_len(), aligned);
    let mut dx = images.output::<E>(device, shape.x_len(), aligned);
    let input = |values: &[E], per_image| match images.n {
        0 => images.output(device, per_image, aligned),
        _ => images.input(device, values, aligned),
    };
    let batch = images.batch(&count);
    let (x, dy) = (input(x, shape.x_len()), input(dy, shape.y_len()));
    cuda::max_forward(device, shape, batch, x.view(), y.view_mut(), argmax.view_mut()).unwrap();
    cuda::max_backward(device, shape, batch, dy.view(), argmax.view(), dx.view_mut()).unwrap();
    (images.read(&y, shape.y_len()), images.read(&argmax, shape.y_len()), images.read(&dx, shape.x_len()))
}

fn compare<E: Float>(device: &CudaDevice, shape: &Pool2dShape, images: Images, aligned: bool) {
    let n = images.n;
    // Whole numbers, so that there are ties.
    let x = normal(n * shape.x_len(), 1).iter().map(|value| (3.0 * value).round()).collect::<Vec<_>>();
    let (x, dy) = (rounded::<E>(&x), rounded::<E>(&normal(n * shape.y_len(), 2)));
    let (y, argmax, dx) = run(device, shape, images, (&x, &dy), aligned);
    let what = format!("{shape:?}, {images:?}, aligned: {aligned}, bf16: {}", E::IS_BF16);
    let (expected, positions) = reference::max_pool(shape, n, &wide(&x));
    assert_close(&y, &expected, Tolerance { atol: 0.0, rtol: 0.0 }, &what);
    assert_eq!(argmax, positions, "argmax of {what}");
    let expected = reference::max_pool_backward(shape, n, &wide(&dy), &positions);
    // A pixel wins up to 225 windows.
    assert_close(&dx, &expected, Tolerance { atol: 1e-5, rtol: E::ROUNDING }, &format!("dx of {what}"));
}

#[test]
fn max_pools_follow_the_definition() {
    let Some(device) = device_or_skip("max_pools_follow_the_definition") else { return };
    for shape in &SHAPES {
        for images in IMAGES {
            compare::<f32>(&device, shape, images, true);
            compare::<bf16>(&device, shape, images, true);
        }
        compare::<f32>(&device, shape, IMAGES[1], false);
        compare::<bf16>(&device, shape, IMAGES[1], false);
    }
}

#[test]
fn ties_and_nan_are_the_cpus() {
    let Some(device) = device_or_skip("ties_and_nan_are_the_cpus") else { return };
    let images = Images { bucket: 3, n: 2 };
    for shape in [SHAPES[1], SHAPES[2], SHAPES[4], SHAPES[5]] {
        let special = [f32::NAN, f32::NEG_INFINITY, 0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY];
        let pick = |value: &f32| special[(value.abs() * 1e4) as usize % special.len()];
        let mut x: Vec<f32> = normal(images.n * shape.x_len(), 3).iter().map(pick).collect();
        x[..shape.x_len() / 2].fill(f32::NEG_INFINITY);
        let dy = normal(images.n * shape.y_len(), 4);
        let (mut y, mut argmax) = (vec![0.0; dy.len()], vec![0; dy.len()]);
        let mut dx = vec![0.0; x.len()];
        pool2d::max_forward(&shape, images.n, &x, &mut y, &mut argmax);
        pool2d::max_backward(&shape, images.n, &dy, &argmax, &mut dx);
        let found = run::<f32>(&device, &shape, images, (&x, &dy), true);
        assert_bits(&found.0, &y, &format!("{shape:?}"));
        assert_eq!(found.1, argmax, "{shape:?}");
        assert_bits(&found.2, &dx, &format!("{shape:?}"));
    }
}

#[test]
fn max_pools_refuse_what_they_cannot_do() {
    let Some(device) = device_or_skip("max_pools_refuse_what_they_cannot_do") else { return };
    let images = Images { bucket: 1, n: 1 };
    let (count, x) = (images.count(&device), Vector::new(&device, &[1.0f32; 16]));
    let (mut y, mut argmax) = (Vector::new(&device, &[1.0f32; 4]), Vector::new(&device, &[0u8; 4]));
    let mut forward = |shape| {
        let error = cuda::max_forward(
            &device,
            &shape,
            images.batch(&count),
            x.view(),
            y.view_mut(),
            argmax.view_mut(),
        );
        error.unwrap_err().to_string()
    };
    let good = shape(1, (4, 4), (2, 2, 0));
    for shape in [
        Pool2dShape { window: 0, ..good },
        Pool2dShape { window: 16, ..good },
        Pool2dShape { window: 5, ..good },
        Pool2dShape { pad: 2, ..good },
        Pool2dShape { stride: 0, ..good },
    ] {
        assert!(forward(shape).starts_with("kernel max_pool2d_forward_f32: the window is"), "{shape:?}");
    }
    let error = forward(Pool2dShape { w: 5, ..good });
    assert_eq!(error, "kernel max_pool2d_forward_f32: x has 16 elements, expected 20");
    let error = forward(Pool2dShape { stride: 1, ..good });
    assert_eq!(error, "kernel max_pool2d_forward_f32: y has 4 elements, expected 9");
}
