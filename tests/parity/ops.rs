//! Single operations, forward and backward. All sums here have at most a few hundred terms of about equal size, so f32
//! keeps 1e-6 of the largest element; the tolerance is 4e-6.

use super::close;
use super::formula::{channels_last, labels, uniform};
use safetensors::SafeTensors;
use scadles::ops::batchnorm2d::{self, Epilogue, Extent, Gradients, Parameters, Saved};
use scadles::ops::pool2d::{self, AdaptiveAvgShape, Pool2dShape};
use scadles::ops::{conv2d, linear, relu, softmax_xent};
use scadles::shape::Conv2dShape;
use std::sync::LazyLock;

const TOLERANCE: f64 = 4e-6;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read("tests/fixtures/ops.safetensors").unwrap());

/// PyTorch's result, planar.
fn planar(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(&BYTES).unwrap();
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// One operation's tensors: inputs from the formula, results from the file, both channels last.
struct Case(&'static str);

impl Case {
    fn input(&self, name: &str, n: usize, c: usize, pixels: usize) -> Vec<f32> {
        channels_last(&uniform(&format!("{}.{name}", self.0), n * c * pixels), c, pixels)
    }

    fn check(&self, name: &str, got: &[f32], c: usize, pixels: usize) {
        let name = format!("{}.{name}", self.0);
        close(&name, got, &channels_last(&planar(&name), c, pixels), TOLERANCE);
    }
}

fn check_conv(case: Case, shape: Conv2dShape, n: usize, relu: bool) {
    let (taps, pixels, outputs) = (shape.r * shape.s, shape.h * shape.w, shape.p() * shape.q());
    let x = case.input("x", n, shape.c, pixels);
    let filter = case.input("filter", shape.k, shape.c, taps);
    let bias = case.input("bias", 1, shape.k, 1);
    let mut dy = case.input("dy", n, shape.k, outputs);
    let [mut y, mut dx, mut dfilter, mut dbias] =
        [n * shape.y_len(), x.len(), filter.len(), shape.k].map(|len| vec![f32::NAN; len]);
    let mut packed = vec![0.0; conv2d::packed_fprop_len(&shape)];
    conv2d::pack_fprop(&shape, &filter, &mut packed);
    conv2d::fprop(&shape, n, &x, &packed, Some(&bias), relu, &mut y);
    case.check("y", &y, shape.k, outputs);
    if relu {
        relu::backward_inplace(&y, &mut dy);
    }
    packed.resize(conv2d::packed_dgrad_len(&shape), 0.0);
    conv2d::pack_dgrad(&shape, &filter, &mut packed);
    conv2d::dgrad(&shape, n, &dy, &packed, &mut dx);
    case.check("dx", &dx, shape.c, pixels);
    let rows = n * outputs;
    let scratch_len = conv2d::wgrad_scratch_len(&shape, n).max(linear::bias_scratch_len(rows, shape.k));
    let mut scratch = vec![f32::NAN; scratch_len];
    conv2d::wgrad(&shape, n, &x, &dy, &mut dfilter, &mut scratch);
    case.check("dfilter", &dfilter, shape.c, taps);
    linear::bias_backward(rows, shape.k, &dy, &mut dbias, &mut scratch);
    case.check("dbias", &dbias, shape.k, 1);
}

#[test]
fn convolutions() {
    // n, c, h, w, k, r, stride, pad, dilation: the list of scripts/make_fixtures.py.
    let cases = [
        ("conv0", [2, 3, 9, 7, 8, 3, 1, 1, 1]),
        ("conv1", [2, 3, 16, 13, 5, 7, 2, 3, 1]),
        ("conv2", [3, 16, 6, 6, 24, 1, 1, 0, 1]),
        ("conv3", [2, 8, 7, 5, 16, 1, 2, 0, 1]),
        ("conv4", [1, 17, 5, 5, 19, 3, 2, 1, 1]),
        ("conv5", [2, 4, 9, 9, 6, 3, 1, 2, 2]),
        ("conv6", [2, 6, 8, 8, 4, 3, 2, 2, 2]),
        ("conv7", [3, 2, 1, 1, 3, 3, 1, 1, 1]),
    ];
    for (op, [n, c, h, w, k, r, stride, pad, dilation]) in cases {
        check_conv(Case(op), Conv2dShape { c, h, w, k, r, s: r, stride, pad, dilation }, n, true);
    }
}

#[test]
fn linear_layer() {
    check_conv(Case("linear"), linear::shape(37, 11), 5, false);
}

#[test]
fn batch_norm() {
    for (op, [n, c, h, w], relu, add) in [
        ("bn0", [4, 5, 3, 6], false, false),
        ("bn1", [3, 16, 4, 4], true, false),
        ("bn2", [2, 33, 5, 3], true, true),
    ] {
        let (case, pixels) = (Case(op), h * w);
        let extent = Extent { rows: n * pixels, c };
        let x = case.input("x", n, c, pixels);
        let shortcut = case.input("shortcut", n, c, pixels);
        let [gamma, beta] = ["gamma", "beta"].map(|name| case.input(name, 1, c, 1));
        let mut dy = case.input("dy", n, c, pixels);
        let [mut y, mut dx] = [vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]];
        let [mut mean, mut inv_std, mut running_mean, mut dgamma, mut dbeta] = [(); 5].map(|()| vec![0.0; c]);
        let mut running_var = vec![1.0; c];
        let mut scratch = vec![f32::NAN; batchnorm2d::scratch_len(extent.rows, c)];
        let parameters = Parameters { gamma: &gamma, beta: &beta };
        let epilogue = Epilogue { shortcut: add.then_some(&shortcut[..]), relu };
        let statistics = batchnorm2d::TrainStatistics {
            saved_mean: &mut mean,
            saved_inv_std: &mut inv_std,
            running_mean: &mut running_mean,
            running_var: &mut running_var,
        };
        batchnorm2d::forward_train(extent, &x, parameters, epilogue, &mut y, statistics, &mut scratch);
        case.check("y", &y, c, pixels);
        case.check("running_mean", &running_mean, c, 1);
        case.check("running_var", &running_var, c, 1);
        let relu_y = relu.then_some(&y[..]);
        let saved = Saved { x: &x, relu_y, gamma: &gamma, mean: &mean, inv_std: &inv_std };
        let gradients = Gradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta };
        batchnorm2d::backward(extent, saved, &mut dy, gradients, &mut scratch);
        case.check("dx", &dx, c, pixels);
        case.check("dgamma", &dgamma, c, 1);
        case.check("dbeta", &dbeta, c, 1);
        if add {
            case.check("dshortcut", &dy, c, pixels);
        }
        let running = batchnorm2d::RunningStatistics { mean: &running_mean, var: &running_var };
        batchnorm2d::forward_eval(extent, &x, parameters, running, epilogue, &mut y);
        case.check("eval", &y, c, pixels);
    }
}

