//! `kernels/hopper.cu`: what bulk copies leave in shared memory, and products through every kind of descriptor.

use crate::device::{Device, args, device_or_skip};
use crate::numbers::{assert_close, normal_bf16, product};
use cudarc::driver::sys;
use half::bf16;

/// Bytes of a swizzled row; 0 without.
const SWIZZLES: [usize; 4] = [0, 32, 64, 128];

/// A tensor as the driver is told of it, extents innermost first.
struct Tensor<'a> {
    address: u64,
    extents: &'a [u64],
    swizzle: usize,
}

impl Tensor<'_> {
    /// Strides of a contiguous tensor of bf16.
    fn strides(&self) -> Vec<u64> {
        let bytes = self.extents.iter().scan(2, |bytes, extent| {
            *bytes *= extent;
            Some(*bytes)
        });
        bytes.collect()
    }

    fn swizzle(&self) -> sys::CUtensorMapSwizzle {
        use sys::CUtensorMapSwizzle::*;
        let index = SWIZZLES.iter().position(|&bytes| bytes == self.swizzle).unwrap();
        [
            CU_TENSOR_MAP_SWIZZLE_NONE,
            CU_TENSOR_MAP_SWIZZLE_32B,
            CU_TENSOR_MAP_SWIZZLE_64B,
            CU_TENSOR_MAP_SWIZZLE_128B,
        ][index]
    }

    fn tiled(&self, taken: &[u32], steps: &[u32]) -> Result<sys::CUtensorMap, sys::CUresult> {
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have the rank's lengths.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                self.extents.len() as u32,
                self.address as *mut _,
                self.extents.as_ptr(),
                self.strides().as_ptr(),
                taken.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                self.swizzle(),
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        status.result().map(|()| map).map_err(|error| error.0)
    }

    fn im2col(
        &self,
        [lower, upper]: [[i32; 2]; 2],
        [channels, pixels]: [u32; 2],
        steps: [u32; 2],
    ) -> Result<sys::CUtensorMap, sys::CUresult> {
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: as above.
        let status = unsafe {
            sys::cuTensorMapEncodeIm2col(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                self.extents.len() as u32,
                self.address as *mut _,
                self.extents.as_ptr(),
                self.strides().as_ptr(),
                lower.as_ptr(),
                upper.as_ptr(),
                channels,
                pixels,
                [1, steps[0], steps[1], 1].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                self.swizzle(),
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        status.result().map(|()| map).map_err(|error| error.0)
    }
}

/// Where byte `at` of memory that begins at a multiple of 1024 lies with a swizzle: in each group of rows that repeats,
/// 16-byte piece p of row r is at piece p ^ r; rows here are of 128 bytes, whatever the swizzle.
fn swizzled(at: usize, swizzle: usize) -> usize {
    let (row, piece) = (at / 128, at % 128 / 16);
    let pieces = (swizzle / 16).max(1);
    128 * row + 16 * (piece ^ (row % pieces)) + at % 16
}

/// Rows of elements as a copy leaves them.
fn laid_out(rows: &[Vec<bf16>], swizzle: usize) -> Vec<u8> {
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|x| x.to_bits().to_le_bytes()).collect();
    let mut out = vec![0; bytes.len()];
    for (at, &byte) in bytes.iter().enumerate() {
        out[swizzled(at, swizzle)] = byte;
    }
    out
}

/// Elements of a row: as many as a swizzled row holds.
fn row_len(swizzle: usize) -> usize {
    if swizzle == 0 { 24 } else { swizzle / 2 }
}

