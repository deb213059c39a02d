//! `kernels/batchnorm2d.cu` against its definition in f64, and its f32 expressions bit for bit.

use crate::reference;
use crate::support::{Vector, assert_same_bits, device_or_skip, normal};
use crate::tensors::{Float, IMAGES, Images, Tolerance, assert_bits, assert_close, rounded, wide};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::batchnorm2d::cuda::{self, Extent, Mask, Saved, TrainStatistics};
use scadles::ops::batchnorm2d::{self, EPS, Epilogue, MOMENTUM, Parameters, RunningStatistics};

/// Pixels and channels: single ones, primes, channels that fall into runs and not, one and several tiles, tiles that end
/// with the last row and one later, one and several blocks of channels.
const SHAPES: [(usize, usize); 12] = [
    (1, 1),
    (1, 3),
    (9, 7),
    (6, 4),
    (300, 8),
    (32, 256),
    (33, 256),
    (31, 260),
    (70, 64),
    (260, 5),
    (2, 71),
    (3, 1028),
];

/// Sums of up to some hundred terms of size 1, in f32 within a tile.
const SUMS: Tolerance = Tolerance { atol: 2e-5, rtol: 1e-5 };

/// Numbers of a test, those of each channel around another mean.
fn samples<E: Float>(images: Images, (pixels, c): (usize, usize), key: u64) -> Vec<E> {
    let values = normal(images.n * pixels * c, key);
    let shifted = |(i, value): (usize, &f32)| value * 2.0 + (i % c % 5) as f32 - 2.0;
    rounded(&values.iter().enumerate().map(shifted).collect::<Vec<_>>())
}

/// gamma, beta of a test; some beta 0, some gamma negative.
fn parameters(c: usize) -> (Vec<f32>, Vec<f32>) {
    let gamma = normal(c, 1).iter().map(|value| 1.0 + 0.5 * value).collect();
    let mut beta = normal(c, 2);
    beta.iter_mut().step_by(3).for_each(|value| *value = 0.0);
    (gamma, beta)
}

/// Mean, inv_std, running mean, running var after one step, from known running ones.
fn train(
    device: &CudaDevice,
    extent: Extent,
    images: Images,
    tile_rows: usize,
    partials: &Vector<'_, f32>,
) -> [Vec<f32>; 4] {
    let count = images.count(device);
    let start =
        [vec![f32::NAN; extent.c], vec![f32::NAN; extent.c], normal(extent.c, 3), vec![2.0; extent.c]];
    let mut vectors = start.map(|values| Vector::new(device, &values));
    let [saved_mean, saved_inv_std, running_mean, running_var] = vectors.each_mut().map(Vector::view_mut);
    let statistics = TrainStatistics { saved_mean, saved_inv_std, running_mean, running_var };
    let batch = images.batch(&count);
    cuda::finish_statistics(device, extent, batch, tile_rows, partials.view(), statistics).unwrap();
    vectors.each_ref().map(Vector::read)
}

/// Compares what [`train`] gives with the definition.
fn check_statistics(found: &[Vec<f32>; 4], c: usize, x: &[f64], tolerance: Tolerance, what: &str) {
    let rows = x.len() / c;
    if rows == 0 {
        assert!(found[0].iter().chain(&found[1]).all(|value| value.is_nan()), "{what}");
        assert_same_bits(&found[2], &normal(c, 3), what);
        assert_same_bits(&found[3], &vec![2.0; c], what);
        return;
    }
    let (mean, var) = reference::statistics(c, x);
    let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + f64::from(EPS)).sqrt()).collect();
    let share = f64::from(MOMENTUM);
    let unbiased = rows as f64 / (rows - 1).max(1) as f64;
    let running = |old: f64, new: f64| (1.0 - share) * old + share * new;
    let running_mean: Vec<f64> =
        normal(c, 3).iter().zip(&mean).map(|(old, new)| running(f64::from(*old), *new)).collect();
    let running_var: Vec<f64> = var.iter().map(|new| running(2.0, new * unbiased)).collect();
    for (name, found, expected) in [
        ("mean", &found[0], mean),
        ("inv_std", &found[1], inv_std),
        ("running mean", &found[2], running_mean),
        ("running var", &found[3], running_var),
    ] {
        assert_close(found, &expected, tolerance, &format!("{name} of {what}"));
    }
}