#[test]
fn pooling() {
    for (op, n, shape) in [
        ("max0", 2, Pool2dShape { c: 5, h: 9, w: 6, window: 3, stride: 2, pad: 1 }),
        ("max1", 2, Pool2dShape { c: 8, h: 7, w: 8, window: 2, stride: 2, pad: 0 }),
    ] {
        let (case, pixels, outputs) = (Case(op), shape.h * shape.w, shape.p() * shape.q());
        let x = case.input("x", n, shape.c, pixels);
        let dy = case.input("dy", n, shape.c, outputs);
        let [mut y, mut dx] = [vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]];
        let mut argmax = vec![0; dy.len()];
        pool2d::max_forward(&shape, n, &x, &mut y, &mut argmax);
        case.check("y", &y, shape.c, outputs);
        pool2d::max_backward(&shape, n, &dy, &argmax, &mut dx);
        case.check("dx", &dx, shape.c, pixels);
    }
    for (op, n, shape) in [
        ("avg0", 2, AdaptiveAvgShape { c: 6, h: 5, w: 4, out_h: 7, out_w: 7 }),
        ("avg1", 3, AdaptiveAvgShape { c: 9, h: 4, w: 6, out_h: 1, out_w: 1 }),
        ("avg2", 1, AdaptiveAvgShape { c: 3, h: 15, w: 10, out_h: 7, out_w: 7 }),
    ] {
        let (case, pixels, outputs) = (Case(op), shape.h * shape.w, shape.out_h * shape.out_w);
        let x = case.input("x", n, shape.c, pixels);
        let dy = case.input("dy", n, shape.c, outputs);
        let [mut y, mut dx] = [vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]];
        pool2d::adaptive_avg_forward(&shape, n, &x, &mut y);
        case.check("y", &y, shape.c, outputs);
        pool2d::adaptive_avg_backward(&shape, n, &dy, &mut dx);
        case.check("dx", &dx, shape.c, pixels);
    }
}

#[test]
fn softmax_cross_entropy() {
    let logits: Vec<f32> = uniform("xent.x", 72).iter().map(|x| x * 4.0).collect();
    let mut dlogits = vec![f32::NAN; 72];
    let labels = labels("xent.label", 6, 12);
    let stats = softmax_xent::forward_backward(6, 12, &logits, &labels, &mut dlogits).unwrap();
    close("xent.loss", &[(stats.loss_sum / 6.0) as f32], &planar("xent.loss"), TOLERANCE);
    close("xent.dx", &dlogits, &planar("xent.dx"), TOLERANCE);
}
