//! Optimizers against PyTorch's numbers and f64 references.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one layer is meant")]

use scadles::optim::{Lars, LarsLayer, OptimError, Optimizer, Sgd};
use scadles::rng::{Philox, Stream};
use scadles::train::config::{OptimizerConfig, OptimizerKind};

fn config(momentum: f64, weight_decay: f64, nesterov: bool) -> OptimizerConfig {
    OptimizerConfig { momentum, weight_decay, nesterov, ..OptimizerConfig::default() }
}

fn normal(numel: usize, seed: u64) -> Vec<f32> {
    let mut rng = Philox::new(seed, Stream::Init, 0);
    (0..numel).map(|_| rng.normal() as f32).collect()
}

/// Fails on NaN and on any element further than `atol + rtol * |expected|`.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], rtol: f64, atol: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (found, allowed) = (f64::from(found), atol + rtol * expected.abs());
        let share = (found - expected).abs() / allowed;
        assert!(share <= 1.0, "{what}[{i}]: found {found}, expected {expected}, {share} of the tolerance");
    }
}

/// ```python
/// import torch
/// w = torch.tensor([1.0, -2.0, 0.5, 3.0], requires_grad=True)
/// opt = torch.optim.SGD([w], lr=0.1, momentum=..., weight_decay=..., nesterov=...)
/// for t in range(3):
///     w.grad = torch.tensor([0.5, -0.25, 1.0, 2.0]) * (t + 1)
///     opt.step()
/// print([f"{float(x):.9g}" for x in w])    # torch 2.11.0
/// ```
#[test]
fn sgd_equals_pytorch() {
    let cases = [
        (config(0.0, 0.0, false), [0.699999988, -1.85000002, -0.100000001, 1.79999983]),
        (config(0.0, 0.01, false), [0.697202981, -1.84410608, -0.101098597, 1.79180872]),
        (config(0.9, 0.0, false), [0.524500012, -1.76225007, -0.451000035, 1.09799993]),
        (config(0.9, 5e-4, false), [0.524233997, -1.76169634, -0.451111257, 1.09721649]),
        (config(0.9, 5e-4, true), [0.271691382, -1.6352421, -0.95601362, 0.0871679783]),
    ];
    for (config, expected) in cases {
        let mut sgd = Sgd::new(&config, 4).unwrap();
        let mut w = [1.0, -2.0, 0.5, 3.0];
        for step in 1..=3 {
            sgd.step(&mut w, &[0.5, -0.25, 1.0, 2.0].map(|g: f32| g * step as f32), 0.1).unwrap();
        }
        // PyTorch fuses multiply and add here and there: a few units in the last place over three steps.
        assert_close(&w, &expected, 4e-7, 4e-7, &format!("{config:?}"));
    }
}

#[test]
fn sgd_follows_an_f64_reference_over_tiles() {
    let numel = 40_001;
    for config in [config(0.0, 1e-3, false), config(0.9, 1e-3, false), config(0.9, 1e-3, true)] {
        let mut sgd = Sgd::new(&config, numel).unwrap();
        let mut w = normal(numel, 1);
        let mut exact: Vec<f64> = w.iter().map(|&x| x.into()).collect();
        let mut velocity = vec![0.0; numel];
        for step in 0..5 {
            let (grad, lr) = (normal(numel, 2 + step), 0.05 * (step + 1) as f64);
            sgd.step(&mut w, &grad, lr).unwrap();
            for i in 0..numel {
                let d = f64::from(grad[i]) + config.weight_decay * exact[i];
                velocity[i] = config.momentum * velocity[i] + d;
                let change = if config.nesterov { d + config.momentum * velocity[i] } else { velocity[i] };
                exact[i] -= lr * change;
            }
        }
        // Five steps of about four roundings each, at magnitudes up to ten.
        assert_close(&w, &exact, 1e-6, 5e-6, "parameters");
        if config.momentum > 0.0 {
            assert_close(sgd.velocity(), &velocity, 1e-6, 5e-6, "velocity");
        }
    }
}

fn layers() -> Vec<LarsLayer> {
    let ranges = [(0..30_000, true), (30_000..30_064, false), (30_064..35_000, true), (35_000..35_010, true)];
    ranges.into_iter().map(|(range, adapt)| LarsLayer { range, adapt }).collect()
}

