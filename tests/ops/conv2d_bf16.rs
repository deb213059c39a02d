//! Convolution passes with bf16 activations, on every level, against the plain loops in [`crate::reference`].

use crate::conv2d::uniform;
use crate::reference::{self, Sums};
use crate::shapes::{self, shape};
use half::bf16;
use scadles::ops::conv2d::cpu::{Bf16Conv2d, Epilogue};
use scadles::ops::simd::PairLevel;
use scadles::shape::Conv2dShape;

/// Rounding of a result in bf16, relative to it: half of the distance between neighbours is 2^-9 at most; the reference
/// and the sum may lie on two sides of a tie.
const RESULT: f64 = 1.0 / 256.0;

/// Rounding of the sums in f32, relative to the magnitudes of their terms: 16 * 2^-24, of sums with random signs.
const SUMS: f64 = 16.0 / 16_777_216.0;

/// For sums of no terms: they must be 0 exactly.
const ABSOLUTE: f64 = 1e-30;

fn assert_close(what: &str, got: &[f32], want: &Sums, relative: f64) {
    assert_eq!(got.len(), want.values.len(), "{what}: length");
    for (index, &value) in got.iter().enumerate() {
        let expected = want.values[index];
        let tolerance = ABSOLUTE + SUMS * want.magnitudes[index] + relative * expected.abs();
        let share = (f64::from(value) - expected).abs() / tolerance;
        // Written so that NaN fails.
        assert!(
            share <= 1.0,
            "{what}[{index}] = {value}, expected {expected}, {share:.3} of the tolerance {tolerance:e}"
        );
    }
}

fn levels() -> impl Iterator<Item = PairLevel> {
    PairLevel::ALL.into_iter().filter(|level| level.is_available())
}

fn rounded(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::from_f32(value)).collect()
}

