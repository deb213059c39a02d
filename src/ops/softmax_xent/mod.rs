//! Softmax cross-entropy of logits `[N, classes]` against labels `[N]`: loss, accuracy and gradient in one
//! pass.
//!
//! Per row `loss = ln(sum(exp(logits))) - logits[label]`, taken relative to the row's maximum. The gradient
//! is that of the *mean* loss, `dlogits = (softmax(logits) - onehot(label)) / N`; [`LossStats`] holds *sums*,
//! so that batches of different sizes add up. Loss sums are f64 in an order fixed by N alone.
//!
//! # Errors
//! A label that is no class, see [`LabelError`]; nothing is written then. Slice lengths that disagree panic.
//!
//! # Example
//! ```
//! let mut dlogits = [0.0; 3];
//! let stats = scadles::ops::softmax_xent::forward_backward(1, 3, &[1.0, 1.0, 1.0], &[2], &mut dlogits)?;
//! assert!((stats.loss_sum - 3f64.ln()).abs() < 1e-6);
//! assert_eq!((stats.top1, stats.top5), (0, 1)); // equal logits: the lower class ranks first
//! # Ok::<(), scadles::ops::softmax_xent::LabelError>(())
//! ```

mod cpu;
pub mod cuda;

/// Sums over the rows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossStats {
    /// Cross-entropy, natural logarithm.
    pub loss_sum: f64,
    /// Rows whose label has the greatest logit.
    pub top1: u64,
    /// Rows whose label is among the five greatest logits.
    pub top5: u64,
}

impl std::ops::Add for LossStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            loss_sum: self.loss_sum + other.loss_sum,
            top1: self.top1 + other.top1,
            top5: self.top5 + other.top5,
        }
    }
}

/// A label outside `0..classes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "label {label} of row {row} is not a class: the network has {classes} classes, labels are 0 to {}",
    classes.saturating_sub(1)
)]
pub struct LabelError {
    /// First row with such a label.
    pub row: usize,
    /// The label.
    pub label: u32,
    /// Classes of the network.
    pub classes: usize,
}

/// Loss and accuracy. A row counts as top-k if fewer than k logits rank before the label's: greater ones,
/// equal ones of lower classes, and NaN. A label whose own logit is NaN counts as wrong.
pub fn forward(n: usize, classes: usize, logits: &[f32], labels: &[u32]) -> Result<LossStats, LabelError> {
    check(n, classes, logits, labels)?;
    Ok(cpu::forward(classes, logits, labels))
}

/// As [`forward`], and writes the gradient of the mean loss.
pub fn forward_backward(
    n: usize,
    classes: usize,
    logits: &[f32],
    labels: &[u32],
    dlogits: &mut [f32],
) -> Result<LossStats, LabelError> {
    assert_eq!(dlogits.len(), n * classes, "softmax_xent: dlogits is not [{n}, {classes}]");
    check(n, classes, logits, labels)?;
    Ok(cpu::forward_backward(classes, logits, labels, dlogits, 1.0 / n.max(1) as f32))
}

fn check(n: usize, classes: usize, logits: &[f32], labels: &[u32]) -> Result<(), LabelError> {
    assert_eq!(logits.len(), n * classes, "softmax_xent: logits is not [{n}, {classes}]");
    assert_eq!(labels.len(), n, "softmax_xent: labels is not [{n}]");
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(row) => Err(LabelError { row, label: labels[row], classes }),
        None => Ok(()),
    }
}
