//! Gradients of whole networks against central differences of the loss along random directions.

use super::Net;
use scadles::models::Stem;
use scadles::nn::{DropoutSeed, ParamKind};
use scadles::rng::{Philox, Stream};

/// For each tensor: `(L(p + h d) - L(p - h d)) / 2h` against `grad . d` for a random direction `d` of unit length.
///
/// The step changes the loss by up to 6e-4, which f32 resolves to about 1e-6. A larger step would cross more kinks of
/// ReLU and pooling, each of which changes the slope. Both errors stay below 4 percent of the gradient's norm here; the
/// bound is 10 percent, and a missing term, factor or mask is off by more.
fn check(mut net: Net, n: usize) {
    move_betas_from_zero(&mut net);
    let (x, labels) = net.batch(21, n);
    let dropout = DropoutSeed { seed: 1, index: 7 };
    net.step(&(x.clone(), labels.clone()));
    for (index, entry) in net.plan.params().to_vec().iter().enumerate() {
        let grad = &net.grad[entry.range.clone()];
        let mut rng = Philox::new(5, Stream::Images, 1000 + index as u64);
        // Half along the gradient, so that the difference is not lost in rounding; half random.
        let norm = |v: &[f64]| v.iter().map(|d| d * d).sum::<f64>().sqrt();
        let random: Vec<f64> = grad.iter().map(|_| rng.normal()).collect();
        let along: Vec<f64> = grad.iter().map(|&g| f64::from(g)).collect();
        let (random_norm, grad_norm) = (norm(&random), norm(&along));
        if entry.kind == ParamKind::Bias && grad_norm < 1e-3 {
            continue; // the bias before a batch norm
        }
        assert!(grad_norm >= 1e-3, "{}: gradient of norm {grad_norm}", entry.name);
        let d: Vec<f64> =
            along.iter().zip(&random).map(|(g, r)| 0.7 * g / grad_norm + 0.7 * r / random_norm).collect();
        let slope: f64 = along.iter().zip(&d).map(|(g, d)| g * d).sum();
        let tensor: Vec<f64> = net.params[entry.range.clone()].iter().map(|&p| f64::from(p)).collect();
        let h = (3e-4 / slope).min(4e-3);
        let mut loss = |step: f64| {
            let mut params = net.params.clone();
            for ((p, t), d) in params[entry.range.clone()].iter_mut().zip(&tensor).zip(&d) {
                *p = (t + step * d) as f32;
            }
            net.executor.load_params(&params).unwrap();
            let (mut stats, mut grad) = (net.stats.clone(), vec![0.0; params.len()]);
            let loss = net.executor.forward_backward(&x, &labels, &params, &mut stats, &mut grad, dropout);
            loss.unwrap().loss_sum / n as f64
        };
        let quotient = (loss(h) - loss(-h)) / (2.0 * h);
        let error = (quotient - slope).abs() / grad_norm;
        assert!(
            error <= 0.1,
            "{}: slope {slope}, differences {quotient}, {error:.4} of the norm",
            entry.name
        );
    }
}

/// Offsets of batch norms to +-2: their ReLU then cuts mostly whole channels, and few values are near its kink.
fn move_betas_from_zero(net: &mut Net) {
    for entry in net.plan.params().iter().filter(|entry| entry.kind == ParamKind::Beta) {
        for (i, beta) in net.params[entry.range.clone()].iter_mut().enumerate() {
            *beta = if i % 3 == 1 { -2.0 } else { 2.0 };
        }
    }
    net.executor.load_params(&net.params).unwrap();
}

#[test]
fn option_a_network() {
    check(Net::new("resnet20", Stem::Cifar, 0.5, [9, 8, 3], 6), 6);
}

#[test]
fn bottleneck_network_with_projections_and_pooling() {
    check(Net::new("resnet50", Stem::Imagenet, 0.1, [48, 32, 3], 8), 8);
}

#[test]
fn vgg_with_dropout() {
    check(Net::new("vgg11", Stem::Imagenet, 0.25, [32, 32, 3], 8), 8);
}

#[test]
fn vgg_with_batch_norm() {
    check(Net::new("vgg11_bn", Stem::Cifar, 0.25, [32, 32, 3], 8), 8);
}