fn widened(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

struct Results {
    y: Vec<bf16>,
    dx: Vec<bf16>,
    dfilter: Vec<f32>,
}

struct Inputs {
    x: Vec<bf16>,
    /// In f32: packing rounds it.
    filter: Vec<f32>,
    dy: Vec<bf16>,
}

impl Inputs {
    fn new(shape: &Conv2dShape, n: usize) -> Self {
        Self {
            x: rounded(&uniform(n * shape.x_len(), 1)),
            filter: uniform(shape.filter_len(), 2),
            dy: rounded(&uniform(n * shape.y_len(), 3)),
        }
    }

    /// The three passes, into buffers that begin as NaN.
    fn run(&self, level: PairLevel, shape: &Conv2dShape, n: usize) -> Results {
        let conv = Bf16Conv2d::new(level, shape);
        let mut scratch = vec![f32::NAN; conv.wgrad_scratch_len(n + 5)];
        let y = self.fprop(level, shape, n, Epilogue::default());
        let mut packed = vec![bf16::NAN; conv.packed_dgrad_len()];
        conv.pack_dgrad(&self.filter, &mut packed);
        let mut dx = vec![bf16::NAN; n * shape.x_len()];
        conv.dgrad(n, &self.dy, &packed, &mut dx);
        let mut dfilter = vec![f32::NAN; shape.filter_len()];
        conv.wgrad(n, &self.x, &self.dy, &mut dfilter, &mut scratch);
        Results { y, dx, dfilter }
    }

    fn fprop(&self, level: PairLevel, shape: &Conv2dShape, n: usize, epilogue: Epilogue) -> Vec<bf16> {
        let conv = Bf16Conv2d::new(level, shape);
        let mut packed = vec![bf16::NAN; conv.packed_fprop_len()];
        conv.pack_fprop(&self.filter, &mut packed);
        let mut y = vec![bf16::NAN; n * shape.y_len()];
        conv.fprop(n, &self.x, &packed, epilogue, &mut y);
        y
    }
}

/// Compares every pass at every level with the reference on the numbers that the passes multiply.
fn check_all_passes(shape: &Conv2dShape, n: usize) {
    shape.validate().unwrap();
    let inputs = Inputs::new(shape, n);
    let (x, dy) = (widened(&inputs.x), widened(&inputs.dy));
    let filter = widened(&rounded(&inputs.filter));
    let y = reference::fprop(shape, n, &x, &filter);
    let dx = reference::dgrad(shape, n, &dy, &filter);
    let dfilter = reference::wgrad(shape, n, &x, &dy);
    for level in levels() {
        let got = inputs.run(level, shape, n);
        assert_close(&format!("{level:?} n={n} {shape:?} y"), &widened(&got.y), &y, RESULT);
        assert_close(&format!("{level:?} n={n} {shape:?} dx"), &widened(&got.dx), &dx, RESULT);
        assert_close(&format!("{level:?} n={n} {shape:?} dfilter"), &got.dfilter, &dfilter, 0.0);
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
fn filters_of_several_wgrad_blocks() {
    check_all_passes(&shape((300, 72), (5, 3), 1, (1, 0, 1)), 9);
    check_all_passes(&shape((40, 330), (5, 3), 1, (1, 0, 1)), 9);
    check_all_passes(&shape((200, 70), (5, 3), 3, (1, 1, 1)), 9);
}

#[test]
fn the_epilogue_adds_the_bias_then_clips_before_rounding() {
    for shape in [
        shape((4, 35), (5, 3), 3, (1, 1, 1)),
        shape((4099, 19), (1, 2), 1, (1, 0, 1)),
        shape((3, 16), (6, 5), 3, (2, 1, 1)),
    ] {
        let n = 3;
        let inputs = Inputs::new(&shape, n);
        let bias: Vec<f32> = (0..shape.k).map(|k| k as f32 / 16.0 - 1.0).collect();
        let mut want = reference::fprop(&shape, n, &widened(&inputs.x), &widened(&rounded(&inputs.filter)));
        for (index, value) in want.values.iter_mut().enumerate() {
            *value += f64::from(bias[index % shape.k]);
            want.magnitudes[index] += f64::from(bias[index % shape.k]).abs();
        }
        for level in levels() {
            let run = |relu| widened(&inputs.fprop(level, &shape, n, Epilogue { bias: Some(&bias), relu }));
            let biased = run(false);
            assert_close(&format!("{level:?} {shape:?} bias"), &biased, &want, RESULT);
            let clipped: Vec<f32> = biased.iter().map(|v| v.max(0.0)).collect();
            assert_eq!(run(true), clipped, "{level:?} bias and relu");
            assert!(clipped.contains(&0.0) && clipped.iter().any(|&v| v > 0.0), "relu must clip some");
        }
    }
}

#[test]
fn outputs_are_rounded_to_nearest_even() {
    // 1 + 2^-8 and 1 + 3 * 2^-8 lie half-way between two bf16.
    let shape = shape((2, 1), (1, 2), 1, (1, 0, 1));
    let x: Vec<bf16> = rounded(&[1.0, 1.0 / 256.0, 1.0, 3.0 / 256.0]);
    for level in levels() {
        let y = Inputs { x: x.clone(), filter: vec![1.0; 2], dy: vec![] }.fprop(
            level,
            &shape,
            1,
            Epilogue::default(),
        );
        assert_eq!(widened(&y), [1.0, 1.0 + 4.0 / 256.0], "{level:?}");
    }
}

#[test]
fn results_are_the_same_bytes_on_any_number_of_threads() {
    for (shape, n) in [
        (shape((16, 16), (32, 32), 3, (1, 1, 1)), 16),
        (shape((64, 128), (8, 8), 3, (2, 1, 1)), 13),
        (shape((3, 64), (32, 32), 3, (1, 1, 1)), 7),
        (shape((40, 300), (7, 7), 1, (1, 0, 1)), 33),
        (shape((300, 80), (7, 7), 1, (1, 0, 1)), 33),
    ] {
        let inputs = Inputs::new(&shape, n);
        for level in levels() {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let got = pool.install(|| inputs.run(level, &shape, n));
                let dfilter: Vec<u32> = got.dfilter.iter().map(|v| v.to_bits()).collect();
                let [y, dx] = [got.y, got.dx].map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
                (y, dx, dfilter)
            };
            let one = on(1);
            assert!(one == on(2) && one == on(3), "{level:?} {shape:?}");
        }
    }
}

#[test]
#[should_panic(expected = "conv2d fprop: x holds 17 elements, expected 18")]
fn a_short_input_is_named() {
    let shape = shape((2, 2), (3, 3), 1, (1, 0, 1));
    let conv = Bf16Conv2d::new(PairLevel::Portable, &shape);
    let packed = vec![bf16::ZERO; conv.packed_fprop_len()];
    conv.fprop(1, &[bf16::ZERO; 17], &packed, Epilogue::default(), &mut [bf16::ZERO; 18]);
}
