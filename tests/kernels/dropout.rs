//! `kernels/dropout.cu` against [`scadles::ops::dropout`], bit for bit.

use crate::support::{Vector, device_or_skip, normal};
use crate::tensors::{Float, IMAGES, Images, assert_bits, rounded};
use half::bf16;
use rand_core::RngCore;
use scadles::device::cuda::CudaDevice;
use scadles::ops::dropout::{self, cuda, cuda::Draw};
use scadles::rng::{Philox, Stream};

/// Around packs of 4 and of 8 and blocks of 256; images that begin within a pack.
const LENGTHS: [usize; 9] = [1, 2, 7, 8, 31, 512, 513, 2047, 4100];

const SEED: u64 = 0x1234_5678_9abc_def0;

fn compare<E: Float>(
    device: &CudaDevice,
    images: Images,
    per_image: usize,
    (p, index, layers, ordinal): (f32, u64, u64, u64),
    aligned: bool,
) {
    let x = rounded::<E>(&normal(images.n * per_image, 1));
    let draw_index = device.upload(&[index]).unwrap();
    let draw = Draw { seed: SEED, index: draw_index.view(), layers, ordinal };
    let d_x = match images.n {
        0 => images.output(device, per_image, aligned),
        _ => images.input(device, &x, aligned),
    };
    let (count, mut y) = (images.count(device), images.output::<E>(device, per_image, aligned));
    cuda::forward(device, p, draw, per_image, images.batch(&count), d_x.view(), y.view_mut()).unwrap();
    let wide: Vec<f32> = x.iter().map(|x| x.f32()).collect();
    let mut expected = vec![0.0; x.len()];
    dropout::forward(p, SEED, index.wrapping_mul(layers).wrapping_add(ordinal), &wide, &mut expected);
    let what = format!("{images:?}, {per_image} elements, p {p}, draw {index} * {layers} + {ordinal}");
    assert_bits(&images.read(&y, per_image), &rounded::<E>(&expected), &what);

    let mut dx = images.output::<E>(device, per_image, aligned);
    cuda::backward(device, p, draw, per_image, images.batch(&count), d_x.view(), dx.view_mut()).unwrap();
    assert_bits(&images.read(&dx, per_image), &rounded::<E>(&expected), &format!("backward, {what}"));
}

#[test]
fn masks_are_those_of_the_cpu() {
    let Some(device) = device_or_skip("masks_are_those_of_the_cpu") else { return };
    for per_image in LENGTHS {
        for images in IMAGES {
            for aligned in [true, false] {
                compare::<f32>(&device, images, per_image, (0.5, 3, 2, 1), aligned);
                compare::<bf16>(&device, images, per_image, (0.5, 3, 2, 1), aligned);
            }
        }
    }
    for draw in [(0.0, 0, 1, 0), (1.0, 7, 1, 0), (0.1, u64::MAX, 3, 2), (0.9, 1 << 40, 2, u64::MAX)] {
        compare::<f32>(&device, IMAGES[1], 513, draw, true);
        compare::<bf16>(&device, IMAGES[1], 513, draw, true);
    }
    // An element whose number is p itself is kept.
    let word = Philox::new(SEED, Stream::Dropout, 3).next_u32();
    let p = (word >> 8) as f32 / 16_777_216.0;
    compare::<f32>(&device, IMAGES[1], 513, (p, 3, 1, 0), true);
}

#[test]
fn dropout_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("dropout_refuses_what_it_cannot_do") else { return };
    let images = Images { bucket: 2, n: 2 };
    let (count, x) = (images.count(&device), Vector::new(&device, &[1.0f32; 6]));
    let (mut y, index) = (Vector::new(&device, &[2.0f32; 6]), device.upload(&[1u64]).unwrap());
    let draw = Draw { seed: 1, index: index.view(), layers: 1, ordinal: 0 };
    for p in [-0.1, 1.1, f32::NAN] {
        let batch = images.batch(&count);
        let error = cuda::forward(&device, p, draw, 3, batch, x.view(), y.view_mut()).unwrap_err();
        assert!(error.to_string().ends_with("it must be in [0, 1]"), "{error}");
    }
    let batch = images.batch(&count);
    let error = cuda::forward(&device, 0.5, draw, 4, batch, x.view(), y.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "kernel dropout_f32: the input has 6 elements, expected 8");
    assert_eq!(y.read(), [2.0; 6]);
}
