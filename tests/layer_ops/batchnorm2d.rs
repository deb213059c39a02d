use crate::check::{
    DIFFERENCES, ROUNDING, SUMS, Tolerance, assert_close, assert_same_on_any_thread_count, bits, dot,
    gradient, normal, wide,
};
use crate::reference;
use scadles::ops::batchnorm2d::{
    self, EPS, Epilogue, Extent, Gradients, MOMENTUM, Parameters, RunningStatistics, Saved, TrainStatistics,
};

/// Rows and channels: extent 1, primes, around the 256 columns handled at once, around the rows of a tile
/// (1,024 for 16 channels, 54 for 300), several tiles.
const SHAPES: [(usize, usize); 14] = [
    (1, 1),
    (2, 1),
    (7, 3),
    (5, 64),
    (97, 13),
    (1023, 16),
    (1024, 16),
    (1025, 16),
    (53, 300),
    (55, 300),
    (33, 255),
    (33, 257),
    (20, 2053),
    (4099, 5),
];

struct Layer {
    extent: Extent,
    x: Vec<f32>,
    shortcut: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    dy: Vec<f32>,
}

struct Trained {
    y: Vec<f32>,
    mean: Vec<f32>,
    inv_std: Vec<f32>,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
}

struct Grads {
    masked_dy: Vec<f32>,
    dx: Vec<f32>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

impl Layer {
    fn new(rows: usize, c: usize) -> Self {
        let gamma = normal(c, 3).iter().map(|gamma| 1.0 + 0.3 * gamma).collect();
        Self {
            extent: Extent { rows, c },
            x: normal(rows * c, 1).iter().map(|x| 2.0 * x + 0.5).collect(),
            shortcut: normal(rows * c, 2),
            gamma,
            beta: normal(c, 4),
            dy: normal(rows * c, 5),
        }
    }

    fn epilogue(&self, shortcut: bool, relu: bool) -> Epilogue<'_> {
        Epilogue { shortcut: shortcut.then_some(&self.shortcut[..]), relu }
    }

    fn parameters(&self) -> Parameters<'_> {
        Parameters { gamma: &self.gamma, beta: &self.beta }
    }

    fn scratch(&self) -> Vec<f32> {
        vec![f32::NAN; batchnorm2d::scratch_len(self.extent.rows, self.extent.c)]
    }

    fn train(&self, shortcut: bool, relu: bool) -> Trained {
        let Extent { rows, c } = self.extent;
        let mut trained = Trained {
            y: vec![f32::NAN; rows * c],
            mean: vec![7.0; c],
            inv_std: vec![7.0; c],
            running_mean: vec![0.25; c],
            running_var: vec![2.0; c],
        };
        let statistics = TrainStatistics {
            saved_mean: &mut trained.mean,
            saved_inv_std: &mut trained.inv_std,
            running_mean: &mut trained.running_mean,
            running_var: &mut trained.running_var,
        };
        let epilogue = self.epilogue(shortcut, relu);
        let parameters = self.parameters();
        batchnorm2d::forward_train(
            self.extent,
            &self.x,
            parameters,
            epilogue,
            &mut trained.y,
            statistics,
            &mut self.scratch(),
        );
        trained
    }

    fn backward(&self, trained: &Trained, relu: bool) -> Grads {
        let Extent { rows, c } = self.extent;
        let nan = |len| vec![f32::NAN; len];
        let mut grads =
            Grads { masked_dy: self.dy.clone(), dx: nan(rows * c), dgamma: nan(c), dbeta: nan(c) };
        let saved = Saved {
            x: &self.x,
            relu_y: relu.then_some(&trained.y),
            gamma: &self.gamma,
            mean: &trained.mean,
            inv_std: &trained.inv_std,
        };
        let gradients = Gradients { dx: &mut grads.dx, dgamma: &mut grads.dgamma, dbeta: &mut grads.dbeta };
        batchnorm2d::backward(self.extent, saved, &mut grads.masked_dy, gradients, &mut self.scratch());
        grads
    }

    /// The reference's training output.
    fn want(&self, x: &[f64], gamma: &[f64], beta: &[f64], shortcut: Option<&[f64]>, relu: bool) -> Vec<f64> {
        let (mean, var) = reference::statistics(self.extent.c, x);
        reference::normalize(x, (&mean, &var), (gamma, beta), shortcut, relu)
    }
}

