//! From u8 pixels to normalised f32 input: crop, mirror and `(pixel / 255 - mean) / std`, the first stage of
//! a batch.
//!
//! A crop is an offset of at most `crop_pad` pixels in each direction, as torchvision's `RandomCrop(size,
//! padding)`: what lies outside the image is black, pixel 0 *before* normalisation.
//!
//! # Shapes
//! `pixels_hwc`: `[H, W, C]`, `out`: `[H, W, C]`, C at most 4. A length that disagrees panics.
//!
//! # Example
//! ```
//! use scadles::ops::input::{self, Augment, ImageShape, Normalizer};
//! let shape = ImageShape { h: 1, w: 2, c: 1 };
//! let normalizer = Normalizer::new(&[0.5], &[0.5]);
//! let placement = input::draw(1, 0, &Augment { crop_pad: 0, flip: false });
//! let mut out = [0.0; 2];
//! input::write_image(shape, &[0, 255], &normalizer, placement, &mut out);
//! assert_eq!(out, [-1.0, 1.0]);
//! ```

pub mod cuda;

use super::multiversion::multiversion;
use crate::rng::{Philox, Stream};
pub use crate::shape::ImageShape;
use rand_core::RngCore;

/// Most channels of an image.
pub const MAX_CHANNELS: usize = 4;

/// Elements of a row handled at once: whole pixels for each channel count up to [`MAX_CHANNELS`], whole
/// vectors.
const CHUNK_LEN: usize = 192;

/// Random changes of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Greatest offset of the crop in pixels; 0 for none.
    pub crop_pad: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

/// Where an image is taken from; the default leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Rows that the crop lies below the image's top, negative above.
    pub offset_h: isize,
    /// Columns that the crop lies right of the image's left side, negative left of it.
    pub offset_w: isize,
    /// Whether the crop is mirrored left to right.
    pub flip: bool,
}

/// The placement of one sample: a function of `seed` and the sample's `key` (for example epoch and position),
/// so it does not depend on the thread that prepares it.
///
/// Draws from `Philox::new(seed, Stream::Augment, key)`: row offset, column offset, then the lowest bit of a
/// word for the flip. Each is drawn whether used or not.
pub fn draw(seed: u64, key: u64, augment: &Augment) -> Placement {
    let mut rng = Philox::new(seed, Stream::Augment, key);
    let offsets = u32::try_from(2 * augment.crop_pad + 1).expect("input: crop_pad is less than 2^31");
    let mut offset = || rng.below(offsets) as isize - augment.crop_pad as isize;
    let (offset_h, offset_w) = (offset(), offset());
    let flip = rng.next_u32() & 1 == 1;
    Placement { offset_h, offset_w, flip: flip && augment.flip }
}

/// Writes one image; runs on the calling thread, so that a batch is parallel over its images.
pub fn write_image(
    shape: ImageShape,
    pixels_hwc: &[u8],
    normalizer: &Normalizer,
    placement: Placement,
    out: &mut [f32],
) {
    let c = normalizer.c;
    assert_eq!(shape.c, c, "input: {shape:?} with a normalizer of {c} channels");
    assert_eq!(pixels_hwc.len(), shape.numel(), "input: pixels of {shape:?}");
    assert_eq!(out.len(), shape.numel(), "input: output of {shape:?}");
    if shape.numel() == 0 {
        return;
    }
    let row_len = shape.w * c;
    for (row, out) in out.chunks_exact_mut(row_len).enumerate() {
        let source = row.checked_add_signed(placement.offset_h).filter(|&row| row < shape.h);
        let pixels = source.map_or(&[][..], |row| &pixels_hwc[row * row_len..][..row_len]);
        write_row(c, pixels, normalizer, placement, out);
    }
}