#[test]
fn tiles_are_copied_with_zeros_around_the_tensor() {
    let Some(device) = device_or_skip("tiles_are_copied_with_zeros_around_the_tensor") else { return };
    let extents = [40, 13, 6];
    let x = normal_bf16(40 * 13 * 6, 1);
    let address = device.upload(&x);
    let at = |[i, j, k]: [i64; 3]| {
        let inside = [i, j, k].iter().zip(extents).all(|(&i, extent)| (0..extent).contains(&i));
        if inside { x[(i + 40 * (j + 13 * k)) as usize] } else { bf16::ZERO }
    };
    for swizzle in SWIZZLES {
        let len = row_len(swizzle);
        for (x0, y0, z0) in [(0, 0, 0), (16, 5, 1), (33, 9, 4), (-8, -3, -1), (40, 0, 0), (5, 12, 5)] {
            // Two extents: the rows of all planes follow each other.
            let tensor = Tensor { address, extents: &[40, 13 * 6], swizzle };
            let map = tensor.tiled(&[len as u32, 16], &[1, 1]).unwrap();
            let bytes = 2 * len * 16;
            let out = device.allocate(bytes);
            device.launch("hopper_tile_2d", 1, 64, bytes as u32, args![out, map, bytes as i32, x0, y0]);
            let flat =
                |i: i64, j: i64| if (0..78).contains(&j) { at([i, j % 13, j / 13]) } else { bf16::ZERO };
            let row = |j: i64| (0..len as i64).map(|i| flat(i64::from(x0) + i, i64::from(y0) + j)).collect();
            let rows: Vec<Vec<bf16>> = (0..16).map(row).collect();
            assert_eq!(device.read::<u8>(out, bytes), laid_out(&rows, swizzle), "{swizzle}: {x0} {y0}");

            // Three extents, every second of the middle one.
            let tensor = Tensor { address, extents: &[40, 13, 6], swizzle };
            let map = tensor.tiled(&[len as u32, 7, 2], &[1, 2, 1]).unwrap();
            let bytes = 2 * len * 4 * 2;
            let out = device.allocate(bytes);
            device.launch("hopper_tile_3d", 1, 64, bytes as u32, args![out, map, bytes as i32, x0, y0, z0]);
            let rows: Vec<Vec<bf16>> = (0..8)
                .map(|row| {
                    let (j, k) = (i64::from(y0) + 2 * (row % 4), i64::from(z0) + row / 4);
                    (0..len as i64).map(|i| at([i64::from(x0) + i, j, k])).collect()
                })
                .collect();
            assert_eq!(device.read::<u8>(out, bytes), laid_out(&rows, swizzle), "{swizzle}: {x0} {y0} {z0}");
        }
    }
}

#[test]
fn pixels_are_those_of_a_convolution() {
    let Some(device) = device_or_skip("pixels_are_those_of_a_convolution") else { return };
    // C, W, H, N; filter, padding, stride, dilation.
    for ([c, w, h, n], [r, s, pad, stride, dilation]) in [
        ([64, 8, 8, 3], [3, 3, 1, 1, 1]),
        ([72, 7, 5, 2], [1, 1, 0, 1, 1]),
        ([24, 9, 6, 4], [3, 2, 1, 2, 1]),
        ([64, 11, 13, 2], [3, 3, 2, 1, 2]),
        ([16, 14, 9, 3], [7, 5, 3, 3, 1]),
    ] {
        let x = normal_bf16(c * w * h * n, 2);
        let address = device.upload(&x);
        let outputs =
            |extent: usize, filter: usize| (extent + 2 * pad - dilation * (filter - 1) - 1) / stride + 1;
        let (p, q) = (outputs(h, r), outputs(w, s));
        let starts = |extent: usize, len: usize| {
            [-(pad as i32), (len as i32 - 1) * stride as i32 - pad as i32 - (extent as i32 - 1)]
        };
        let ([lower_w, upper_w], [lower_h, upper_h]) = (starts(w, q), starts(h, p));
        for swizzle in SWIZZLES {
            let (len, pixels) = (row_len(swizzle), 64);
            let extents = [c as u64, w as u64, h as u64, n as u64];
            let tensor = Tensor { address, extents: &extents, swizzle };
            let corners = [[lower_w, lower_h], [upper_w, upper_h]];
            let map = tensor.im2col(corners, [len as u32, pixels], [stride as u32; 2]).unwrap();
            let bytes = 2 * len * pixels as usize;
            for (first, tap_h, tap_w, channel) in
                [(0, 0, 0, 0), (q + 1, r - 1, s - 1, 8), (n * p * q - 5, r / 2, 0, c - 8)]
            {
                let pixel = |row: usize| {
                    let (image, rest) = (row / (p * q), row % (p * q));
                    let h = (rest / q * stride) as i32 - pad as i32;
                    (image as i32, h, (rest % q * stride) as i32 - pad as i32)
                };
                let (image, start_h, start_w) = pixel(first);
                let (offset_h, offset_w) = ((tap_h * dilation) as i32, (tap_w * dilation) as i32);
                let out = device.allocate(bytes);
                let args = args![
                    out,
                    map,
                    bytes as i32,
                    channel as i32,
                    start_w,
                    start_h,
                    image,
                    offset_w,
                    offset_h
                ];
                device.launch("hopper_pixels", 1, 64, bytes as u32, args);
                let at = |row: usize, i: usize| {
                    let (image, y, x0) = pixel(first + row);
                    let (y, x0) = (y + offset_h, x0 + offset_w);
                    let inside = channel + i < c
                        && (image as usize) < n
                        && (0..h as i32).contains(&y)
                        && (0..w as i32).contains(&x0);
                    if !inside {
                        return bf16::ZERO;
                    }
                    x[((image as usize * h + y as usize) * w + x0 as usize) * c + channel + i]
                };
                let row = |row: usize| (0..len).map(|i| at(row, i)).collect();
                let rows: Vec<Vec<bf16>> = (0..pixels as usize).map(row).collect();
                let found = device.read::<u8>(out, bytes);
                assert_eq!(found, laid_out(&rows, swizzle), "{c} {w} {h}, {swizzle}, from {first}");
            }
        }
    }
}