fn compare_statistics<E: Float>(
    device: &CudaDevice,
    images: Images,
    (pixels, c): (usize, usize),
    aligned: bool,
) {
    let extent = Extent { pixels, c };
    let what = format!("{images:?}, {extent:?}, aligned: {aligned}, bf16: {}", E::IS_BF16);
    let x = samples::<E>(images, (pixels, c), 10);
    let count = images.count(device);
    let tile_rows = cuda::statistics_tile_rows(extent, images.bucket);
    let tiles = (images.bucket * pixels).div_ceil(tile_rows);
    let partials = || {
        let mut partials = Vector::new(device, &vec![f32::NAN; tiles * 2 * c]);
        let input = Images { n: images.n.max(1), ..images };
        let x = if images.n > 0 { x.clone() } else { vec![E::of(f32::NAN); pixels * c] };
        let x = input.input(device, &x, aligned);
        cuda::statistics(device, extent, images.batch(&count), x.view(), partials.view_mut()).unwrap();
        partials
    };
    let found = partials();
    assert_same_bits(&found.read(), &partials().read(), &format!("once more, {what}"));

    let x = wide(&x);
    let mut expected = Vec::new();
    for tile in x.chunks(tile_rows * c) {
        let num = (tile.len() / c) as f64;
        let (mean, var) = reference::statistics(c, tile);
        expected.extend(mean.iter().map(|mean| mean * num));
        expected.extend(var.iter().map(|var| var * num));
    }
    let len = expected.len();
    expected.resize(tiles * 2 * c, f64::NAN);
    let values = found.read();
    let tolerance = Tolerance { atol: 2e-4, rtol: 1e-5 }; // sums of up to a thousand terms
    assert_close(&values[..len], &expected[..len], tolerance, &format!("partials of {what}"));
    assert!(values[len..].iter().all(|value| value.is_nan()), "tiles beyond {what}");
    check_statistics(&train(device, extent, images, tile_rows, &found), c, &x, SUMS, &what);
}

#[test]
fn statistics_are_those_of_the_batch() {
    let Some(device) = device_or_skip("statistics_are_those_of_the_batch") else { return };
    for shape in SHAPES {
        for images in IMAGES {
            compare_statistics::<f32>(&device, images, shape, true);
            compare_statistics::<bf16>(&device, images, shape, true);
        }
        compare_statistics::<f32>(&device, IMAGES[1], shape, false);
        compare_statistics::<bf16>(&device, IMAGES[1], shape, false);
    }
}

#[test]
fn a_large_offset_costs_the_variance_nothing() {
    let Some(device) = device_or_skip("a_large_offset_costs_the_variance_nothing") else { return };
    let (images, extent) = (Images { bucket: 3, n: 3 }, Extent { pixels: 100, c: 68 });
    let x: Vec<f32> = normal(images.n * extent.pixels * extent.c, 11).iter().map(|x| x + 1000.0).collect();
    let tile_rows = cuda::statistics_tile_rows(extent, images.bucket);
    let tiles = (images.bucket * extent.pixels).div_ceil(tile_rows);
    let (count, mut partials) =
        (images.count(&device), Vector::new(&device, &vec![0.0; tiles * 2 * extent.c]));
    let input = images.input(&device, &x, true);
    cuda::statistics(&device, extent, images.batch(&count), input.view(), partials.view_mut()).unwrap();
    let found = train(&device, extent, images, tile_rows, &partials);
    // A mean near 1000 is rounded to 6e-5; deviations are about 1.
    check_statistics(&found, extent.c, &wide(&x), Tolerance { atol: 1e-4, rtol: 1e-5 }, "an offset");
}

