//! The batch of one device in one step, in the form in which its engine reads it.

use super::gather::InputRule;
use crate::data::Dataset;
use crate::device::cuda::PinnedBuffer;
use crate::ops::input::{self, Placement};
use rayon::prelude::*;
use std::ops::Range;

/// Images and labels of one step; the first `labels.len()` images are filled.
pub(crate) struct DeviceBatch {
    pub images: Images,
    pub labels: Vec<u32>,
    /// How many of them, the first ones, came from the device's own stream.
    pub own: usize,
    /// Samples given away in this step, coded by [`super::shared_sample`].
    pub shared: Vec<u8>,
}

/// Room for the planned batch of images.
pub(crate) enum Images {
    /// Normalised, cropped and mirrored: `[max_batch, H, W, C]`.
    Ready(Vec<f32>),
    /// As they came, with the crop and mirroring that the GPU is to apply: `[max_batch, H, W, C]` and, per image, the
    /// offset in y, in x, and whether to mirror.
    Raw { pixels: PinnedBuffer<u8>, placements: PinnedBuffer<i32> },
}

impl DeviceBatch {
    /// An empty batch in this room.
    pub fn new(images: Images, max_batch: usize) -> Self {
        Self { images, labels: Vec::with_capacity(max_batch), own: 0, shared: Vec::new() }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.labels.clear();
        self.shared.clear();
    }

    /// Appends a sample; `key` decides its random crop and mirroring.
    pub fn push(&mut self, inputs: &InputRule, key: u64, label: u32, pixels: &[u8]) {
        let placement = input::draw(inputs.seed, key, &inputs.augment);
        let (position, len) = (self.labels.len(), inputs.image.numel());
        match &mut self.images {
            Images::Ready(x) => {
                let out = &mut x[position * len..(position + 1) * len];
                input::write_image(inputs.image, pixels, &inputs.normalizer, placement, out);
            }
            Images::Raw { pixels: room, placements } => {
                room[position * len..(position + 1) * len].copy_from_slice(pixels);
                placements[position * 3..(position + 1) * 3].copy_from_slice(&numbers(placement));
            }
        }
        self.labels.push(label);
    }

    /// Replaces the content by these images of a data set as they are.
    pub fn fill(&mut self, inputs: &InputRule, data: &Dataset, range: Range<usize>) {
        self.labels.clear();
        self.labels.extend_from_slice(&data.labels()[range.clone()]);
        let len = inputs.image.numel();
        match &mut self.images {
            Images::Ready(x) => {
                let images = x[..range.len() * len].par_chunks_exact_mut(len).zip(range);
                images.for_each(|(out, i)| {
                    let (pixels, placement) = (data.image(i), Placement::default());
                    input::write_image(inputs.image, pixels, &inputs.normalizer, placement, out);
                });
            }
            Images::Raw { pixels, placements } => {
                placements[..range.len() * 3].fill(0);
                for (out, i) in pixels.chunks_exact_mut(len).zip(range) {
                    out.copy_from_slice(data.image(i));
                }
            }
        }
    }
}

/// A placement as the GPU takes it.
fn numbers(placement: Placement) -> [i32; 3] {
    let offset = |offset: isize| i32::try_from(offset).expect("a crop is offset by less than 2^31 pixels");
    [offset(placement.offset_h), offset(placement.offset_w), i32::from(placement.flip)]
}
