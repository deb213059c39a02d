use crate::check::{assert_same_on_any_thread_count, bits, normal};
use scadles::ops::dropout;
use scadles::rng::{Philox, Stream};

/// The documented rule, one element at a time.
fn reference(p: f32, seed: u64, index: u64, x: &[f32]) -> Vec<f32> {
    let rng = Philox::new(seed, Stream::Dropout, index);
    let kept = |i: usize| (rng.block(i as u64 / 4)[i % 4] >> 8) as f32 / 16_777_216.0 >= p;
    x.iter().enumerate().map(|(i, x)| if kept(i) { x * (1.0 / (1.0 - p)) } else { 0.0 }).collect()
}

#[test]
fn mask_follows_the_documented_rule() {
    for len in [0, 1, 3, 63, 64, 65, 4095, 4097, 10_007] {
        for p in [0.0, 0.1, 0.5, 0.999] {
            let x = normal(len, 1);
            let (mut y, mut dx) = (vec![f32::NAN; len], vec![f32::NAN; len]);
            dropout::forward(p, 7, 3, &x, &mut y);
            dropout::backward(p, 7, 3, &x, &mut dx);
            assert_eq!(bits(&y), bits(&reference(p, 7, 3, &x)), "{len} elements, p {p}");
            assert_eq!(bits(&dx), bits(&y), "backward applies another mask");
        }
    }
}

#[test]
fn share_of_dropped_elements_is_p_and_the_mean_is_kept() {
    let (x, mut y) = (vec![1.0f32; 100_000], vec![0.0; 100_000]);
    for p in [0.1f32, 0.5] {
        dropout::forward(p, 1, 0, &x, &mut y);
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f32 / 1e5;
        // Six standard deviations of a share of 100,000 draws are 0.01.
        assert!((dropped - p).abs() < 0.01, "{dropped} dropped, p {p}");
        assert!((y.iter().sum::<f32>() / 1e5 - 1.0).abs() < 0.02);
    }
    dropout::forward(1.0, 1, 0, &x, &mut y);
    assert!(y.iter().all(|&y| y == 0.0));
}

#[test]
fn draws_differ_and_threads_do_not_matter() {
    let x = normal(50_001, 1);
    let draw = |seed, index| {
        let mut y = vec![0.0; x.len()];
        dropout::forward(0.5, seed, index, &x, &mut y);
        bits(&y)
    };
    assert_ne!(draw(1, 0), draw(1, 1));
    assert_ne!(draw(1, 0), draw(2, 0));
    assert_same_on_any_thread_count(|| draw(1, 0));
}

#[test]
#[should_panic(expected = "not in [0, 1]")]
fn a_probability_of_nan_panics() {
    dropout::forward(f32::NAN, 1, 0, &[1.0], &mut [0.0]);
}