#[test]
fn many_tiles_of_any_height_are_merged() {
    let Some(device) = device_or_skip("many_tiles_of_any_height_are_merged") else { return };
    for (c, pixels, tile_rows, images) in [
        (3, 2001, 1, Images { bucket: 2, n: 2 }),
        (70, 403, 7, Images { bucket: 3, n: 2 }),
        (300, 64, 64, Images { bucket: 4, n: 3 }),
        (2100, 5, 2, Images { bucket: 2, n: 1 }),
    ] {
        let x = wide(&samples::<f32>(images, (pixels, c), 12));
        let tiles = (images.bucket * pixels).div_ceil(tile_rows);
        let mut partials = Vec::new();
        for tile in x.chunks(tile_rows * c) {
            let num = (tile.len() / c) as f64;
            let (mean, var) = reference::statistics(c, tile);
            partials.extend(mean.iter().map(|mean| (mean * num) as f32));
            partials.extend(var.iter().map(|var| (var * num) as f32));
        }
        partials.resize(tiles * 2 * c, f32::NAN);
        let partials = Vector::new(&device, &partials);
        let found = train(&device, Extent { pixels, c }, images, tile_rows, &partials);
        check_statistics(&found, c, &x, SUMS, &format!("{tiles} tiles of {tile_rows} rows, {c} channels"));
        let again = train(&device, Extent { pixels, c }, images, tile_rows, &partials);
        found.iter().zip(&again).for_each(|(found, again)| assert_same_bits(again, found, "once more"));
    }
}

/// The formula in f32, rounded after each step, and to the storage type at the end.
fn normalized<E: Float>(
    x: &[E],
    (gamma, beta): (&[f32], &[f32]),
    (mean, inv_std): (&[f32], &[f32]),
    shortcut: Option<&[E]>,
    relu: bool,
) -> Vec<E> {
    let c = gamma.len();
    let value = |(i, x): (usize, &E)| {
        let k = i % c;
        let mut value = (x.f32() - mean[k]) * (inv_std[k] * gamma[k]) + beta[k];
        if let Some(shortcut) = shortcut {
            value += shortcut[i].f32();
        }
        E::of(if relu && value <= 0.0 { 0.0 } else { value })
    };
    x.iter().enumerate().map(value).collect()
}

fn compare_normalize<E: Float>(
    device: &CudaDevice,
    images: Images,
    (pixels, c): (usize, usize),
    aligned: bool,
) {
    let extent = Extent { pixels, c };
    let x = samples::<E>(images, (pixels, c), 20);
    let other = samples::<E>(images, (pixels, c), 21);
    let (gamma, beta) = parameters(c);
    let mean: Vec<f32> = (0..c).map(|k| (k % 5) as f32 - 2.0).collect();
    let var: Vec<f32> = normal(c, 22).iter().map(|value| value * value).collect();
    let inv_std: Vec<f32> = var.iter().map(|var| 1.0 / (var + EPS).sqrt()).collect();
    let count = images.count(device);
    let [d_gamma, d_beta, d_mean, d_var, d_inv_std] =
        [&gamma, &beta, &mean, &var, &inv_std].map(|values| Vector::new(device, values));
    let [d_x, d_other] = [&x, &other].map(|values| match images.n {
        0 => images.output(device, pixels * c, aligned),
        _ => images.input(device, values, aligned),
    });
    for (shortcut, relu, running) in
        [(false, false, false), (false, true, true), (true, true, false), (true, false, true)]
    {
        let what = format!("{images:?}, {extent:?}, {shortcut} {relu} {running}, {aligned}, {}", E::IS_BF16);
        let mut y = images.output::<E>(device, pixels * c, aligned);
        let normalize = match running {
            true => cuda::normalize_running::<E>,
            false => cuda::normalize::<E>,
        };
        let spread = if running { &d_var } else { &d_inv_std };
        let d_shortcut = shortcut.then(|| d_other.view());
        normalize(
            device,
            extent,
            images.batch(&count),
            d_x.view(),
            d_gamma.view(),
            d_beta.view(),
            d_mean.view(),
            spread.view(),
            d_shortcut,
            relu,
            y.view_mut(),
        )
        .unwrap();
        let found = images.read(&y, pixels * c);
        let shortcut = shortcut.then_some(&other[..]);
        let expected = normalized(&x, (&gamma, &beta), (&mean, &inv_std), shortcut, relu);
        assert_bits(&found, &expected, &what);
        let [x, gamma, beta, mean, var] = [wide(&x), wide(&gamma), wide(&beta), wide(&mean), wide(&var)];
        let shortcut = shortcut.map(wide);
        let expected = reference::normalize(&x, (&mean, &var), (&gamma, &beta), shortcut.as_deref(), relu);
        // inv_std reaches 300 where a variance is near 0, and numbers of that size are rounded some times.
        let tolerance = Tolerance { atol: 1e-3, rtol: E::ROUNDING + 1e-5 };
        assert_close(&found, &expected, tolerance, &what);
    }
}

