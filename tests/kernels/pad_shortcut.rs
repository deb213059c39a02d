//! `kernels/pad_shortcut.cu` against its definition.

use crate::reference;
use crate::support::{Vector, device_or_skip, normal};
use crate::tensors::{Float, IMAGES, Images, Tolerance, assert_close, rounded, wide};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::pad_shortcut::{PadShortcutShape, cuda};

const fn shape((c, k): (usize, usize), (h, w): (usize, usize), stride: usize) -> PadShortcutShape {
    PadShortcutShape { c, h, w, k, stride }
}

/// The networks' shortcuts and others: more channels or as many, in runs and not, strides that leave a rest.
const SHAPES: [PadShortcutShape; 9] = [
    shape((1, 1), (1, 1), 1),
    shape((16, 32), (8, 6), 2),
    shape((32, 64), (4, 4), 2),
    shape((4, 8), (5, 7), 2),
    shape((3, 8), (5, 7), 3),
    shape((8, 8), (3, 2), 1),
    shape((8, 19), (2, 3), 2),
    shape((1, 300), (3, 3), 2),
    shape((4, 12), (40, 31), 2),
];

fn compare<E: Float>(device: &CudaDevice, shape: &PadShortcutShape, images: Images, aligned: bool) {
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
    cuda::forward(device, shape, images.batch(&count), d_x.view(), y.view_mut()).unwrap();
    cuda::backward(device, shape, images.batch(&count), d_dy.view(), dx.view_mut()).unwrap();
    let what = format!("{shape:?}, {images:?}, aligned: {aligned}, bf16: {}", E::IS_BF16);
    let exact = Tolerance { atol: 0.0, rtol: 0.0 };
    let found = images.read(&y, shape.y_len());
    assert_close(&found, &reference::pad_shortcut(shape, n, &wide(&x)), exact, &what);
    // The map's transpose: where the forward pass puts an element's number, the gradient comes from.
    let numbers: Vec<f64> = (1..=n * shape.x_len()).map(|i| i as f64).collect();
    let mut expected = vec![0.0; n * shape.x_len()];
    for (number, dy) in reference::pad_shortcut(shape, n, &numbers).iter().zip(wide(&dy)) {
        if *number > 0.0 {
            expected[*number as usize - 1] += dy;
        }
    }
    let found = images.read(&dx, shape.x_len());
    assert_close(&found, &expected, exact, &format!("dx of {what}"));
}

#[test]
fn padded_shortcuts_copy() {
    let Some(device) = device_or_skip("padded_shortcuts_copy") else { return };
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
fn padded_shortcuts_refuse_what_they_cannot_do() {
    let Some(device) = device_or_skip("padded_shortcuts_refuse_what_they_cannot_do") else { return };
    let images = Images { bucket: 1, n: 1 };
    let (count, x) = (images.count(&device), Vector::new(&device, &[1.0f32; 8]));
    let mut y = Vector::new(&device, &[1.0f32; 4]);
    let mut forward = |shape| {
        let batch = images.batch(&count);
        cuda::forward(&device, &shape, batch, x.view(), y.view_mut()).unwrap_err().to_string()
    };
    assert!(forward(shape((2, 1), (2, 2), 2)).contains("output channels is 1; it must be"));
    assert!(forward(shape((2, 4), (2, 2), 0)).contains("stride is 0; it must be"));
    let error = forward(shape((2, 4), (2, 3), 2));
    assert_eq!(error, "kernel pad_shortcut_forward_f32: x has 8 elements, expected 12");
    let error = forward(shape((2, 4), (2, 2), 1));
    assert_eq!(error, "kernel pad_shortcut_forward_f32: y has 4 elements, expected 16");
}
