use crate::check::{ROUNDING, assert_close};
use scadles::ops::input::{Augment, ImageShape, Normalizer, Placement, draw, write_image};
use scadles::rng::{Philox, Stream};

fn pixels(len: usize) -> Vec<u8> {
    let mut rng = Philox::new(9, Stream::Images, 0);
    (0..len).map(|_| rng.below(256) as u8).collect()
}

/// Pads with black, crops, mirrors, normalises: torchvision's order.
fn reference(shape: ImageShape, pixels: &[u8], mean: &[f32], std: &[f32], placement: Placement) -> Vec<f64> {
    let ImageShape { h, w, c } = shape;
    let mut out = Vec::new();
    for row in 0..h as isize {
        for column in 0..w as isize {
            let column = if placement.flip { w as isize - 1 - column } else { column };
            let (row, column) = (row + placement.offset_h, column + placement.offset_w);
            let inside = (0..h as isize).contains(&row) && (0..w as isize).contains(&column);
            for k in 0..c {
                let pixel = if inside { pixels[(row as usize * w + column as usize) * c + k] } else { 0 };
                let (mean, std) = (f64::from(mean[k]), f64::from(std[k]));
                out.push((f64::from(pixel) / 255.0 - mean) / std);
            }
        }
    }
    out
}

fn check<const C: usize>(h: usize, w: usize, mean: [f32; C], std: [f32; C]) {
    let shape = ImageShape { h, w, c: C };
    let (normalizer, pixels) = (Normalizer::new(&mean, &std), pixels(shape.numel()));
    for flip in [false, true] {
        for (offset_h, offset_w) in [(0, 0), (4, -4), (-1, 3), (-4, 4), (0, 1), (100, 0), (0, -100)] {
            let placement = Placement { offset_h, offset_w, flip };
            let mut out = vec![f32::NAN; shape.numel()];
            write_image(shape, &pixels, &normalizer, placement, &mut out);
            let want = reference(shape, &pixels, &mean, &std, placement);
            assert_close(&format!("{shape:?}, {placement:?}"), &out, &want, ROUNDING);
        }
    }
}

#[test]
fn images_match_the_reference() {
    let (mean, std) = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
    check(32, 32, mean, std);
    check(1, 1, mean, std);
    check(5, 71, mean, std); // wider than a chunk of 64 pixels
    check(7, 3, [0.5], [0.25]);
    check(3, 97, [0.1, 0.9], [0.3, 1.0]);
    check(3, 50, [0.1, 0.2, 0.3, 0.4], [1.0, 0.5, 0.25, 0.2]);
    check(0, 4, mean, std);
}

#[test]
fn placements_are_uniform_and_functions_of_their_key() {
    let augment = Augment { crop_pad: 4, flip: true };
    let (mut offsets, mut flips) = ([[0u32; 9]; 2], 0u32);
    for key in 0..90_000 {
        let placement = draw(1, key, &augment);
        offsets[0][(placement.offset_h + 4) as usize] += 1;
        offsets[1][(placement.offset_w + 4) as usize] += 1;
        flips += u32::from(placement.flip);
    }
    // Six standard deviations: 600 of 10,000 and 900 of 45,000.
    assert!(offsets.iter().flatten().all(|&n| (9_400..10_600).contains(&n)), "{offsets:?}");
    assert!((44_100..45_900).contains(&flips), "{flips}");
    assert_eq!(draw(1, 5, &augment), draw(1, 5, &augment));
    assert!((0..20).any(|key| draw(1, key, &augment) != draw(2, key, &augment)));
}

#[test]
fn switching_one_augmentation_off_moves_no_other() {
    for key in 0..50 {
        let both = draw(1, key, &Augment { crop_pad: 4, flip: true });
        let crop = draw(1, key, &Augment { crop_pad: 4, flip: false });
        assert_eq!(crop, Placement { flip: false, ..both });
        let none = draw(1, key, &Augment::default());
        assert_eq!(none, Placement::default());
    }
}

#[test]
#[should_panic(expected = "with a normalizer of 1 channels")]
fn a_normalizer_of_another_channel_count_panics() {
    let normalizer = Normalizer::new(&[0.0], &[1.0]);
    let shape = ImageShape { h: 1, w: 1, c: 3 };
    write_image(shape, &[0; 3], &normalizer, Placement::default(), &mut [0.0; 3]);
}