#[test]
fn normalize_rounds_as_the_formula_says() {
    let Some(device) = device_or_skip("normalize_rounds_as_the_formula_says") else { return };
    for shape in SHAPES {
        for images in IMAGES {
            compare_normalize::<f32>(&device, images, shape, true);
            compare_normalize::<bf16>(&device, images, shape, true);
        }
        compare_normalize::<f32>(&device, IMAGES[1], shape, false);
        compare_normalize::<bf16>(&device, IMAGES[1], shape, false);
    }
}

#[test]
fn evaluation_has_the_bits_of_the_cpu() {
    let Some(device) = device_or_skip("evaluation_has_the_bits_of_the_cpu") else { return };
    let (images, pixels, c) = (Images { bucket: 2, n: 2 }, 33, 12);
    let mut x = samples::<f32>(images, (pixels, c), 30);
    for (at, special) in [(5, f32::NAN), (70, f32::INFINITY), (400, f32::NEG_INFINITY)] {
        x[at] = special;
    }
    let (gamma, beta) = parameters(c);
    let (mean, var) = (normal(c, 31), normal(c, 32).iter().map(|value| value.abs()).collect::<Vec<_>>());
    let mut expected = vec![0.0; x.len()];
    batchnorm2d::forward_eval(
        batchnorm2d::Extent { rows: images.n * pixels, c },
        &x,
        Parameters { gamma: &gamma, beta: &beta },
        RunningStatistics { mean: &mean, var: &var },
        Epilogue { shortcut: None, relu: true },
        &mut expected,
    );
    let (count, mut y) = (images.count(&device), images.output(&device, pixels * c, true));
    let d_x = images.input(&device, &x, true);
    let [gamma, beta, mean, var] = [&gamma, &beta, &mean, &var].map(|values| Vector::new(&device, values));
    cuda::normalize_running(
        &device,
        Extent { pixels, c },
        images.batch(&count),
        d_x.view(),
        gamma.view(),
        beta.view(),
        mean.view(),
        var.view(),
        None,
        true,
        y.view_mut(),
    )
    .unwrap();
    assert_same_bits(&y.read(), &expected, "evaluation");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relu {
    None,
    FromInput,
    FromOutput,
}

/// What a backward pass left.
struct Gradients<E> {
    dx: Vec<E>,
    dy: Vec<E>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

/// A batch and the statistics that normalised it.
struct Case<'a, E> {
    images: Images,
    extent: Extent,
    x: &'a [E],
    y: &'a [E],
    dy: &'a [E],
    vectors: [&'a [f32]; 4],
}

impl<E: Float> Case<'_, E> {
    fn run(&self, device: &CudaDevice, relu: Relu, write: bool, aligned: bool) -> Gradients<E> {
        let Self { images, extent, .. } = *self;
        let per_image = extent.pixels * extent.c;
        let count = images.count(device);
        let [x, y] = [self.x, self.y].map(|values| match images.n {
            0 => images.output(device, per_image, aligned),
            _ => images.input(device, values, aligned),
        });
        let mut dy = match images.n {
            0 => Vector::new(device, &vec![E::of(f32::NAN); images.bucket * per_image]),
            _ => images.input(device, self.dy, aligned),
        };
        let [gamma, beta, mean, inv_std] = self.vectors.map(|values| Vector::new(device, values));
        let mut dx = images.output::<E>(device, per_image, aligned);
        let [mut dgamma, mut dbeta] = [(); 2].map(|()| Vector::new(device, &vec![f32::NAN; extent.c]));
        let scratch_len = cuda::backward_scratch_len(extent, images.bucket);
        let mut scratch = Vector::new(device, &vec![f32::NAN; scratch_len]);
        let mask = match relu {
            Relu::None => Mask::None,
            Relu::FromInput => Mask::FromInput { beta: beta.view() },
            Relu::FromOutput => Mask::FromOutput(y.view()),
        };
        let saved = Saved { gamma: gamma.view(), mean: mean.view(), inv_std: inv_std.view() };
        cuda::backward(
            device,
            extent,
            images.batch(&count),
            x.view(),
            mask,
            saved,
            dy.view_mut(),
            write,
            dx.view_mut(),
            dgamma.view_mut(),
            dbeta.view_mut(),
            scratch.view_mut(),
        )
        .unwrap();
        scratch.read();
        Gradients {
            dx: images.read(&dx, per_image),
            dy: images.read_changed(&dy, per_image),
            dgamma: dgamma.read(),
            dbeta: dbeta.read(),
        }
    }

    /// The definition in f64, `dy` masked by `y`.
    fn expected(&self, relu: Relu) -> [Vec<f64>; 4] {
        let c = self.extent.c;
        let rows = self.x.len() / c;
        let [gamma, _, mean, inv_std] = self.vectors.map(wide);
        let masked: Vec<f64> = wide(self.dy)
            .iter()
            .zip(self.y)
            .map(|(dy, y)| if relu != Relu::None && y.f32() <= 0.0 { 0.0 } else { *dy })
            .collect();
        let xhat = |i: usize| (f64::from(self.x[i].f32()) - mean[i % c]) * inv_std[i % c];
        let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
        for (i, dy) in masked.iter().enumerate() {
            dbeta[i % c] += dy;
            dgamma[i % c] += dy * xhat(i);
        }
        let dx = (0..masked.len())
            .map(|i| {
                let (k, rows) = (i % c, rows as f64);
                gamma[k] * inv_std[k] * (masked[i] - dbeta[k] / rows - xhat(i) * dgamma[k] / rows)
            })
            .collect();
        [dx, masked, dgamma, dbeta]
    }
}

fn compare_backward<E: Float>(
    device: &CudaDevice,
    images: Images,
    (pixels, c): (usize, usize),
    aligned: bool,
) {
    let extent = Extent { pixels, c };
    let mut x = samples::<E>(images, (pixels, c), 40);
    let (gamma, beta) = parameters(c);
    let mean: Vec<f32> = (0..c).map(|k| (k % 5) as f32 - 2.0).collect();
    let inv_std: Vec<f32> = normal(c, 41).iter().map(|value| 0.5 + 0.1 * value).collect();
    // Where beta is 0, an input at the mean gives an output of exactly 0.
    x.iter_mut().enumerate().filter(|(i, _)| i % 4 == 0).for_each(|(i, x)| *x = E::of(mean[i % c]));
    let dy = rounded::<E>(&normal(x.len(), 42));
    let shortcut = samples::<E>(images, (pixels, c), 43);
    for relu in [Relu::None, Relu::FromInput, Relu::FromOutput] {
        let shortcut = (relu == Relu::FromOutput).then_some(&shortcut[..]);
        let y = normalized(&x, (&gamma, &beta), (&mean, &inv_std), shortcut, relu != Relu::None);
        let vectors = [&gamma[..], &beta, &mean, &inv_std];
        let case = Case { images, extent, x: &x, y: &y, dy: &dy, vectors };
        let [dx, masked, dgamma, dbeta] = case.expected(relu);
        for write in [false, true] {
            let what = format!("{images:?}, {extent:?}, {relu:?}, {write}, {aligned}, {}", E::IS_BF16);
            let found = case.run(device, relu, write, aligned);
            // A tile's f32 sums of up to a thousand terms of size 1.
            let sums = Tolerance { atol: 2e-4, rtol: 1e-5 };
            assert_close(&found.dgamma, &dgamma, sums, &format!("dgamma of {what}"));
            assert_close(&found.dbeta, &dbeta, sums, &format!("dbeta of {what}"));
            let tolerance = Tolerance { atol: 2e-5, rtol: E::ROUNDING + 1e-5 };
            assert_close(&found.dx, &dx, tolerance, &format!("dx of {what}"));
            let exact = Tolerance { atol: 0.0, rtol: 0.0 };
            let expected = if write { masked.clone() } else { wide(&dy) };
            assert_close(&found.dy, &expected, exact, &format!("dy of {what}"));
            let again = case.run(device, relu, write, aligned);
            assert_bits(&again.dx, &found.dx, "once more");
            assert_same_bits(&again.dgamma, &found.dgamma, "once more");
            assert_same_bits(&again.dbeta, &found.dbeta, "once more");
        }
        if relu == Relu::FromInput {
            let by_input = case.run(device, Relu::FromInput, false, aligned);
            let by_output = case.run(device, Relu::FromOutput, false, aligned);
            assert_bits(&by_input.dx, &by_output.dx, "the masks by input and output");
        }
    }
}

#[test]
fn backward_follows_the_definition() {
    let Some(device) = device_or_skip("backward_follows_the_definition") else { return };
    for shape in SHAPES {
        for images in IMAGES {
            compare_backward::<f32>(&device, images, shape, true);
            compare_backward::<bf16>(&device, images, shape, true);
        }
        compare_backward::<f32>(&device, IMAGES[1], shape, false);
        compare_backward::<bf16>(&device, IMAGES[1], shape, false);
    }
}

#[test]
fn batchnorm2d_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("batchnorm2d_refuses_what_it_cannot_do") else { return };
    let (images, extent) = (Images { bucket: 2, n: 2 }, Extent { pixels: 3, c: 4 });
    let (count, counts) = (images.count(&device), Vector::new(&device, &[2i32, 2]));
    let (x, short) = (Vector::new(&device, &[1.0f32; 24]), Vector::new(&device, &[1.0f32; 23]));
    let mut partials = Vector::new(&device, &[0.0; 8]);
    let batch = images.batch(&count);
    let error = cuda::statistics(&device, extent, batch, short.view(), partials.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "kernel batchnorm2d_statistics_f32: x has 23 elements, expected 24");
    let room = partials.view_mut().split_at_mut(7).0;
    let error = cuda::statistics(&device, extent, batch, x.view(), room).unwrap_err();
    assert_eq!(error.to_string(), "kernel batchnorm2d_statistics_f32: partials has 7 elements, expected 8");
    let batch = images.batch(&counts);
    let error = cuda::statistics(&device, extent, batch, x.view(), partials.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "kernel batchnorm2d_statistics_f32: count has 2 elements, expected 1");
    assert_eq!(partials.read(), [0.0; 8]);
}
