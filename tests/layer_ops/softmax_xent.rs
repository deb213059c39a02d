use crate::check::{
    ROUNDING, Tolerance, assert_close, assert_same_on_any_thread_count, bits, gradient, normal, wide,
};
use crate::reference;
use scadles::ops::softmax_xent::{LabelError, LossStats, forward, forward_backward};
use scadles::rng::{Philox, Stream};

/// Rows and classes: extent 1, around the 16 lanes of a row, CIFAR and ImageNet, several tiles.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 2), (7, 10), (5, 15), (5, 16), (5, 17), (64, 100), (33, 1000), (2001, 10)];

fn inputs(n: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
    let mut rng = Philox::new(5, Stream::Replay, classes as u64);
    let logits = normal(n * classes, 1).iter().map(|x| 3.0 * x).collect();
    (logits, (0..n).map(|_| rng.below(classes as u32)).collect())
}

#[test]
fn loss_accuracy_and_gradient_match_the_reference() {
    for (n, classes) in SHAPES {
        let what = format!("{n} x {classes}");
        let (logits, labels) = inputs(n, classes);
        let mut dlogits = vec![f32::NAN; logits.len()];
        let stats = forward_backward(n, classes, &logits, &labels, &mut dlogits).expect("labels are classes");
        let losses = reference::cross_entropy(classes, &wide(&logits), &labels);
        assert_close(
            &what,
            &[(stats.loss_sum / n as f64) as f32],
            &[losses.iter().sum::<f64>() / n as f64],
            ROUNDING,
        );
        let ranks: Vec<usize> = logits
            .chunks_exact(classes)
            .zip(&labels)
            .map(|(row, &label)| reference::rank(row, label))
            .collect();
        assert_eq!(stats.top1, ranks.iter().filter(|&&rank| rank < 1).count() as u64, "{what}");
        assert_eq!(stats.top5, ranks.iter().filter(|&&rank| rank < 5).count() as u64, "{what}");
        let alone = forward(n, classes, &logits, &labels).expect("labels are classes");
        assert_eq!((alone.top1, alone.top5), (stats.top1, stats.top5));
        assert!((alone.loss_sum - stats.loss_sum).abs() <= 1e-6 * stats.loss_sum, "{what}: forward alone");
        for row in 0..n {
            let range = row * classes..(row + 1) * classes;
            let want: Vec<f64> = gradient(&logits[range.clone()], |logits| {
                reference::cross_entropy(classes, logits, &labels[row..=row])[0] / n as f64
            });
            // f64 rounding of a loss of about 10, divided by the step.
            let tolerance = Tolerance { atol: 1e-9 + 2e-7 / n as f64, rtol: 2e-6 };
            assert_close(&format!("row {row} of {what}"), &dlogits[range], &want, tolerance);
        }
    }
}

#[test]
fn ties_rank_by_class_and_nan_counts_as_wrong() {
    let stats = |logits: &[f32], label| {
        let stats = forward(1, logits.len(), logits, &[label]).expect("label is a class");
        (stats.top1, stats.top5)
    };
    assert_eq!(stats(&[2.0; 7], 0), (1, 1));
    assert_eq!(stats(&[2.0; 7], 4), (0, 1));
    assert_eq!(stats(&[2.0; 7], 5), (0, 0));
    assert_eq!(stats(&[f32::NAN, 2.0, 1.0], 1), (0, 1), "NaN ranks before the label");
    assert_eq!(stats(&[f32::NAN, 2.0, 1.0], 0), (0, 0), "a label's own NaN is never right");
}

#[test]
fn nan_and_huge_logits_reach_the_loss() {
    let mut dlogits = [0.0; 3];
    let stats = forward_backward(1, 3, &[f32::NAN, 2.0, 1.0], &[1], &mut dlogits).expect("label is a class");
    assert!(stats.loss_sum.is_nan() && dlogits.iter().all(|d| d.is_nan()));
    let stats = forward_backward(1, 3, &[1e4, -1e4, 0.0], &[1], &mut dlogits).expect("label is a class");
    assert_eq!((stats.loss_sum, dlogits), (2e4, [1.0, -1.0, 0.0]));
}

#[test]
fn a_label_that_is_no_class_is_an_error() {
    let mut dlogits = [7.0; 9];
    let error =
        forward_backward(3, 3, &[0.0; 9], &[0, 3, 9], &mut dlogits).expect_err("label 3 of 3 classes");
    assert_eq!(error, LabelError { row: 1, label: 3, classes: 3 });
    assert_eq!(
        error.to_string(),
        "label 3 of row 1 is not a class: the network has 3 classes, labels are 0 to 2"
    );
    assert_eq!(dlogits, [7.0; 9], "nothing is written");
    assert!(forward(1, 0, &[], &[0]).is_err());
}

#[test]
fn no_rows_give_zero_sums() {
    assert_eq!(forward(0, 10, &[], &[]), Ok(LossStats::default()));
    assert_eq!(forward_backward(0, 10, &[], &[], &mut []), Ok(LossStats::default()));
}

#[test]
fn threads_do_not_change_results() {
    let (logits, labels) = inputs(5003, 100);
    assert_same_on_any_thread_count(|| {
        let mut dlogits = vec![0.0; logits.len()];
        let stats = forward_backward(5003, 100, &logits, &labels, &mut dlogits).expect("labels are classes");
        (stats.loss_sum.to_bits(), stats.top1, stats.top5, bits(&dlogits))
    });
}
