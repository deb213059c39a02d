//! `kernels/relu.cu` against its definition, bit for bit.

use crate::support::{Vector, device_or_skip, edges, normal};
use crate::tensors::{Float, IMAGES, Images, assert_bits, rounded};
use half::bf16;
use scadles::device::cuda::{Batch, CudaDevice};
use scadles::ops::relu::cuda;

/// Around packs and blocks; images that begin within a pack; more than the emulated device's grid.
const LENGTHS: [usize; 8] = [1, 3, 8, 31, 1024, 2049, 4100, 40_009];

fn compare<E: Float>(
    device: &CudaDevice,
    images: Images,
    per_image: usize,
    (y, dy): (&[f32], &[f32]),
    aligned: bool,
) {
    let (y, dy) = (rounded::<E>(y), rounded::<E>(dy));
    let input = |values: &[E]| match images.n {
        0 => Vector::new(device, &vec![E::of(f32::NAN); images.bucket * per_image]),
        _ => images.input(device, values, aligned),
    };
    let (count, d_y, mut d_dy) = (images.count(device), input(&y), input(&dy));
    cuda::backward_inplace(device, per_image, images.batch(&count), d_y.view(), d_dy.view_mut()).unwrap();
    let expected: Vec<E> =
        y.iter().zip(&dy).map(|(y, dy)| if y.f32() <= 0.0 { E::of(0.0) } else { *dy }).collect();
    let what = format!("{images:?}, {per_image} elements, aligned: {aligned}, bf16: {}", E::IS_BF16);
    assert_bits(&images.read_changed(&d_dy, per_image), &expected, &what);
}

#[test]
fn the_gradient_stops_where_the_output_is_not_positive() {
    let Some(device) = device_or_skip("the_gradient_stops_where_the_output_is_not_positive") else { return };
    for per_image in LENGTHS {
        for images in IMAGES {
            let [mut y, dy] = [1, 2].map(|key| normal(images.n * per_image, key));
            y.iter_mut().step_by(3).for_each(|y| *y = 0.0);
            for aligned in [true, false] {
                compare::<f32>(&device, images, per_image, (&y, &dy), aligned);
                compare::<bf16>(&device, images, per_image, (&y, &dy), aligned);
            }
        }
    }
    let (y, dy) = (edges(0), edges(1));
    let images = Images { bucket: 1, n: 1 };
    compare::<f32>(&device, images, y.len(), (&y, &dy), true);
    compare::<bf16>(&device, images, y.len(), (&y, &dy), true);
}

#[test]
fn a_count_outside_the_bucket_reaches_no_further() {
    let Some(device) = device_or_skip("a_count_outside_the_bucket_reaches_no_further") else { return };
    let y = Vector::new(&device, &[-1.0f32; 6]);
    for (count, expected) in [(i32::MAX, 0.0), (3, 0.0), (-1, 5.0), (i32::MIN, 5.0)] {
        let (count, mut dy) = (Vector::new(&device, &[count]), Vector::new(&device, &[5.0f32; 6]));
        let batch = Batch { bucket: 2, count: count.view() };
        cuda::backward_inplace(&device, 3, batch, y.view(), dy.view_mut()).unwrap();
        assert_eq!(dy.read(), [expected; 6]);
    }
}

#[test]
fn relu_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("relu_refuses_what_it_cannot_do") else { return };
    let images = Images { bucket: 2, n: 2 };
    let (count, y) = (images.count(&device), Vector::new(&device, &[1.0f32; 3]));
    let mut dy = Vector::new(&device, &[1.0f32; 4]);
    let batch = images.batch(&count);
    let error = cuda::backward_inplace(&device, 2, batch, y.view(), dy.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "kernel relu_backward_f32: y has 3 elements, expected 4");
}
