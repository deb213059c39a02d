//! `kernels/sgd.cu` against [`scadles::optim::Sgd`].

use crate::support::{LENGTHS, Vector, assert_same_bits, device_or_skip, edges, normal};
use scadles::device::cuda::{CudaDevice, DeviceMomentum, SgdStep};
use scadles::optim::Sgd;
use scadles::train::config::OptimizerConfig;

/// Four steps on both; the learning rate changes, and is 0 once.
fn compare(device: &CudaDevice, config: &OptimizerConfig, params: &[f32], grad: impl Fn(u64) -> Vec<f32>) {
    let mut sgd = Sgd::new(config, params.len()).unwrap();
    let mut expected = params.to_vec();
    let mut params = Vector::new(device, params);
    let mut velocity = Vector::new(device, &vec![0.0; expected.len()]);
    let (momentum, weight_decay) = (config.momentum as f32, config.weight_decay as f32);
    for (step, lr) in [0.1, 0.05, 0.0, 0.3].into_iter().enumerate() {
        let grad = grad(step as u64);
        sgd.step(&mut expected, &grad, lr).unwrap();
        let grad = Vector::new(device, &grad);
        let momentum = match (config.momentum > 0.0, config.nesterov) {
            (false, _) => DeviceMomentum::Plain,
            (true, false) => DeviceMomentum::Classic(velocity.view_mut(), momentum),
            (true, true) => DeviceMomentum::Nesterov(velocity.view_mut(), momentum),
        };
        let numbers = SgdStep { lr: lr as f32, weight_decay };
        device.sgd(params.view_mut(), grad.view(), momentum, numbers).unwrap();
    }
    let what = format!("{} elements, {config:?}", expected.len());
    assert_same_bits(&params.read(), &expected, &what);
    if config.momentum > 0.0 {
        assert_same_bits(&velocity.read(), sgd.velocity(), &format!("velocity of {what}"));
    }
}

#[test]
fn sgd_has_the_bits_of_the_cpu() {
    let Some(device) = device_or_skip("sgd_has_the_bits_of_the_cpu") else { return };
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        for weight_decay in [0.0, 5e-4] {
            let config = OptimizerConfig { momentum, weight_decay, nesterov, ..OptimizerConfig::default() };
            for len in LENGTHS {
                compare(&device, &config, &normal(len, 100), |step| normal(len, step));
            }
            compare(&device, &config, &edges(0), |_| edges(1));
        }
    }
}

#[test]
fn a_guarded_step_is_taken_only_with_a_finite_norm() {
    let Some(device) = device_or_skip("a_guarded_step_is_taken_only_with_a_finite_norm") else { return };
    let start = [1, 2, 3].map(|key| normal(1003, key));
    let step = SgdStep { lr: 0.1, weight_decay: 5e-4 };
    let run = |nesterov: Option<bool>, squared_norm: Option<f64>| {
        let [mut params, mut velocity, grad] = start.each_ref().map(|values| Vector::new(&device, values));
        let momentum = match nesterov {
            None => DeviceMomentum::Plain,
            Some(false) => DeviceMomentum::Classic(velocity.view_mut(), 0.9),
            Some(true) => DeviceMomentum::Nesterov(velocity.view_mut(), 0.9),
        };
        match squared_norm {
            None => device.sgd(params.view_mut(), grad.view(), momentum, step).unwrap(),
            Some(norm) => {
                let norm = Vector::new(&device, &[norm]);
                device.sgd_guarded(params.view_mut(), grad.view(), momentum, step, norm.view()).unwrap();
            }
        }
        (params.read(), velocity.read())
    };
    for nesterov in [None, Some(false), Some(true)] {
        let (params, velocity) = run(nesterov, None);
        assert!(params != start[0] && (velocity == start[1]) == nesterov.is_none());
        for finite in [0.0, 1.0, f64::MAX] {
            let found = run(nesterov, Some(finite));
            assert_same_bits(&found.0, &params, "params");
            assert_same_bits(&found.1, &velocity, "velocity");
        }
        for broken in [f64::INFINITY, f64::NAN, f64::NEG_INFINITY] {
            let found = run(nesterov, Some(broken));
            assert_same_bits(&found.0, &start[0], "params");
            assert_same_bits(&found.1, &start[1], "velocity");
        }
    }
    let (mut params, two) = (Vector::new(&device, &[1.0]), Vector::new(&device, &[1.0f64; 2]));
    let grad = Vector::new(&device, &[1.0]);
    let plain = DeviceMomentum::Plain;
    let error = device.sgd_guarded(params.view_mut(), grad.view(), plain, step, two.view()).unwrap_err();
    assert_eq!(error.to_string(), "kernel sgd_f32: squared_norm has 2 elements, expected 1");
}

#[test]
fn sgd_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("sgd_refuses_what_it_cannot_do") else { return };
    let (mut params, grad) = (Vector::new(&device, &[1.0; 5]), Vector::new(&device, &[1.0; 5]));
    let mut short = Vector::new(&device, &[1.0; 4]);
    let good = SgdStep { lr: 0.1, weight_decay: 0.0 };

    let error = device.sgd(params.view_mut(), short.view(), DeviceMomentum::Plain, good).unwrap_err();
    assert_eq!(error.to_string(), "kernel sgd_f32: grad has 4 elements, expected 5");
    let momentum = DeviceMomentum::Nesterov(short.view_mut(), 0.9);
    let error = device.sgd(params.view_mut(), grad.view(), momentum, good).unwrap_err();
    assert_eq!(error.to_string(), "kernel sgd_nesterov_f32: velocity has 4 elements, expected 5");
    for lr in [-0.1, f32::NAN, f32::INFINITY] {
        let step = SgdStep { lr, ..good };
        assert!(device.sgd(params.view_mut(), grad.view(), DeviceMomentum::Plain, step).is_err());
    }
    for weight_decay in [-0.1, f32::NAN] {
        let step = SgdStep { weight_decay, ..good };
        assert!(device.sgd(params.view_mut(), grad.view(), DeviceMomentum::Plain, step).is_err());
    }
    let mut velocity = Vector::new(&device, &[1.0; 5]);
    for factor in [1.0, -0.1, f32::NAN] {
        let momentum = DeviceMomentum::Classic(velocity.view_mut(), factor);
        assert!(device.sgd(params.view_mut(), grad.view(), momentum, good).is_err());
    }
    assert_eq!((params.read(), velocity.read()), (vec![1.0; 5], vec![1.0; 5]));
}
