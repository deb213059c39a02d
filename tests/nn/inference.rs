//! [`scadles::nn::Inference`] against the executor with the same parameters and statistics.

use super::Net;
use scadles::models::Stem;
use scadles::nn::{Builder, Inference, Init, NnError, Window};
use scadles::ops::input::ImageShape;
use std::sync::Arc;

/// Parameters and statistics as after some training: every batch norm scales and shifts.
fn trained(net: &mut Net) {
    for step in 0..3 {
        let batch = net.batch(step, 6);
        net.step(&batch);
        let Net { params, grad, .. } = net;
        params.iter_mut().zip(grad).for_each(|(x, g)| *x -= 0.05 * *g);
    }
    net.executor.load_params(&net.params).unwrap();
}

fn compare(net: &mut Net, what: &str) {
    let mut network = Inference::<f32>::new(Arc::clone(&net.plan), &net.params, &net.stats).unwrap();
    for n in [7, 1, 3] {
        let (x, _) = net.batch(40 + n as u64, n);
        let [mut expected, mut found] = [vec![0.0; 5 * n], vec![0.0; 5 * n]];
        net.executor.logits(&x, n, &net.params, &net.stats, &mut expected).unwrap();
        network.logits(&x, n, &mut found).unwrap();
        let size = expected.iter().fold(0.0f32, |size, logit| size.max(logit.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            // Rounding of folded filters and, in another order, of sums.
            assert!((found - expected).abs() <= 2e-5 * size, "{what}, {n} images: {found}, not {expected}");
        }
    }
    assert!(network.memory_bytes() < net.executor.memory_bytes(), "{what}");
}

#[test]
fn folded_batch_norms_give_the_executors_logits() {
    for (name, stem, width, image) in [
        ("resnet20", Stem::Cifar, 0.5, [13, 10, 3]),
        ("resnet18", Stem::Cifar, 0.25, [16, 16, 3]),
        ("resnet50", Stem::Imagenet, 0.1, [32, 40, 3]),
        ("vgg11", Stem::Imagenet, 0.05, [32, 32, 3]),
        ("vgg11_bn", Stem::Cifar, 0.25, [32, 32, 1]),
    ] {
        let mut net = Net::new(name, stem, width, image, 7);
        trained(&mut net);
        compare(&mut net, name);
    }
}

/// A batch norm of an activation that others read too is computed as it is.
#[test]
fn a_batch_norm_that_cannot_be_folded_stays() {
    let window = Window { size: 3, stride: 1, pad: 1 };
    let mut network = Builder::new(ImageShape { h: 8, w: 8, c: 3 });
    let conv = |network: &mut Builder, name: &str, x| {
        network.conv2d(name, x, 16, window, (false, false), Init::Normal { std: 0.1 }).unwrap()
    };
    let image = network.image();
    let first = conv(&mut network, "conv1", image);
    let params = network.register_batch_norm("bn1", 16);
    let normed = network.batch_norm(&params, first, None, true);
    let second = conv(&mut network, "conv2", normed);
    let params = network.register_batch_norm("bn2", 16);
    let joined = network.batch_norm(&params, second, Some(first), true);
    let pooled = network.adaptive_avg_pool("pool", joined, 1, 1);
    network.linear("fc", pooled, 5, false, [Init::Normal { std: 0.1 }, Init::Constant(0.1)]).unwrap();
    let mut net = Net::of(network.finish(7).unwrap());
    trained(&mut net);
    compare(&mut net, "two readers");
}

#[test]
fn new_parameters_replace_the_old() {
    let mut net = Net::new("resnet20", Stem::Cifar, 0.25, [8, 8, 3], 7);
    let mut network = Inference::<f32>::new(Arc::clone(&net.plan), &net.params, &net.stats).unwrap();
    trained(&mut net);
    network.load(&net.params, &net.stats).unwrap();
    let (x, _) = net.batch(5, 2);
    let [mut expected, mut found] = [vec![0.0; 10], vec![0.0; 10]];
    Inference::<f32>::new(Arc::clone(&net.plan), &net.params, &net.stats)
        .unwrap()
        .logits(&x, 2, &mut expected)
        .unwrap();
    network.logits(&x, 2, &mut found).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn bad_calls_are_refused() {
    let net = Net::new("resnet20", Stem::Cifar, 0.25, [8, 8, 3], 2);
    let length = |what| move |error: &NnError| matches!(error, NnError::Length { what: w, .. } if *w == what);
    let error = Inference::<f32>::new(Arc::clone(&net.plan), &net.params[1..], &net.stats).unwrap_err();
    assert!(length("params")(&error), "{error}");
    let mut network = Inference::<f32>::new(Arc::clone(&net.plan), &net.params, &net.stats).unwrap();
    assert!(length("stats")(&network.load(&net.params, &[]).unwrap_err()));
    let x = vec![0.0; 3 * 192];
    assert!(length("x")(&network.logits(&x[1..193 - 1], 1, &mut [0.0; 5]).unwrap_err()));
    assert!(length("out")(&network.logits(&x[..192], 1, &mut [0.0; 4]).unwrap_err()));
    let error = network.logits(&x, 3, &mut [0.0; 15]).unwrap_err();
    assert!(matches!(error, NnError::BatchTooLarge { max: 2, found: 3 }), "{error}");
    network.logits(&[], 0, &mut []).unwrap();
}
