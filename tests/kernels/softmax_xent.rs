//! `kernels/softmax_xent.cu` against its definition in f64 and the CPU's rules for ties and NaN.

use crate::reference;
use crate::support::{Vector, device_or_skip, normal};
use crate::tensors::{Float, Images, Tolerance, assert_bits, assert_close, rounded, wide};
use half::bf16;
use scadles::device::cuda::CudaDevice;
use scadles::ops::softmax_xent::{self, cuda};

/// One class, around a warp, around the most that a warp takes, and more than four for each thread of a block.
const CLASSES: [usize; 11] = [1, 2, 5, 10, 31, 33, 100, 256, 257, 1000, 1031];

/// Rows around the eight of a block, and none.
const ROWS: [Images; 6] = [
    Images { bucket: 9, n: 9 },
    Images { bucket: 9, n: 7 },
    Images { bucket: 8, n: 8 },
    Images { bucket: 3, n: 1 },
    Images { bucket: 300, n: 258 },
    Images { bucket: 2, n: 0 },
];

/// Labels, one number past them.
fn labels(images: Images, classes: usize) -> Vec<u32> {
    let draw = |value: &f32| (value.abs() * 1e6) as u32 % classes as u32;
    let mut labels: Vec<u32> = normal(images.n, 5).iter().map(draw).collect();
    labels.resize(images.bucket, u32::MAX);
    labels
}

/// What both entries add to [100, 1000, 10000], and the gradient.
fn run<E: Float>(
    device: &CudaDevice,
    images: Images,
    classes: usize,
    logits: &[E],
    labels: &[u32],
) -> ([f64; 3], Vec<E>) {
    let d_logits = match images.n {
        0 => images.output(device, classes, true),
        _ => images.input(device, logits, true),
    };
    let (count, labels) = (images.count(device), Vector::new(device, labels));
    let mut dlogits = images.output::<E>(device, classes, true);
    let start = [100.0, 1000.0, 10_000.0];
    let mut stats = [Vector::new(device, &start), Vector::new(device, &start)];
    let mut scratch = Vector::new(device, &vec![f64::NAN; 3 * images.bucket]);
    let batch = images.batch(&count);
    let [both, loss] = &mut stats;
    cuda::forward_backward(
        device,
        classes,
        batch,
        d_logits.view(),
        labels.view(),
        dlogits.view_mut(),
        both.view_mut(),
        scratch.view_mut(),
    )
    .unwrap();
    scratch.read();
    let (logits, labels) = (d_logits.view(), labels.view());
    cuda::forward(device, classes, batch, logits, labels, loss.view_mut(), scratch.view_mut()).unwrap();
    let [both, loss] = stats.each_ref().map(|stats| {
        let stats = stats.read();
        [0, 1, 2].map(|i| stats[i] - start[i])
    });
    assert_eq!(both.map(f64::to_bits), loss.map(f64::to_bits), "with and without gradient");
    (both, images.read(&dlogits, classes))
}

fn compare<E: Float>(device: &CudaDevice, images: Images, classes: usize) {
    let n = images.n;
    // Tenths, so that there are ties.
    let logits: Vec<f32> = normal(n * classes, 6).iter().map(|value| (30.0 * value).round() / 10.0).collect();
    let (logits, labels) = (rounded::<E>(&logits), labels(images, classes));
    let (stats, dlogits) = run(device, images, classes, &logits, &labels);
    let what = format!("{images:?}, {classes} classes, bf16: {}", E::IS_BF16);
    let exact = wide(&logits);
    let loss: f64 = reference::cross_entropy(classes, &exact, &labels).iter().sum();
    assert!((stats[0] - loss).abs() <= 2e-6 * (n + 1) as f64, "{what}: loss {}, expected {loss}", stats[0]);
    let singles: Vec<f32> = logits.iter().map(|logit| logit.f32()).collect();
    let ranks: Vec<usize> =
        singles.chunks(classes).zip(&labels).map(|(logits, label)| reference::rank(logits, *label)).collect();
    assert_eq!(stats[1], ranks.iter().filter(|rank| **rank < 1).count() as f64, "top1 of {what}");
    assert_eq!(stats[2], ranks.iter().filter(|rank| **rank < 5).count() as f64, "top5 of {what}");
    let mut expected = Vec::new();
    for (logits, label) in exact.chunks(classes).zip(&labels) {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
        let share = |(i, logit): (usize, &f64)| {
            ((logit - max).exp() / sum - f64::from(u8::from(i == *label as usize))) / n as f64
        };
        expected.extend(logits.iter().enumerate().map(share));
    }
    // Shares are at most 1 / n; their exponentials are within some units in the last place.
    let tolerance = Tolerance { atol: 1e-6 / n.max(1) as f64, rtol: E::ROUNDING + 2e-6 };
    assert_close(&dlogits, &expected, tolerance, &format!("dlogits of {what}"));
}

