//! Convolution passes on every SIMD level against the plain loops in [`crate::reference`].

use crate::reference::{self, Sums};
use crate::shapes::{self, shape};
use proptest::prelude::*;
use scadles::ops::conv2d::cpu::CpuConv2d;
use scadles::ops::simd::SimdLevel;
use scadles::rng::{Philox, Stream};
use scadles::shape::Conv2dShape;

/// Numbers in [-1, 1).
pub fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = Philox::new(seed, Stream::Images, 0);
    (0..len).map(|_| 2.0 * rng.uniform_f32() - 1.0).collect()
}

/// Share of the rounding-error bound that a result may use, by what bounds it.
///
/// Summing d terms one after the other in f32 is off by at most about d * 2^-24 * (sum of magnitudes), and by about
/// sqrt(d) * 2^-24 of it with random signs. No sum here has more than a few thousand terms (sqrt: 60), so 64 * 2^-24 is
/// close to the worst random case, and a term that is missing or counted twice is thousands of times larger.
const RELATIVE_TO_MAGNITUDES: f64 = 64.0 / 16_777_216.0;

/// For sums of no terms: they must be 0 exactly, and sums of few terms may round once.
const ABSOLUTE: f64 = 1e-30;

fn assert_close(what: &str, got: &[f32], want: &Sums) {
    assert_eq!(got.len(), want.values.len(), "{what}: length");
    for (index, &value) in got.iter().enumerate() {
        let tolerance = ABSOLUTE + RELATIVE_TO_MAGNITUDES * want.magnitudes[index];
        let share = (f64::from(value) - want.values[index]).abs() / tolerance;
        // Written so that NaN fails.
        assert!(
            share <= 1.0,
            "{what}[{index}] = {value}, expected {}, {share:.3} of the tolerance {tolerance:e}",
            want.values[index],
        );
    }
}

pub fn levels() -> impl Iterator<Item = SimdLevel> {
    SimdLevel::ALL.into_iter().filter(|level| level.is_available())
}

/// The three passes at one level, from buffers that begin as NaN.
struct Results {
    y: Vec<f32>,
    dx: Vec<f32>,
    dfilter: Vec<f32>,
}

struct Inputs {
    x: Vec<f32>,
    filter: Vec<f32>,
    dy: Vec<f32>,
}

impl Inputs {
    fn new(shape: &Conv2dShape, n: usize) -> Self {
        Self {
            x: uniform(n * shape.x_len(), 1),
            filter: uniform(shape.filter_len(), 2),
            dy: uniform(n * shape.y_len(), 3),
        }
    }

    fn run(&self, level: SimdLevel, shape: &Conv2dShape, n: usize) -> Results {
        let conv = CpuConv2d::new(level, shape);
        let mut packed = vec![f32::NAN; conv.packed_fprop_len()];
        conv.pack_fprop(&self.filter, &mut packed);
        let mut y = vec![f32::NAN; n * shape.y_len()];
        conv.fprop(n, &self.x, &packed, None, false, &mut y);
        let mut packed = vec![f32::NAN; conv.packed_dgrad_len()];
        conv.pack_dgrad(&self.filter, &mut packed);
        let mut dx = vec![f32::NAN; n * shape.x_len()];
        conv.dgrad(n, &self.dy, &packed, &mut dx);
        let mut dfilter = vec![f32::NAN; shape.filter_len()];
        let mut scratch = vec![f32::NAN; conv.wgrad_scratch_len(n + 5)];
        conv.wgrad(n, &self.x, &self.dy, &mut dfilter, &mut scratch);
        Results { y, dx, dfilter }
    }
}

/// Compares every pass at every level with the reference.
pub fn check_all_passes(shape: &Conv2dShape, n: usize) {
    shape.validate().unwrap();
    let inputs = Inputs::new(shape, n);
    let y = reference::fprop(shape, n, &inputs.x, &inputs.filter);
    let dx = reference::dgrad(shape, n, &inputs.dy, &inputs.filter);
    let dfilter = reference::wgrad(shape, n, &inputs.x, &inputs.dy);
    for level in levels() {
        let got = inputs.run(level, shape, n);
        assert_close(&format!("{level:?} n={n} {shape:?} y"), &got.y, &y);
        assert_close(&format!("{level:?} n={n} {shape:?} dx"), &got.dx, &dx);
        assert_close(&format!("{level:?} n={n} {shape:?} dfilter"), &got.dfilter, &dfilter);
    }
}

#[test]
fn extents_of_one() {
    shapes::extents_of_one(check_all_passes);
}

#[test]
fn channels_one_below_and_above_each_vector_and_panel() {
    shapes::channels_one_below_and_above_each_vector_and_panel(check_all_passes);
}

#[test]
fn pixels_one_below_and_above_each_tile() {
    shapes::pixels_one_below_and_above_each_tile(check_all_passes);
}

#[test]
fn images_one_below_and_above_each_tile() {
    shapes::images_one_below_and_above_each_tile(check_all_passes);
}

#[test]
fn strides_paddings_and_dilations() {
    shapes::strides_paddings_and_dilations(check_all_passes);
}

#[test]
fn layers_of_the_networks() {
    shapes::layers_of_the_networks(check_all_passes);
}

#[test]
fn more_taps_and_channels_than_one_pass_of_the_microkernel_holds() {
    shapes::more_taps_and_channels_than_one_pass_of_the_microkernel_holds(check_all_passes);
}