#[test]
fn training_matches_the_reference() {
    for (rows, c) in SHAPES {
        for (shortcut, relu) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{rows} x {c}, shortcut {shortcut}, relu {relu}");
            let layer = Layer::new(rows, c);
            let got = layer.train(shortcut, relu);
            let (x, other) = (wide(&layer.x), wide(&layer.shortcut));
            let (mean, var) = reference::statistics(c, &x);
            let want =
                layer.want(&x, &wide(&layer.gamma), &wide(&layer.beta), shortcut.then_some(&other[..]), relu);
            // Rows of nearly equal values are divided by a small deviation, which enlarges their rounding.
            assert_close(&what, &got.y, &want, SUMS);
            assert_close(&what, &got.mean, &mean, ROUNDING);
            let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + f64::from(EPS)).sqrt()).collect();
            assert_close(&what, &got.inv_std, &inv_std, SUMS);
            let share = f64::from(MOMENTUM);
            let running_mean: Vec<f64> =
                mean.iter().map(|mean| (1.0 - share) * 0.25 + share * mean).collect();
            assert_close(&what, &got.running_mean, &running_mean, ROUNDING);
            let unbiased = rows as f64 / (rows - 1).max(1) as f64;
            let running_var: Vec<f64> =
                var.iter().map(|var| (1.0 - share) * 2.0 + share * var * unbiased).collect();
            assert_close(&what, &got.running_var, &running_var, SUMS);
        }
    }
}

#[test]
fn evaluation_matches_the_reference() {
    for (rows, c) in SHAPES {
        for (shortcut, relu) in [(false, false), (false, true), (true, false), (true, true)] {
            let layer = Layer::new(rows, c);
            let mean = normal(c, 8);
            let var: Vec<f32> = normal(c, 9).iter().map(|v| 0.1 + v * v).collect();
            let mut y = vec![f32::NAN; rows * c];
            let running = RunningStatistics { mean: &mean, var: &var };
            let epilogue = layer.epilogue(shortcut, relu);
            batchnorm2d::forward_eval(layer.extent, &layer.x, layer.parameters(), running, epilogue, &mut y);
            let other = wide(&layer.shortcut);
            let want = reference::normalize(
                &wide(&layer.x),
                (&wide(&mean), &wide(&var)),
                (&wide(&layer.gamma), &wide(&layer.beta)),
                shortcut.then_some(&other[..]),
                relu,
            );
            assert_close(&format!("{rows} x {c}, shortcut {shortcut}, relu {relu}"), &y, &want, SUMS);
        }
    }
}

#[test]
fn backward_matches_finite_differences() {
    for (rows, c) in [(2, 1), (7, 3), (5, 64), (97, 2), (29, 13)] {
        for relu in [false, true] {
            let what = format!("{rows} x {c}, relu {relu}");
            let layer = Layer::new(rows, c);
            let got = layer.backward(&layer.train(true, relu), relu);
            let (x, gamma, beta) = (wide(&layer.x), wide(&layer.gamma), wide(&layer.beta));
            let shortcut = wide(&layer.shortcut);
            let loss = |x: &[f64], gamma: &[f64], beta: &[f64], shortcut: &[f64]| {
                dot(&layer.want(x, gamma, beta, Some(shortcut), relu), &layer.dy)
            };
            let dx = gradient(&layer.x, |x| loss(x, &gamma, &beta, &shortcut));
            assert_close(&format!("dx {what}"), &got.dx, &dx, DIFFERENCES);
            let dgamma = gradient(&layer.gamma, |gamma| loss(&x, gamma, &beta, &shortcut));
            assert_close(&format!("dgamma {what}"), &got.dgamma, &dgamma, DIFFERENCES);
            let dbeta = gradient(&layer.beta, |beta| loss(&x, &gamma, beta, &shortcut));
            assert_close(&format!("dbeta {what}"), &got.dbeta, &dbeta, DIFFERENCES);
            let dshortcut = gradient(&layer.shortcut, |shortcut| loss(&x, &gamma, &beta, shortcut));
            assert_close(&format!("dshortcut {what}"), &got.masked_dy, &dshortcut, DIFFERENCES);
        }
    }
}

/// The closed form of the gradient in f64, at the shapes that are too large for finite differences.
#[test]
fn backward_matches_the_closed_form() {
    for (rows, c) in SHAPES {
        for relu in [false, true] {
            let what = format!("{rows} x {c}, relu {relu}");
            let layer = Layer::new(rows, c);
            let trained = layer.train(true, relu);
            let got = layer.backward(&trained, relu);
            let x = wide(&layer.x);
            let (mean, var) = reference::statistics(c, &x);
            let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + f64::from(EPS)).sqrt()).collect();
            let dy: Vec<f64> = layer
                .dy
                .iter()
                .zip(&trained.y)
                .map(|(dy, y)| if relu && *y <= 0.0 { 0.0 } else { f64::from(*dy) })
                .collect();
            let normal = |i: usize| (x[i] - mean[i % c]) * inv_std[i % c];
            let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
            for (i, dy) in dy.iter().enumerate() {
                dgamma[i % c] += dy * normal(i);
                dbeta[i % c] += dy;
            }
            let n = rows as f64;
            let dx: Vec<f64> = (0..x.len())
                .map(|i| {
                    let k = i % c;
                    let scale = f64::from(layer.gamma[k]) * inv_std[k];
                    scale * (dy[i] - dbeta[k] / n - normal(i) * dgamma[k] / n)
                })
                .collect();
            // Sums of up to 4,099 random signs: about 64 in size, rounded relative to that.
            let sums = Tolerance { atol: 2e-4, ..SUMS };
            assert_close(&format!("dgamma {what}"), &got.dgamma, &dgamma, sums);
            assert_close(&format!("dbeta {what}"), &got.dbeta, &dbeta, sums);
            // One row has deviation 0: inv_std is 1 / sqrt(EPS) = 316 and enlarges all errors.
            let dx_tolerance = if rows == 1 { Tolerance { atol: 1e-4, rtol: 1e-4 } } else { SUMS };
            assert_close(&format!("dx {what}"), &got.dx, &dx, dx_tolerance);
            assert_close(&format!("masked dy {what}"), &got.masked_dy, &dy, ROUNDING);
        }
    }
}

