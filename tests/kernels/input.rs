//! `kernels/input.cu` against [`scadles::ops::input::write_image`], bit for bit, and its definition.

use crate::support::{Vector, device_or_skip};
use crate::tensors::{Float, IMAGES, Images, Tolerance, assert_bits, assert_close, rounded};
use half::bf16;
use rand_core::RngCore;
use scadles::device::cuda::CudaDevice;
use scadles::ops::input::{self, Normalizer, Placement, cuda};
use scadles::rng::{Philox, Stream};
use scadles::shape::ImageShape;

const MEAN: [f32; 4] = [0.4914, 0.48216, 0.44653, 0.25];
const STD: [f32; 4] = [0.24703, 0.24349, 0.26159, 0.5];

/// The networks' images, others that are no squares, and some whose elements do not fall into packs; more than a block.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (8, 8, 3),
    (32, 32, 3),
    (5, 7, 3),
    (6, 4, 1),
    (3, 9, 2),
    (4, 4, 4),
    (61, 32, 1),
    (16, 150, 3),
];

/// Nothing, crops over each side, a mirrored one; and some that leave nothing of the image.
const PLACEMENTS: [[i32; 3]; 8] = [
    [0, 0, 0],
    [-2, 3, 0],
    [1, -4, 1],
    [0, 0, 1],
    [4, 1, 1],
    [-1000, 0, 0],
    [0, i32::MAX, 1],
    [i32::MIN, i32::MIN, 0],
];

fn compare<E: Float>(device: &CudaDevice, images: Images, (h, w, c): (usize, usize, usize), aligned: bool) {
    let image = ImageShape { h, w, c };
    let normalizer = Normalizer::new(&MEAN[..c], &STD[..c]);
    let mut pixels = vec![0u8; images.bucket * image.numel()];
    Philox::new(3, Stream::Images, 0).fill_bytes(&mut pixels);
    for first in 0..2 {
        let placement = |i: usize| PLACEMENTS[(4 * first + i) % PLACEMENTS.len()];
        let mut placements: Vec<i32> = (0..images.n).flat_map(placement).collect();
        placements.resize(3 * images.bucket, 12_345);
        let (count, d_pixels) = (images.count(device), Vector::new(device, &pixels));
        let d_placements = Vector::new(device, &placements);
        let mut x = images.output::<E>(device, image.numel(), aligned);
        cuda::write_batch(
            device,
            image,
            images.batch(&count),
            d_pixels.view(),
            d_placements.view(),
            &normalizer,
            x.view_mut(),
        )
        .unwrap();
        let (mut expected, mut defined) = (Vec::new(), Vec::new());
        for i in 0..images.n {
            let [offset_h, offset_w, flip] = placement(i);
            let pixels = &pixels[i * image.numel()..][..image.numel()];
            let place =
                Placement { offset_h: offset_h as isize, offset_w: offset_w as isize, flip: flip != 0 };
            let mut out = vec![0.0; image.numel()];
            input::write_image(image, pixels, &normalizer, place, &mut out);
            expected.extend(out);
            for row in 0..h as i64 {
                for column in 0..w as i64 {
                    let (row, mut column) = (row + i64::from(offset_h), column);
                    if flip != 0 {
                        column = w as i64 - 1 - column;
                    }
                    column += i64::from(offset_w);
                    let inside = (0..h as i64).contains(&row) && (0..w as i64).contains(&column);
                    for k in 0..c {
                        let at = || (row as usize * w + column as usize) * c + k;
                        let pixel = if inside { f64::from(pixels[at()]) } else { 0.0 };
                        defined.push((pixel / 255.0 - f64::from(MEAN[k])) / f64::from(STD[k]));
                    }
                }
            }
        }
        let what = format!("{images:?}, {image:?}, aligned: {aligned}, bf16: {}", E::IS_BF16);
        let found = images.read(&x, image.numel());
        assert_bits(&found, &rounded::<E>(&expected), &what);
        assert_close(&found, &defined, Tolerance { atol: 1e-6, rtol: E::ROUNDING + 1e-6 }, &what);
    }
}

#[test]
fn images_have_the_bits_of_the_cpu() {
    let Some(device) = device_or_skip("images_have_the_bits_of_the_cpu") else { return };
    for shape in SHAPES {
        for images in IMAGES {
            compare::<f32>(&device, images, shape, true);
            compare::<bf16>(&device, images, shape, true);
        }
        compare::<f32>(&device, IMAGES[1], shape, false);
        compare::<bf16>(&device, IMAGES[1], shape, false);
    }
}

#[test]
fn more_images_than_a_grid_has_blocks_along_y() {
    let Some(device) = device_or_skip("more_images_than_a_grid_has_blocks_along_y") else { return };
    compare::<f32>(&device, Images { bucket: 65_537, n: 65_537 }, (1, 1, 1), true);
}

#[test]
fn input_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("input_refuses_what_it_cannot_do") else { return };
    let images = Images { bucket: 1, n: 1 };
    let (count, pixels) = (images.count(&device), Vector::new(&device, &[7u8; 12]));
    let (placements, mut x) = (Vector::new(&device, &[0i32; 3]), Vector::new(&device, &[2.0f32; 12]));
    let mut write = |image, channels: usize| {
        let normalizer = Normalizer::new(&MEAN[..channels], &STD[..channels]);
        let (batch, pixels, placements) = (images.batch(&count), pixels.view(), placements.view());
        cuda::write_batch(&device, image, batch, pixels, placements, &normalizer, x.view_mut())
            .unwrap_err()
            .to_string()
    };
    let error = write(ImageShape { h: 2, w: 2, c: 3 }, 1);
    assert_eq!(error, "kernel input_f32: the normalizer has 1 elements, expected 3");
    let error = write(ImageShape { h: 2, w: 3, c: 3 }, 3);
    assert_eq!(error, "kernel input_f32: pixels has 12 elements, expected 18");
}