#[test]
fn lars_follows_an_f64_reference_per_layer() {
    let numel = 35_010;
    let config = OptimizerConfig { trust: 0.02, ..config(0.9, 1e-2, false) };
    let mut lars = Lars::new(&config, numel, layers()).unwrap();
    let mut w = normal(numel, 1);
    w[35_000..].fill(0.0); // a layer without a norm takes the global rate
    let mut exact: Vec<f64> = w.iter().map(|&x| x.into()).collect();
    let mut velocity = vec![0.0; numel];
    for step in 0..4 {
        let (grad, lr) = (normal(numel, 9 + step), 0.5);
        lars.step(&mut w, &grad, lr).unwrap();
        for LarsLayer { range, adapt } in layers() {
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let w_norm = norm(&mut exact[range.clone()].iter().copied());
            let g_norm = norm(&mut grad[range.clone()].iter().map(|&g| g.into()));
            let decay = if adapt { config.weight_decay } else { 0.0 };
            let local = if adapt && w_norm > 0.0 { 0.02 * w_norm / (g_norm + decay * w_norm) } else { 1.0 };
            for i in range {
                velocity[i] = 0.9 * velocity[i] + lr * local * (f64::from(grad[i]) + decay * exact[i]);
                exact[i] -= velocity[i];
            }
        }
    }
    assert_close(&w, &exact, 1e-6, 5e-6, "parameters");
    assert_close(lars.velocity(), &velocity, 1e-5, 5e-6, "velocity");
}

#[test]
fn results_do_not_depend_on_threads_and_resume_from_velocity() {
    let numel = 35_010;
    for kind in [OptimizerKind::Sgd, OptimizerKind::Lars] {
        let config = OptimizerConfig { kind, ..config(0.9, 1e-3, false) };
        let run = |threads: usize, resume: bool| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut optimizer = Optimizer::new(&config, numel, layers()).unwrap();
                let mut w = normal(numel, 1);
                for step in 0..4 {
                    if resume && step == 2 {
                        let mut other = Optimizer::new(&config, numel, layers()).unwrap();
                        other.load_velocity(optimizer.velocity()).unwrap();
                        optimizer = other;
                    }
                    optimizer.step(&mut w, &normal(numel, 2 + step), 0.1).unwrap();
                }
                w.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
            })
        };
        let one = run(1, false);
        assert!(run(4, false) == one && run(2, true) == one, "{kind:?}");
    }
}

#[test]
fn a_zero_rate_moves_no_parameter() {
    let mut sgd = Sgd::new(&config(0.9, 1e-3, false), 3).unwrap();
    let mut w = [1.0, 2.0, 3.0];
    sgd.step(&mut w, &[1.0; 3], 0.0).unwrap();
    assert_eq!(w, [1.0, 2.0, 3.0]);
}

#[test]
fn bad_input_is_refused_before_anything_changes() {
    for (momentum, weight_decay, nesterov) in [(1.0, 0.0, false), (0.9, -1.0, false), (0.0, 0.0, true)] {
        assert!(Sgd::new(&config(momentum, weight_decay, nesterov), 3).is_err());
    }
    let mut sgd = Sgd::new(&config(0.9, 0.0, false), 3).unwrap();
    let mut w = [1.0; 3];
    for lr in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(sgd.step(&mut w, &[1.0; 3], lr), Err(OptimError::OutOfRange { what: "lr", .. })));
    }
    assert!(matches!(sgd.step(&mut w, &[1.0; 2], 0.1), Err(OptimError::Length { what: "gradient", .. })));
    assert!(matches!(
        sgd.step(&mut w[..2], &[1.0; 3], 0.1),
        Err(OptimError::Length { what: "parameters", .. })
    ));
    assert!(sgd.load_velocity(&[0.0; 2]).is_err());
    assert_eq!((w, sgd.velocity()), ([1.0; 3], &[0.0; 3][..]));

    let lars = |config: &OptimizerConfig, ranges: &[std::ops::Range<usize>]| {
        let layers = ranges.iter().map(|range| LarsLayer { range: range.clone(), adapt: true }).collect();
        Lars::new(config, 10, layers)
    };
    let good = config(0.9, 0.0, false);
    assert!(lars(&good, &[0..4, 4..10]).is_ok());
    for ranges in [&[0..4, 5..10][..], &[0..4, 3..10], &[0..4, 4..9], &[]] {
        assert!(lars(&good, ranges).is_err(), "{ranges:?}");
    }
    assert!(lars(&OptimizerConfig { nesterov: true, ..good.clone() }, &[0..10]).is_err());
    assert!(lars(&OptimizerConfig { trust: 0.0, ..good }, &[0..10]).is_err());
}