#[test]
fn maps_are_refused_as_by_the_driver() {
    let Some(device) = device_or_skip("maps_are_refused_as_by_the_driver") else { return };
    let address = device.upload(&normal_bf16(64 * 16, 3));
    let tensor = |offset: u64, extents: &'static [u64], swizzle| Tensor {
        address: address + offset,
        extents,
        swizzle,
    };
    let good = tensor(0, &[64, 16], 128);
    assert!(good.tiled(&[64, 8], &[1, 1]).is_ok());
    for refused in [
        tensor(8, &[64, 16], 128).tiled(&[64, 8], &[1, 1]),
        tensor(0, &[60, 16], 128).tiled(&[56, 8], &[1, 1]),
        tensor(0, &[0, 16], 128).tiled(&[64, 8], &[1, 1]),
        good.tiled(&[64, 257], &[1, 1]),
        good.tiled(&[64, 0], &[1, 1]),
        good.tiled(&[72, 8], &[1, 1]),
        good.tiled(&[4, 8], &[1, 1]),
        good.tiled(&[64, 8], &[1, 9]),
        good.tiled(&[64, 8], &[1, 0]),
    ] {
        assert_eq!(refused.unwrap_err(), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    }
    let images = tensor(0, &[64, 2, 2, 4], 128);
    assert!(images.im2col([[-128, 0], [127, 0]], [64, 64], [1, 1]).is_ok());
    for refused in [
        images.im2col([[-129, 0], [0, 0]], [64, 64], [1, 1]),
        images.im2col([[0, 0], [0, 128]], [64, 64], [1, 1]),
        images.im2col([[0, 0], [0, 0]], [128, 64], [1, 1]),
        images.im2col([[0, 0], [0, 0]], [64, 1025], [1, 1]),
        images.im2col([[0, 0], [0, 0]], [64, 64], [1, 9]),
    ] {
        assert_eq!(refused.unwrap_err(), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn numbers_pass_through_a_ring_in_order() {
    let Some(device) = device_or_skip("numbers_pass_through_a_ring_in_order") else { return };
    for count in [1, 2, 3, 50] {
        let out = device.allocate(count * 128);
        device.launch("hopper_ring", 1, 64, 0, args![out, count as i32]);
        let expected: Vec<u32> = (0..32 * count).map(|i| (1000 * (i / 32) + 31 - i % 32) as u32).collect();
        assert_eq!(device.read::<u32>(out, 32 * count), expected);
    }
}

/// An operand as it stands in shared memory, and the fields of its descriptor beside the address.
struct Operand {
    memory: Vec<u8>,
    fields: u64,
}

/// `len` rows or columns (`mn`) of 16 elements along k, which `at(mn, k)` gives. Built from blocks: of 8 x 8 elements
/// without a swizzle, of 8 swizzled rows with one.
fn operand(len: usize, along_mn: bool, swizzle: usize, at: impl Fn(usize, usize) -> bf16) -> Operand {
    let row_bytes = swizzle.max(16);
    let row_len = row_bytes / 2;
    // Rows of elements that are neighbours in memory, and how many there are of them.
    let (inner, outer) = if along_mn { (len, 16) } else { (16, len) };
    // With K innermost, a swizzled row is longer than 16 elements or as long: the rest belongs to other products.
    let blocks_inner = inner.div_ceil(row_len);
    let blocks_outer = outer / 8;
    let block_bytes = 8 * row_bytes;
    let mut memory = vec![0; blocks_inner * blocks_outer * block_bytes];
    for i in 0..inner {
        for o in 0..outer {
            let block = i / row_len * blocks_outer + o / 8;
            let plain = block * block_bytes + o % 8 * row_bytes + i % row_len * 2;
            let place = if swizzle == 0 { plain } else { swizzled(plain, swizzle) };
            let value = if along_mn { at(i, o) } else { at(o, i) };
            memory[place..place + 2].copy_from_slice(&value.to_bits().to_le_bytes());
        }
    }
    let (next_inner, next_outer) = (blocks_outer * block_bytes, block_bytes);
    // The leading offset leads along the innermost extent with a swizzle, to the next 8 of K without.
    let (leading, stride) = match (along_mn, swizzle) {
        (true, 0) => (next_outer, next_inner),
        _ => (next_inner, next_outer),
    };
    let mode = match swizzle {
        128 => 1,
        64 => 2,
        32 => 3,
        _ => 0,
    };
    let fields = (leading as u64 >> 4) << 16 | (stride as u64 >> 4) << 32 | mode << 62;
    Operand { memory, fields }
}

fn check_product(device: &Device, name: &str, columns: usize, along: [bool; 2], swizzles: [usize; 2]) {
    let (a, b) = (normal_bf16(64 * 16, 4), normal_bf16(16 * columns, 5));
    let mut left = operand(64, along[0], swizzles[0], |m, k| a[16 * m + k]);
    let mut right = operand(columns, along[1], swizzles[1], |n, k| b[columns * k + n]);
    // What follows begins at a multiple of 1024, as the swizzle counts.
    for operand in [&mut left, &mut right] {
        operand.memory.resize(operand.memory.len().next_multiple_of(1024), 0);
    }
    let sizes = [left.memory.len(), right.memory.len()];
    let out = device.allocate(4 * 64 * columns);
    let repeats = 3;
    let (from_a, from_b) = (device.upload(&left.memory), device.upload(&right.memory));
    let args =
        args![out, from_a, from_b, sizes[0] as i32, sizes[1] as i32, left.fields, right.fields, repeats];
    device.launch(name, 1, 128, (sizes[0] + sizes[1]) as u32, args);
    let once = product(&a, &b, [64, columns, 16]);
    let expected: Vec<f64> = once.iter().map(|x| x * f64::from(repeats)).collect();
    assert_close(&device.read(out, 64 * columns), &expected, &format!("{name}, swizzles {swizzles:?}"));
}

#[test]
fn products_through_every_descriptor() {
    let Some(device) = device_or_skip("products_through_every_descriptor") else { return };
    for (name, columns, along) in [
        ("hopper_product_64_kk", 64, [false, false]),
        ("hopper_product_64_mn", 64, [true, true]),
        ("hopper_product_128_kn", 128, [false, true]),
        ("hopper_product_128_mk", 128, [true, false]),
    ] {
        for left in SWIZZLES {
            for right in SWIZZLES {
                check_product(&device, name, columns, along, [left, right]);
            }
        }
    }
}