#[test]
fn epilogue_adds_the_bias_then_clips() {
    for shape in [shape((4, 35), (5, 3), 3, (1, 1, 1)), shape((4099, 19), (1, 2), 1, (1, 0, 1))] {
        let n = 3;
        let inputs = Inputs::new(&shape, n);
        let bias: Vec<f32> = (0..shape.k).map(|k| k as f32 / 16.0 - 1.0).collect();
        for level in levels() {
            let conv = CpuConv2d::new(level, &shape);
            let mut packed = vec![f32::NAN; conv.packed_fprop_len()];
            conv.pack_fprop(&inputs.filter, &mut packed);
            let run = |bias: Option<&[f32]>, relu: bool| {
                let mut y = vec![f32::NAN; n * shape.y_len()];
                conv.fprop(n, &inputs.x, &packed, bias, relu, &mut y);
                y
            };
            let plain = run(None, false);
            let biased: Vec<f32> = plain.iter().enumerate().map(|(i, v)| v + bias[i % shape.k]).collect();
            assert_eq!(run(Some(&bias), false), biased, "{level:?} bias");
            let clipped: Vec<f32> = biased.iter().map(|v| v.max(0.0)).collect();
            assert_eq!(run(Some(&bias), true), clipped, "{level:?} bias and relu");
            assert!(clipped.contains(&0.0) && clipped.iter().any(|&v| v > 0.0), "relu must clip some");
        }
    }
}

#[test]
fn nan_and_infinity_reach_the_output_through_relu() {
    let shape = shape((1, 1), (1, 2), 1, (1, 0, 1));
    for level in levels() {
        let conv = CpuConv2d::new(level, &shape);
        let mut packed = vec![0.0; conv.packed_fprop_len()];
        conv.pack_fprop(&[1.0], &mut packed);
        let mut y = [0.0; 2];
        conv.fprop(1, &[f32::NAN, f32::INFINITY], &packed, None, true, &mut y);
        assert!(y[0].is_nan() && y[1] == f32::INFINITY, "{level:?}: {y:?}");
    }
}

/// <conv(x, filter), dy> = <x, dgrad(dy)> = <filter, wgrad(dy)>: each gradient is the transpose of the forward pass,
/// which, the pass being linear, is what a finite difference would measure without its rounding error.
#[test]
fn passes_are_transposes_of_one_another() {
    for (shape, n) in [
        (shape((16, 24), (9, 7), 3, (2, 1, 1)), 5),
        (shape((3, 32), (12, 10), 7, (2, 3, 1)), 2),
        (shape((33, 10), (6, 6), 3, (1, 2, 2)), 4),
        (shape((64, 64), (4, 4), 3, (1, 1, 1)), 16),
    ] {
        let inputs = Inputs::new(&shape, n);
        for level in levels() {
            let got = inputs.run(level, &shape, n);
            let forward = dot(&got.y, &inputs.dy);
            // Products of random sign: compare with the size of the vectors, not with their small inner product.
            let scale = (dot(&got.y, &got.y) * dot(&inputs.dy, &inputs.dy)).sqrt();
            for (name, value) in
                [("dx", dot(&inputs.x, &got.dx)), ("dfilter", dot(&inputs.filter, &got.dfilter))]
            {
                let error = (value - forward).abs() / scale;
                assert!(
                    error < 1e-6,
                    "{level:?} {shape:?} {name}: {value}, expected {forward}, off by {error:e}"
                );
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[test]
fn results_are_the_same_bytes_on_any_number_of_threads() {
    for (shape, n) in [
        (shape((16, 16), (32, 32), 3, (1, 1, 1)), 16),
        (shape((64, 128), (8, 8), 3, (2, 1, 1)), 13),
        (shape((3, 64), (32, 32), 3, (1, 1, 1)), 7),
    ] {
        let inputs = Inputs::new(&shape, n);
        for level in levels() {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let got = pool.install(|| inputs.run(level, &shape, n));
                [got.y, got.dx, got.dfilter]
                    .map(|values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
            };
            let one = on(1);
            assert!(one == on(2) && one == on(3), "{level:?} {shape:?}");
        }
    }
}

#[test]
#[should_panic(expected = "conv2d fprop: x holds 17 floats, expected 18")]
fn a_short_input_is_named() {
    let shape = shape((2, 2), (3, 3), 1, (1, 0, 1));
    let conv = CpuConv2d::new(SimdLevel::Portable, &shape);
    let packed = vec![0.0; conv.packed_fprop_len()];
    conv.fprop(1, &[0.0; 17], &packed, None, false, &mut [0.0; 18]);
}

/// Extents whose products wrap around to the lengths of empty slices: nothing may be read on the strength of them.
#[test]
fn extents_that_overflow_panic_before_anything_is_read() {
    let wraps = Conv2dShape { h: 1 << 63, w: 2, ..shape((1, 1), (1, 1), 1, (1, 0, 1)) };
    assert!(std::panic::catch_unwind(|| CpuConv2d::new(SimdLevel::Portable, &wraps)).is_err());
    let pixel = shape((2, 2), (1, 1), 1, (1, 0, 1));
    let conv = CpuConv2d::new(SimdLevel::Portable, &pixel);
    let packed = vec![0.0; conv.packed_fprop_len()];
    let fprop = || conv.fprop(1 << 63, &[], &packed, None, false, &mut []);
    assert!(std::panic::catch_unwind(fprop).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_shapes_match_the_reference(
        n in 0usize..15,
        (c, k) in (1usize..40, 1usize..40),
        (h, w) in (1usize..10, 1usize..10),
        (r, s) in (1usize..5, 1usize..5),
        (stride, pad, dilation) in (1usize..4, 0usize..4, 1usize..4),
    ) {
        let shape = Conv2dShape { c, h, w, k, r, s, stride, pad, dilation };
        prop_assume!(shape.validate().is_ok());
        check_all_passes(&shape, n);
    }
}
