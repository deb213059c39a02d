//! `kernels/avg_pool2d.cu` against its definition in f64.

use crate::reference;
use crate::support::{Vector, device_or_skip, normal};
use crate::tensors::{Float, IMAGES, Images, Tolerance, assert_close, rounded, wide};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::pool2d::{AdaptiveAvgShape, cuda};

const fn shape(c: usize, (h, w): (usize, usize), (out_h, out_w): (usize, usize)) -> AdaptiveAvgShape {
    AdaptiveAvgShape { c, h, w, out_h, out_w }
}

/// Global pools, bins that divide the image and that overlap, more bins than pixels; channels in runs and not.
const SHAPES: [AdaptiveAvgShape; 9] = [
    shape(1, (1, 1), (1, 1)),
    shape(64, (4, 4), (1, 1)),
    shape(5, (7, 3), (1, 1)),
    shape(260, (3, 5), (1, 1)),
    shape(8, (6, 9), (3, 3)),
    shape(12, (7, 7), (7, 7)),
    shape(4, (5, 8), (3, 7)),
    shape(3, (2, 3), (7, 7)),
    shape(4, (45, 40), (2, 1)),
];

fn backward(shape: &AdaptiveAvgShape, n: usize, dy: &[f64]) -> Vec<f64> {
    let AdaptiveAvgShape { c, h, w, out_h, out_w } = *shape;
    let mut dx = vec![0.0; n * shape.x_len()];
    for image in 0..n {
        for p in 0..out_h {
            for q in 0..out_w {
                let rows = p * h / out_h..((p + 1) * h).div_ceil(out_h);
                let columns = q * w / out_w..((q + 1) * w).div_ceil(out_w);
                let num = (rows.len() * columns.len()) as f64;
                for row in rows {
                    for column in columns.clone() {
                        for k in 0..c {
                            dx[((image * h + row) * w + column) * c + k] +=
                                dy[((image * out_h + p) * out_w + q) * c + k] / num;
                        }
                    }
                }
            }
        }
    }
    dx
}

fn compare<E: Float>(device: &CudaDevice, shape: &AdaptiveAvgShape, images: Images, aligned: bool) {
    let n = images.n;
    let x = rounded::<E>(&normal(n * shape.x_len(), 1));
    let dy = rounded::<E>(&normal(n * shape.y_len(), 2));
    let count = images.count(device);
    let mut y = images.output::<E>(device, shape.y_len(), aligned);
    let mut dx = images.output::<E>(device, shape.x_len(), aligned);
    let input = |values: &[E], per_image| match n {
        0 => images.output(device, per_image, aligned),
        _ => images.input(device, values, aligned),
    };
    let (d_x, d_dy) = (input(&x, shape.x_len()), input(&dy, shape.y_len()));
    cuda::adaptive_avg_forward(device, shape, images.batch(&count), d_x.view(), y.view_mut()).unwrap();
    cuda::adaptive_avg_backward(device, shape, images.batch(&count), d_dy.view(), dx.view_mut()).unwrap();
    let what = format!("{shape:?}, {images:?}, aligned: {aligned}, bf16: {}", E::IS_BF16);
    // Means of up to a thousand numbers of size 1, summed in f32.
    let tolerance = Tolerance { atol: 2e-6, rtol: E::ROUNDING + 1e-6 };
    let found = images.read(&y, shape.y_len());
    assert_close(&found, &reference::adaptive_avg(shape, n, &wide(&x)), tolerance, &what);
    let found = images.read(&dx, shape.x_len());
    assert_close(&found, &backward(shape, n, &wide(&dy)), tolerance, &format!("dx of {what}"));
}

#[test]
fn average_pools_follow_the_definition() {
    let Some(device) = device_or_skip("average_pools_follow_the_definition") else { return };
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
fn average_pools_refuse_what_they_cannot_do() {
    let Some(device) = device_or_skip("average_pools_refuse_what_they_cannot_do") else { return };
    let images = Images { bucket: 2, n: 1 };
    let (count, x) = (images.count(&device), Vector::new(&device, &[1.0f32; 8]));
    let mut y = Vector::new(&device, &[1.0f32; 2]);
    let mut forward = |shape| {
        let batch = images.batch(&count);
        cuda::adaptive_avg_forward(&device, &shape, batch, x.view(), y.view_mut()).unwrap_err().to_string()
    };
    let error = forward(shape(1, (2, 2), (0, 1)));
    assert_eq!(error, "kernel avg_pool2d_forward_f32: an extent is 0; it must be at least 1");
    let error = forward(shape(1, (2, 3), (1, 1)));
    assert_eq!(error, "kernel avg_pool2d_forward_f32: x has 8 elements, expected 12");
    let error = forward(shape(1, (2, 2), (1, 2)));
    assert_eq!(error, "kernel avg_pool2d_forward_f32: y has 2 elements, expected 4");
}
