use crate::check::{DIFFERENCES, ROUNDING, assert_close, dot, gradient, normal, wide};
use crate::reference;
use scadles::ops::pad_shortcut::{self, PadShortcutShape};

/// Both steps of a CIFAR ResNet, odd extents, an odd number of new channels, extent 1, no new channels.
const SHAPES: [PadShortcutShape; 6] = [
    PadShortcutShape { c: 16, h: 8, w: 8, k: 32, stride: 2 },
    PadShortcutShape { c: 3, h: 7, w: 5, k: 6, stride: 2 },
    PadShortcutShape { c: 5, h: 7, w: 11, k: 12, stride: 3 },
    PadShortcutShape { c: 1, h: 1, w: 1, k: 2, stride: 2 },
    PadShortcutShape { c: 4, h: 3, w: 2, k: 9, stride: 1 },
    PadShortcutShape { c: 4, h: 5, w: 4, k: 4, stride: 2 },
];

#[test]
fn forward_and_backward_match_the_reference() {
    for shape in SHAPES {
        for n in [0, 1, 3] {
            let x = normal(n * shape.x_len(), 1);
            let dy = normal(n * shape.y_len(), 2);
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            pad_shortcut::forward(&shape, n, &x, &mut y);
            pad_shortcut::backward(&shape, n, &dy, &mut dx);
            assert_close(
                &format!("y {shape:?}"),
                &y,
                &reference::pad_shortcut(&shape, n, &wide(&x)),
                ROUNDING,
            );
            let want = gradient(&x, |x| dot(&reference::pad_shortcut(&shape, n, x), &dy));
            assert_close(&format!("dx {shape:?}"), &dx, &want, DIFFERENCES);
        }
    }
}

#[test]
#[should_panic(expected = "pad_shortcut forward: impossible")]
fn fewer_channels_out_than_in_panic() {
    let shape = PadShortcutShape { c: 4, h: 1, w: 1, k: 2, stride: 1 };
    pad_shortcut::forward(&shape, 1, &[0.0; 4], &mut [0.0; 2]);
}
