//! `kernels/matrix.cu`.

use crate::device::{args, device_or_skip};
use crate::numbers::{assert_close, normal_bf16, product};

#[test]
fn ldmatrix_hands_out_rows_or_columns() {
    let Some(device) = device_or_skip("ldmatrix_hands_out_rows_or_columns") else { return };
    let x: Vec<u16> = (0..256).collect();
    let (from, out) = (device.upload(&x), device.allocate(32 * 48));
    device.launch("matrix_load", 1, 32, 0, args![out, from]);
    let element = |matrix: usize, row: usize, column: usize| u32::from(x[64 * matrix + 8 * row + column]);
    for (lane, found) in device.read::<u32>(out, 384).chunks_exact(12).enumerate() {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        let plain = |matrix| element(matrix, row, column) | element(matrix, row, column + 1) << 16;
        let transposed = |matrix| element(matrix, column, row) | element(matrix, column + 1, row) << 16;
        let expected =
            [0, 1, 2, 3].map(plain).into_iter().chain([0, 1, 2, 3].map(transposed)).collect::<Vec<_>>();
        let of_two = [plain(0), plain(1), transposed(0), transposed(1)];
        assert_eq!(found, [&expected[..], &of_two].concat(), "lane {lane}");
    }
}

#[test]
fn products_of_tiles() {
    let Some(device) = device_or_skip("products_of_tiles") else { return };
    for [m, n, k] in [[1, 8, 32], [16, 8, 32], [64, 64, 64], [65, 72, 96], [200, 168, 256]] {
        let (a, b) = (normal_bf16(m * k, 1), normal_bf16(k * n, 2));
        let (left, right) = (device.upload(&a), device.upload(&b));
        let out = device.allocate(4 * m * n);
        let grid = [m.div_ceil(64) as u32, n.div_ceil(64) as u32, 1];
        let shared_bytes = 2 * 2 * (64 * 40 + 32 * 72);
        let args = args![out, left, right, m as i32, n as i32, k as i32];
        device.try_launch("matrix_gemm", grid, [128, 1, 1], shared_bytes, args).unwrap();
        assert_close(&device.read(out, m * n), &product(&a, &b, [m, n, k]), &format!("{m} x {n} x {k}"));
    }
}

#[test]
fn copies_fill_with_zeros() {
    let Some(device) = device_or_skip("copies_fill_with_zeros") else { return };
    let x: Vec<u8> = (1..=28).collect();
    let from = device.upload(&x);
    for bytes in 0..=16 {
        let out = device.allocate(28);
        device.launch("matrix_zero_fill", 1, 1, 0, args![out, from, bytes as i32]);
        let kept = |i: usize| match i {
            0..16 => i < bytes,
            16..24 => i - 16 < bytes,
            _ => i - 24 < bytes,
        };
        let expected: Vec<u8> = (0..28).map(|i| if kept(i) { x[i] } else { 0 }).collect();
        assert_eq!(device.read::<u8>(out, 28), expected, "{bytes} bytes");
    }
}
