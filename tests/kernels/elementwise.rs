//! `kernels/elementwise.cu` against its definition, bit for bit.

use crate::support::{Mark, Vector, device_or_skip, normal};
use crate::tensors::{Float, IMAGES, Images, assert_bits, rounded};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::elementwise::cuda;

/// Around packs and blocks; images that begin within a pack; more than the emulated device's grid.
const LENGTHS: [usize; 8] = [1, 3, 8, 31, 1024, 2049, 4100, 40_009];

fn compare<E: Float>(device: &CudaDevice, images: Images, per_image: usize, aligned: bool) {
    let [a, b] = [1, 2].map(|key| rounded::<E>(&normal(images.n * per_image, key)));
    let input = |values: &[E]| match images.n {
        0 => Vector::new(device, &vec![E::of(f32::NAN); images.bucket * per_image]),
        _ => images.input(device, values, aligned),
    };
    let (count, mut sum, term) = (images.count(device), input(&a), input(&b));
    cuda::add(device, per_image, images.batch(&count), sum.view_mut(), term.view()).unwrap();
    let expected: Vec<E> = a.iter().zip(&b).map(|(a, b)| E::of(a.f32() + b.f32())).collect();
    let what = format!("{images:?}, {per_image} elements, aligned: {aligned}, bf16: {}", E::IS_BF16);
    assert_bits(&images.read_changed(&sum, per_image), &expected, &what);
}

#[test]
fn sums_are_rounded_once() {
    let Some(device) = device_or_skip("sums_are_rounded_once") else { return };
    for per_image in LENGTHS {
        for images in IMAGES {
            for aligned in [true, false] {
                compare::<f32>(&device, images, per_image, aligned);
                compare::<bf16>(&device, images, per_image, aligned);
            }
        }
    }
}

/// Packs segments of these lengths, each at the next multiple of `step` of the target, taken from the source in reverse.
fn compare_pack<E: Float>(device: &CudaDevice, lengths: &[usize], step: usize) {
    let total: usize = lengths.iter().sum();
    let from = normal(total + 5, 3);
    let target_len: usize = lengths.iter().map(|len| len.next_multiple_of(step)).sum();
    let mut expected = vec![E::MARK; target_len];
    let (mut source, mut target, mut segments) = (total + 3, 0, Vec::new());
    for len in lengths {
        source -= len;
        segments.extend([source as i64, target as i64, *len as i64]);
        expected[target..][..*len].copy_from_slice(&rounded::<E>(&from[source..][..*len]));
        target += len.next_multiple_of(step);
    }
    let (segments, from) = (Vector::new(device, &segments), Vector::new(device, &from));
    let mut to = Vector::aligned(device, &vec![E::MARK; target_len]);
    let longest = lengths.iter().copied().max().unwrap_or(0);
    cuda::pack(device, segments.view(), lengths.len(), longest, from.view(), to.view_mut()).unwrap();
    let what = format!("{} segments, the longest of {longest}, bf16: {}", lengths.len(), E::IS_BF16);
    assert_bits(&to.read(), &expected, &what);
}

#[test]
fn segments_come_to_their_places() {
    let Some(device) = device_or_skip("segments_come_to_their_places") else { return };
    let mixed: Vec<usize> = normal(150, 4).iter().map(|value| (value.abs() * 900.0) as usize).collect();
    let many: Vec<usize> = (0..2600).map(|i| i % 7).collect();
    for lengths in
        [&[][..], &[0], &[1], &[0, 5, 0], &[2047, 2048, 2049], &[100_003, 1, 64, 4097], &mixed, &many]
    {
        compare_pack::<f32>(&device, lengths, 64);
        compare_pack::<bf16>(&device, lengths, 64);
        compare_pack::<bf16>(&device, lengths, 1);
    }
}

#[test]
fn a_segment_beyond_either_vector_is_left_out() {
    let Some(device) = device_or_skip("a_segment_beyond_either_vector_is_left_out") else { return };
    let from = Vector::new(&device, &[1.0, 2.0, 3.0, 4.0]);
    let (low, high) = (i64::MIN, i64::MAX);
    let segments = [
        [0, 0, 2],
        [3, 2, 2],
        [0, 5, 2],
        [-1, 2, 2],
        [0, -1, 2],
        [0, 2, -1],
        [high, 2, 1],
        [0, high, 1],
        [1, 1, high],
        [low, low, low],
        [2, 4, 2],
    ];
    let segments = Vector::new(&device, &segments.concat());
    let mut to = Vector::<f32>::aligned(&device, &[f32::MARK; 6]);
    cuda::pack(&device, segments.view(), 11, 2, from.view(), to.view_mut()).unwrap();
    assert_eq!(to.read(), [1.0, 2.0, f32::MARK, f32::MARK, 3.0, 4.0]);
}

#[test]
fn elementwise_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("elementwise_refuses_what_it_cannot_do") else { return };
    let images = Images { bucket: 2, n: 2 };
    let (count, mut sum) = (images.count(&device), Vector::new(&device, &[1.0f32; 4]));
    let term = Vector::new(&device, &[1.0f32; 3]);
    let error = cuda::add(&device, 2, images.batch(&count), sum.view_mut(), term.view()).unwrap_err();
    assert_eq!(error.to_string(), "kernel elementwise_add_f32: term has 3 elements, expected 4");
    let segments = Vector::new(&device, &[0i64; 5]);
    let error = cuda::pack(&device, segments.view(), 2, 1, term.view(), sum.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "kernel elementwise_pack_f32: segments has 5 elements, expected 6");
    assert_eq!(sum.read(), [1.0; 4]);
}