/// Mean 1000, deviation 1: the statistics keep the digits that a sum of squares would lose.
#[test]
fn a_large_mean_costs_no_precision() {
    for (rows, c) in [(4099, 5), (65_536, 16), (1031, 300)] {
        let mut layer = Layer::new(rows, c);
        layer.x = normal(rows * c, 11).iter().map(|x| 1000.0 + x).collect();
        let got = layer.train(false, false);
        let (mean, var) = reference::statistics(c, &wide(&layer.x));
        let relative = |tolerance| Tolerance { atol: 0.0, rtol: tolerance };
        // Half a unit in the last place of 1000 is 3e-8 of it.
        assert_close("mean", &got.mean, &mean, relative(7e-8));
        let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + f64::from(EPS)).sqrt()).collect();
        assert_close("inv_std", &got.inv_std, &inv_std, relative(1e-6));
    }
}

/// A tile's pivot is the mean of its first rows: one wild value among them must not spoil the variance.
#[test]
fn an_outlier_in_the_first_row_costs_no_precision() {
    let (rows, c) = (3000, 16);
    let mut layer = Layer::new(rows, c);
    layer.x[..c].fill(1e6);
    let got = layer.train(false, false);
    let (_, var) = reference::statistics(c, &wide(&layer.x));
    let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + f64::from(EPS)).sqrt()).collect();
    assert_close("inv_std", &got.inv_std, &inv_std, Tolerance { atol: 0.0, rtol: 1e-5 });
}

#[test]
fn a_constant_channel_has_variance_zero() {
    let mut layer = Layer::new(777, 3);
    layer.x.fill(0.1);
    let got = layer.train(false, false);
    let inv_std = 1.0 / f64::from(EPS).sqrt();
    assert_close("inv_std", &got.inv_std, &[inv_std; 3], ROUNDING);
    assert_close("running_var", &got.running_var, &[1.8; 3], ROUNDING);
}

#[test]
fn no_rows_change_no_statistics_and_give_zero_gradients() {
    let layer = Layer::new(0, 8);
    let trained = layer.train(true, true);
    assert_eq!(trained.running_mean, [0.25; 8]);
    assert_eq!(trained.running_var, [2.0; 8]);
    let grads = layer.backward(&trained, true);
    assert_eq!((grads.dgamma, grads.dbeta), (vec![0.0; 8], vec![0.0; 8]));
}

#[test]
fn nan_reaches_output_and_statistics() {
    let mut layer = Layer::new(50, 3);
    layer.x[31] = f32::NAN; // channel 1
    let got = layer.train(true, true);
    for (i, y) in got.y.iter().enumerate() {
        assert_eq!(y.is_nan(), i % 3 == 1, "element {i} is {y}");
    }
    assert!(got.running_mean[1].is_nan() && got.running_var[1].is_nan() && got.running_var[0].is_finite());
    let grads = layer.backward(&got, true);
    assert!(grads.dx[1].is_nan() && grads.dx[0].is_finite());
}

#[test]
fn threads_do_not_change_results() {
    let layer = Layer::new(20_011, 16);
    assert_same_on_any_thread_count(|| {
        let trained = layer.train(true, true);
        let grads = layer.backward(&trained, true);
        [trained.y, trained.mean, trained.inv_std, trained.running_var, grads.dx, grads.dgamma, grads.dbeta]
            .map(|values| bits(&values))
    });
}

#[test]
#[should_panic(expected = "batchnorm2d forward_eval: x is not [2, 3]")]
fn a_wrong_length_panics_with_its_name() {
    let vector = [1.0; 3];
    let running = RunningStatistics { mean: &vector, var: &vector };
    let parameters = Parameters { gamma: &vector, beta: &vector };
    let epilogue = Epilogue { shortcut: None, relu: false };
    batchnorm2d::forward_eval(
        Extent { rows: 2, c: 3 },
        &[0.0; 5],
        parameters,
        running,
        epilogue,
        &mut [0.0; 6],
    );
}