#[test]
fn loss_ranks_and_gradient_follow_the_definition() {
    let Some(device) = device_or_skip("loss_ranks_and_gradient_follow_the_definition") else { return };
    for classes in CLASSES {
        for images in ROWS.into_iter().filter(|images| images.n < 100 || classes <= 10) {
            compare::<f32>(&device, images, classes);
            compare::<bf16>(&device, images, classes);
        }
    }
}

#[test]
fn special_logits_follow_the_cpu() {
    let Some(device) = device_or_skip("special_logits_follow_the_cpu") else { return };
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0, 1.0, 0.0, -3e38, 3e38, 2.0, 1.0, 5.0];
    let images = Images { bucket: 1, n: 1 };
    for classes in [6, 300] {
        for case in 0..40 {
            let pick = |value: &f32| special[(value.abs() * 1e4) as usize % special.len()];
            let spread = |(i, value): (usize, &f32)| if i % 4 == case % 4 { pick(value) } else { *value };
            let values = normal(classes, 100 + case as u64);
            let logits: Vec<f32> = values.iter().enumerate().map(spread).collect();
            let labels = [(case * 7 % classes) as u32];
            let mut expected = vec![0.0; classes];
            let cpu = softmax_xent::forward_backward(1, classes, &logits, &labels, &mut expected).unwrap();
            let (stats, dlogits) = run::<f32>(&device, images, classes, &logits, &labels);
            let what = format!("{logits:?}, label {labels:?}");
            let same = stats[0] == cpu.loss_sum
                || (stats[0].is_nan() && cpu.loss_sum.is_nan())
                || (stats[0] - cpu.loss_sum).abs() <= 1e-5 * (1.0 + cpu.loss_sum.abs());
            assert!(same, "{what}: {} and {}", stats[0], cpu.loss_sum);
            assert_eq!([stats[1], stats[2]], [cpu.top1 as f64, cpu.top5 as f64], "{what}");
            let expected = wide(&expected);
            assert_close(&dlogits, &expected, Tolerance { atol: 1e-6, rtol: 1e-5 }, &what);
        }
    }
    // All equal: the lower class ranks first.
    let (stats, _) = run::<f32>(&device, Images { bucket: 2, n: 2 }, 7, &[1.0; 14], &[0, 5]);
    assert_eq!([stats[1], stats[2]], [1.0, 1.0]);
}

#[test]
fn a_label_that_is_no_class_makes_its_row_nan() {
    let Some(device) = device_or_skip("a_label_that_is_no_class_makes_its_row_nan") else { return };
    for classes in [10, 300] {
        let images = Images { bucket: 3, n: 3 };
        let logits = normal(3 * classes, 7);
        for bad in [classes as u32, u32::MAX, 1 << 31] {
            let (stats, dlogits) = run::<f32>(&device, images, classes, &logits, &[1, bad, 0]);
            let (_, expected) = run::<f32>(&device, images, classes, &logits, &[1, 1, 0]);
            assert!(stats[0].is_nan() && stats[1] <= 2.0 && stats[2] <= 2.0, "{stats:?}");
            assert!(dlogits[classes..2 * classes].iter().all(|value| value.is_nan()));
            assert_bits(&dlogits[..classes], &expected[..classes], "the row before");
            assert_bits(&dlogits[2 * classes..], &expected[2 * classes..], "the row after");
        }
    }
}

#[test]
fn softmax_xent_refuses_what_it_cannot_do() {
    let Some(device) = device_or_skip("softmax_xent_refuses_what_it_cannot_do") else { return };
    let images = Images { bucket: 2, n: 2 };
    let (count, logits) = (images.count(&device), Vector::new(&device, &[1.0f32; 6]));
    let (labels, mut stats) = (Vector::new(&device, &[0u32; 2]), Vector::new(&device, &[0.0f64; 3]));
    let mut scratch = Vector::new(&device, &[0.0f64; 6]);
    let mut forward = |classes, num_labels, num_stats, scratch_len| {
        let labels = labels.view().slice(..num_labels);
        let stats = stats.view_mut().split_at_mut(num_stats).0;
        let scratch = scratch.view_mut().split_at_mut(scratch_len).0;
        let batch = images.batch(&count);
        cuda::forward(&device, classes, batch, logits.view(), labels, stats, scratch).unwrap_err().to_string()
    };
    let kernel = "kernel softmax_xent_rows_f32";
    assert_eq!(forward(4, 2, 3, 6), format!("{kernel}: logits has 6 elements, expected 8"));
    assert_eq!(forward(3, 1, 3, 6), format!("{kernel}: labels has 1 elements, expected 2"));
    assert_eq!(forward(3, 2, 2, 6), format!("{kernel}: stats has 2 elements, expected 3"));
    assert_eq!(forward(3, 2, 3, 5), format!("{kernel}: scratch has 5 elements, expected 6"));
}
