//! The shapes that every implementation of the convolution passes is tested at: each function calls `check` with a shape
//! and a number of images.

use scadles::shape::Conv2dShape;

/// Square filter `r`, image `h` x `w`.
pub fn shape(
    (c, k): (usize, usize),
    (h, w): (usize, usize),
    r: usize,
    (stride, pad, dilation): (usize, usize, usize),
) -> Conv2dShape {
    Conv2dShape { c, h, w, k, r, s: r, stride, pad, dilation }
}

/// Extents of 1, and filters and images that are not square.
pub fn extents_of_one(check: impl Fn(&Conv2dShape, usize)) {
    check(&shape((1, 1), (1, 1), 1, (1, 0, 1)), 1);
    check(&shape((1, 1), (1, 1), 3, (1, 1, 1)), 3);
    check(&shape((1, 10), (5, 1), 1, (1, 0, 1)), 3);
    check(&shape((3, 1), (1, 7), 3, (1, 1, 1)), 1);
    check(&Conv2dShape { c: 2, h: 9, w: 4, k: 3, r: 5, s: 1, stride: 1, pad: 0, dilation: 1 }, 2);
    check(&Conv2dShape { c: 2, h: 4, w: 9, k: 3, r: 1, s: 4, stride: 2, pad: 1, dilation: 2 }, 2);
}

/// Channels around the lanes and panels of every level.
pub fn channels_one_below_and_above_each_vector_and_panel(check: impl Fn(&Conv2dShape, usize)) {
    for channels in [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65] {
        check(&shape((channels, 5), (4, 3), 3, (1, 1, 1)), 2);
        check(&shape((5, channels), (4, 3), 3, (1, 1, 1)), 2);
        check(&shape((channels, channels), (3, 3), 1, (1, 0, 1)), 1);
    }
}

/// Pixels around the tiles and groups of every level.
pub fn pixels_one_below_and_above_each_tile(check: impl Fn(&Conv2dShape, usize)) {
    for pixels in [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 24, 25, 95, 96, 97, 127, 128, 129, 257] {
        check(&shape((3, 18), (1, pixels), 1, (1, 0, 1)), 1);
        check(&shape((9, 3), (pixels, 1), 3, (1, 1, 1)), 1);
    }
}

/// Images around the tiles that take a pixel of every image.
pub fn images_one_below_and_above_each_tile(check: impl Fn(&Conv2dShape, usize)) {
    for n in [0, 1, 3, 5, 6, 7, 11, 12, 13, 25] {
        check(&shape((9, 17), (2, 2), 3, (1, 1, 1)), n);
        check(&shape((9, 17), (3, 5), 3, (2, 1, 1)), n);
    }
}

/// Strides, paddings and dilations, also of filters with even extents.
pub fn strides_paddings_and_dilations(check: impl Fn(&Conv2dShape, usize)) {
    for stride in 1..=3 {
        for dilation in 1..=3 {
            for pad in 0..=3 {
                check(&shape((5, 6), (11, 8), 3, (stride, pad, dilation)), 2);
                check(&shape((12, 4), (7, 9), 2, (stride, pad, dilation)), 1);
            }
        }
    }
}

/// Layers as ResNet and VGG have them, and AlexNet's first.
pub fn layers_of_the_networks(check: impl Fn(&Conv2dShape, usize)) {
    check(&shape((3, 64), (32, 32), 3, (1, 1, 1)), 3);
    check(&shape((3, 64), (23, 29), 7, (2, 3, 1)), 3);
    check(&shape((16, 16), (32, 32), 3, (1, 1, 1)), 3);
    check(&shape((16, 32), (32, 32), 3, (2, 1, 1)), 2);
    check(&shape((64, 128), (8, 8), 1, (2, 0, 1)), 3);
    check(&shape((128, 96), (4, 4), 3, (1, 1, 1)), 16);
    check(&shape((64, 256), (8, 8), 1, (1, 0, 1)), 2);
    check(&shape((96, 64), (1, 1), 3, (1, 1, 1)), 13);
    check(&shape((4, 4), (14, 14), 11, (4, 2, 1)), 2);
}

/// More taps and more channels than one call of a microkernel sums.
pub fn more_taps_and_channels_than_one_pass_of_the_microkernel_holds(check: impl Fn(&Conv2dShape, usize)) {
    check(&shape((16, 3), (9, 9), 7, (1, 3, 1)), 1);
    check(&shape((4100, 2), (2, 1), 1, (1, 0, 1)), 2);
    check(&shape((4097, 2), (2, 2), 2, (1, 1, 1)), 1);
    check(&shape((2, 4097), (2, 2), 2, (1, 1, 1)), 1);
}
