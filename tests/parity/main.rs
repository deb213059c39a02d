//! Results equal PyTorch's: single operations and whole networks, against tests/fixtures (scripts/make_fixtures.py).
//!
//! PyTorch computed in f64, so a difference is this crate's f32 rounding. [`close`] states how differences are judged;
//! each test states its tolerances and why.

mod formula;
mod networks;
mod ops;

/// Asserts `|got - want| <= tolerance * scale` for each element, where `scale` is the largest of `|want|`: elements are
/// sums of terms of that size, so their rounding is relative to it. NaN fails. Returns the worst share of the tolerance.
fn close(what: &str, got: &[f32], want: &[f32], tolerance: f64) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    let scale = want.iter().fold(0f64, |max, w| max.max(f64::from(w.abs())));
    let mut worst = 0f64;
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let share = (f64::from(got) - f64::from(want)).abs() / (tolerance * scale).max(f64::MIN_POSITIVE);
        assert!(share <= 1.0, "{what}[{i}]: got {got}, PyTorch {want}, {share:.2} of the tolerance");
        worst = worst.max(share);
    }
    worst
}
