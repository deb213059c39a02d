use crate::check::{
    DIFFERENCES, assert_close, assert_same_on_any_thread_count, bits, dot, gradient, normal, wide,
};
use scadles::ops::relu;

fn reference(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.max(0.0)).collect()
}

#[test]
fn forward_and_backward_match_the_reference() {
    for len in [0, 1, 15, 17, 301] {
        let (x, mut y, mut dx) = (normal(len, 1), normal(len, 1), normal(len, 2));
        let dy = dx.clone();
        relu::forward_inplace(&mut y);
        relu::backward_inplace(&y, &mut dx);
        assert_close("y", &y, &reference(&wide(&x)), DIFFERENCES);
        assert_close("dx", &dx, &gradient(&x, |x| dot(&reference(x), &dy)), DIFFERENCES);
    }
}

#[test]
fn zero_blocks_the_gradient_and_nan_passes() {
    let mut y = [-0.0, 0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    relu::forward_inplace(&mut y);
    assert_eq!(bits(&y[..2]), [0, 0]);
    assert!(y[2].is_nan() && y[3] == f32::INFINITY && y[4] == 0.0);
    let mut dy = [1.0; 5];
    relu::backward_inplace(&y, &mut dy);
    assert_eq!(dy, [0.0, 0.0, 1.0, 1.0, 0.0]);
}

#[test]
fn every_element_of_a_long_tensor_is_reached() {
    let x = normal(100_003, 1);
    assert_same_on_any_thread_count(|| {
        let (mut y, mut dy) = (x.clone(), vec![1.0; x.len()]);
        relu::forward_inplace(&mut y);
        relu::backward_inplace(&y, &mut dy);
        let right =
            |((x, y), dy): ((&f32, &f32), &f32)| *y == x.max(0.0) && *dy == f32::from(u8::from(*x > 0.0));
        assert!(x.iter().zip(&y).zip(&dy).all(right));
        bits(&y)
    });
}
