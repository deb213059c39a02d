//! `kernels/peak.cu` and `kernels/peak_wgmma.cu`: what is timed as a ceiling is a whole product.

use crate::support::{Vector, device_or_skip};
use half::bf16;
use scadles::device::cuda::peak::{self, FMA_LANES, Product, THREADS};
use scadles::device::cuda::{CudaDevice, CudaError, View, ViewMut};

type Multiply =
    fn(&CudaDevice, ViewMut<'_, f32>, View<'_, bf16>, View<'_, bf16>, usize) -> Result<(), CudaError>;

/// Small whole numbers, whose products and sums f32 holds exactly.
fn whole(len: usize, factor: usize) -> Vec<f32> {
    (0..len).map(|i| (i * factor % 13) as f32 - 6.0).collect()
}

fn bf16s(values: &[f32]) -> Vec<bf16> {
    values.iter().copied().map(bf16::from_f32).collect()
}

/// Every result of every block, for no step, one and several.
pub fn check_product(device: &CudaDevice, multiply: Multiply, shape: Product) {
    let Product { rows, columns, depth, .. } = shape;
    let (a, b) = (whole(rows * depth, 5), whole(columns * depth, 7));
    let product = |i: usize| -> f32 {
        let (row, column) = (i / columns % rows, i % columns);
        (0..depth).map(|k| a[row * depth + k] * b[column * depth + k]).sum()
    };
    let (left, right) = (Vector::aligned(device, &bf16s(&a)), Vector::aligned(device, &bf16s(&b)));
    for (blocks, steps) in [(1, 0), (1, 1), (3, 2), (2, 9)] {
        let mut out = Vector::aligned(device, &vec![f32::NAN; shape.out_len(blocks)]);
        multiply(device, out.view_mut(), left.view(), right.view(), steps).unwrap();
        for (i, found) in out.read().into_iter().enumerate() {
            let expected = steps as f32 * product(i);
            assert!(found == expected, "{steps} steps, [{i}]: {found}, expected {expected}");
        }
    }
}

#[test]
fn mma_multiplies() {
    let Some(device) = device_or_skip("mma_multiplies") else { return };
    check_product(&device, peak::mma, Product::MMA);
}

#[test]
fn fma_multiplies() {
    let Some(device) = device_or_skip("fma_multiplies") else { return };
    let (a, b) = (whole(THREADS as usize * FMA_LANES, 5), whole(FMA_LANES, 7));
    let (left, right) = (Vector::new(&device, &a), Vector::new(&device, &b));
    for (blocks, steps) in [(1, 0), (1, 1), (3, 6), (2, 9)] {
        let mut out = Vector::new(&device, &vec![f32::NAN; blocks * THREADS as usize]);
        peak::fma(&device, out.view_mut(), left.view(), right.view(), steps).unwrap();
        for (i, found) in out.read().into_iter().enumerate() {
            let row = &a[i % THREADS as usize * FMA_LANES..][..FMA_LANES];
            let expected = steps as f32 * row.iter().sum::<f32>() * b.iter().sum::<f32>();
            assert!(found == expected, "{steps} steps, [{i}]: {found}, expected {expected}");
        }
    }
}

#[test]
fn parts_of_a_block_are_refused() {
    let Some(device) = device_or_skip("parts_of_a_block_are_refused") else { return };
    let Product { rows, columns, depth, .. } = Product::MMA;
    let (a, b) =
        (Vector::aligned(&device, &bf16s(&whole(rows * depth, 5))), bf16s(&whole(columns * depth, 7)));
    let b = Vector::aligned(&device, &b);
    let mut out = Vector::aligned(&device, &vec![0.0; Product::MMA.out_len(2) - 1]);
    let error = peak::mma(&device, out.view_mut(), a.view(), b.view(), 1).unwrap_err().to_string();
    assert_eq!(error, "kernel peak_mma_bf16: out has 32767 elements, expected 32768");
    let operand = Vector::new(&device, &[0.0; FMA_LANES]);
    let error =
        peak::fma(&device, out.view_mut(), operand.view(), operand.view(), 1).unwrap_err().to_string();
    assert_eq!(error, "kernel peak_fma_f32: out has 32767 elements, expected 32768");
}
