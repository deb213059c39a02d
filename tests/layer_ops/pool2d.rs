use crate::check::{
    DIFFERENCES, ROUNDING, assert_close, assert_same_on_any_thread_count, bits, dot, gradient, normal, wide,
};
use crate::reference;
use scadles::ops::pool2d::{
    AdaptiveAvgShape, Pool2dShape, adaptive_avg_backward, adaptive_avg_forward, max_backward, max_forward,
};

/// VGG's and ResNet's pools at small extents, overlap, gaps between windows, extent 1, primes, odd channels.
const MAX_SHAPES: [Pool2dShape; 9] = [
    Pool2dShape { c: 16, h: 8, w: 8, window: 2, stride: 2, pad: 0 },
    Pool2dShape { c: 5, h: 7, w: 9, window: 3, stride: 2, pad: 1 },
    Pool2dShape { c: 3, h: 5, w: 4, window: 3, stride: 1, pad: 1 },
    Pool2dShape { c: 1, h: 1, w: 1, window: 1, stride: 1, pad: 0 },
    Pool2dShape { c: 1, h: 1, w: 1, window: 3, stride: 2, pad: 1 },
    Pool2dShape { c: 17, h: 11, w: 7, window: 2, stride: 3, pad: 1 },
    Pool2dShape { c: 65, h: 3, w: 5, window: 3, stride: 3, pad: 0 },
    Pool2dShape { c: 2, h: 16, w: 17, window: 15, stride: 4, pad: 7 },
    Pool2dShape { c: 130, h: 4, w: 5, window: 2, stride: 1, pad: 0 },
];

/// Global, equal, smaller with overlap, larger than the input, extent 1.
const AVG_SHAPES: [AdaptiveAvgShape; 7] = [
    AdaptiveAvgShape { c: 64, h: 8, w: 8, out_h: 1, out_w: 1 },
    AdaptiveAvgShape { c: 5, h: 7, w: 3, out_h: 1, out_w: 1 },
    AdaptiveAvgShape { c: 3, h: 4, w: 6, out_h: 4, out_w: 6 },
    AdaptiveAvgShape { c: 7, h: 7, w: 5, out_h: 3, out_w: 2 },
    AdaptiveAvgShape { c: 17, h: 2, w: 1, out_h: 7, out_w: 7 },
    AdaptiveAvgShape { c: 1, h: 1, w: 1, out_h: 1, out_w: 1 },
    AdaptiveAvgShape { c: 4, h: 10, w: 11, out_h: 7, out_w: 1 },
];

fn max(shape: &Pool2dShape, n: usize, x: &[f32]) -> (Vec<f32>, Vec<u8>) {
    let (mut y, mut argmax) = (vec![f32::NAN; n * shape.y_len()], vec![255; n * shape.y_len()]);
    max_forward(shape, n, x, &mut y, &mut argmax);
    (y, argmax)
}

#[test]
fn max_matches_the_reference() {
    for shape in MAX_SHAPES {
        for n in [0, 1, 3] {
            // Few distinct values, so that ties are frequent.
            let x: Vec<f32> = normal(n * shape.x_len(), 1).iter().map(|x| x.round()).collect();
            let (y, argmax) = max(&shape, n, &x);
            let (want, want_argmax) = reference::max_pool(&shape, n, &wide(&x));
            assert_close(&format!("y {shape:?}"), &y, &want, ROUNDING);
            assert_eq!(argmax, want_argmax, "argmax {shape:?}");
            let (dy, mut dx) = (normal(y.len(), 2), vec![f32::NAN; x.len()]);
            max_backward(&shape, n, &dy, &argmax, &mut dx);
            let want = reference::max_pool_backward(&shape, n, &wide(&dy), &argmax);
            assert_close(&format!("dx {shape:?}"), &dx, &want, DIFFERENCES);
        }
    }
}

#[test]
fn max_backward_matches_finite_differences() {
    for shape in MAX_SHAPES {
        let x = normal(shape.x_len(), 1);
        let (y, argmax) = max(&shape, 1, &x);
        let (dy, mut dx) = (normal(y.len(), 2), vec![f32::NAN; x.len()]);
        max_backward(&shape, 1, &dy, &argmax, &mut dx);
        let want = gradient(&x, |x| dot(&reference::max_pool(&shape, 1, x).0, &dy));
        assert_close(&format!("{shape:?}"), &dx, &want, DIFFERENCES);
    }
}

#[test]
fn max_lets_nan_win_and_keeps_minus_infinity_inside_the_image() {
    let shape = Pool2dShape { c: 1, h: 3, w: 3, window: 3, stride: 2, pad: 1 };
    let mut x = [1.0; 9];
    x[4] = f32::NAN;
    let (y, argmax) = max(&shape, 1, &x);
    assert!(y.iter().all(|y| y.is_nan()), "the pixel in the middle is in every window: {y:?}");
    assert_eq!(argmax, [8, 6, 2, 0]);
    let (y, argmax) = max(&shape, 1, &[f32::NEG_INFINITY; 9]);
    assert_eq!((y, argmax), (vec![f32::NEG_INFINITY; 4], vec![4, 3, 1, 0]));
}

#[test]
fn adaptive_average_matches_the_reference() {
    for shape in AVG_SHAPES {
        for n in [0, 1, 3] {
            let (x, dy) = (normal(n * shape.x_len(), 1), normal(n * shape.y_len(), 2));
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            adaptive_avg_forward(&shape, n, &x, &mut y);
            adaptive_avg_backward(&shape, n, &dy, &mut dx);
            assert_close(
                &format!("y {shape:?}"),
                &y,
                &reference::adaptive_avg(&shape, n, &wide(&x)),
                ROUNDING,
            );
            let want = gradient(&x, |x| dot(&reference::adaptive_avg(&shape, n, x), &dy));
            assert_close(&format!("dx {shape:?}"), &dx, &want, DIFFERENCES);
        }
    }
}

#[test]
fn threads_do_not_change_results() {
    let (n, max_shape) = (5, Pool2dShape { c: 24, h: 23, w: 21, window: 3, stride: 2, pad: 1 });
    let avg_shape = AdaptiveAvgShape { c: 24, h: 23, w: 21, out_h: 4, out_w: 4 };
    let x = normal(n * max_shape.x_len(), 1);
    let (max_dy, avg_dy) = (normal(n * max_shape.y_len(), 2), normal(n * avg_shape.y_len(), 2));
    assert_same_on_any_thread_count(|| {
        let (y, argmax) = max(&max_shape, n, &x);
        let (mut dx, mut avg, mut avg_dx) = (x.clone(), avg_dy.clone(), x.clone());
        max_backward(&max_shape, n, &max_dy, &argmax, &mut dx);
        adaptive_avg_forward(&avg_shape, n, &x, &mut avg);
        adaptive_avg_backward(&avg_shape, n, &avg_dy, &mut avg_dx);
        [y, dx, avg, avg_dx].map(|values| bits(&values))
    });
}

#[test]
#[should_panic(expected = "max pool forward: impossible")]
fn padding_over_half_the_window_panics() {
    let shape = Pool2dShape { c: 1, h: 4, w: 4, window: 2, stride: 1, pad: 2 };
    max_forward::<f32>(&shape, 0, &[], &mut [], &mut []);
}