/// `(pixel / 255 - mean) / std` per channel as `pixel * scale + offset`, laid out for whole vectors of pixels.
#[derive(Clone, Debug)]
pub struct Normalizer {
    c: usize,
    scale: [f32; CHUNK_LEN],
    offset: [f32; CHUNK_LEN],
}

impl Normalizer {
    /// For images of `mean.len()` channels, at most [`MAX_CHANNELS`]; `std` has as many and no 0. Panics otherwise.
    pub fn new(mean: &[f32], std: &[f32]) -> Self {
        let c = mean.len();
        assert!(
            (1..=MAX_CHANNELS).contains(&c) && std.len() == c,
            "input: {c} means, {} deviations",
            std.len()
        );
        let mut normalizer = Self { c, scale: [0.0; CHUNK_LEN], offset: [0.0; CHUNK_LEN] };
        for channel in 0..c {
            let (mean, std) = (f64::from(mean[channel]), f64::from(std[channel]));
            let (scale, offset) = ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32);
            normalizer.scale.iter_mut().skip(channel).step_by(c).for_each(|value| *value = scale);
            normalizer.offset.iter_mut().skip(channel).step_by(c).for_each(|value| *value = offset);
        }
        normalizer
    }

    /// Number of channels; scale and offset of each, 0 for those there are not.
    fn channels(&self) -> (usize, [f32; MAX_CHANNELS], [f32; MAX_CHANNELS]) {
        let first = |values: &[f32; CHUNK_LEN]| {
            std::array::from_fn(|channel| if channel < self.c { values[channel] } else { 0.0 })
        };
        (self.c, first(&self.scale), first(&self.offset))
    }
}

multiversion! {
    /// `pixels` is the source row, empty where the crop leaves the image above or below.
    fn write_row(c: usize, pixels: &[u8], normalizer: &Normalizer, placement: Placement, out: &mut [f32]) {
        let out_width = out.len() / c;
        for (chunk, out) in out.chunks_mut(CHUNK_LEN).enumerate() {
            let first = chunk * (CHUNK_LEN / c);
            let mut source = [0u8; CHUNK_LEN];
            let target = &mut source[..out.len()];
            match (c, placement.flip) {
                (_, false) => copy_inside(pixels, (first as isize + placement.offset_w) * c as isize, target),
                (1, true) => copy_mirrored::<1>(pixels, out_width - 1 - first, placement.offset_w, target),
                (2, true) => copy_mirrored::<2>(pixels, out_width - 1 - first, placement.offset_w, target),
                (3, true) => copy_mirrored::<3>(pixels, out_width - 1 - first, placement.offset_w, target),
                _ => copy_mirrored::<4>(pixels, out_width - 1 - first, placement.offset_w, target),
            }
            for (((out, pixel), scale), offset) in
                out.iter_mut().zip(&source).zip(&normalizer.scale).zip(&normalizer.offset)
            {
                *out = f32::from(*pixel) * scale + offset;
            }
        }
    }
}

/// Copies `target.len()` elements from `start` on; those outside `pixels` stay as they are.
#[inline(always)]
fn copy_inside(pixels: &[u8], start: isize, target: &mut [u8]) {
    let first = start.clamp(0, pixels.len() as isize);
    let end = (start + target.len() as isize).clamp(first, pixels.len() as isize);
    if first < end {
        target[(first - start) as usize..(end - start) as usize]
            .copy_from_slice(&pixels[first as usize..end as usize]);
    }
}

/// Copies pixels from column `last + offset` on leftwards; those outside `pixels` stay as they are.
#[inline(always)]
fn copy_mirrored<const C: usize>(pixels: &[u8], last: usize, offset: isize, target: &mut [u8]) {
    let pixels = pixels.as_chunks::<C>().0;
    for (i, target) in target.as_chunks_mut::<C>().0.iter_mut().enumerate() {
        if let Some(pixel) = (last - i).checked_add_signed(offset).and_then(|column| pixels.get(column)) {
            *target = *pixel;
        }
    }
}
