//! Output tiles of a 3x3 convolution of stride 1 and the windows of the input that they read.

use super::plane::{Source, Target};
use crate::ops::simd::lanes::Lanes;
use crate::ops::simd::stored::Stored;
use crate::shape::{Conv2dShape, ImageShape};

/// Most channels of an input: the length of the row of zeros that stands for padding.
pub(super) const MAX_CHANNELS: usize = 2048;

/// What a pixel outside the input points to.
static ZEROS: [f32; MAX_CHANNELS] = [0.0; MAX_CHANNELS];

/// The tiles of all images, in the order N, rows, columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub input: ImageShape,
    pub output: ImageShape,
    pad: usize,
    /// Output pixels of a tile in each direction.
    size: usize,
    rows: usize,
    cols: usize,
}

impl Tiles {
    /// Tiles of `y`, windows of `x`.
    pub fn fprop(shape: &Conv2dShape, size: usize) -> Self {
        let input = ImageShape { h: shape.h, w: shape.w, c: shape.c };
        let output = ImageShape { h: shape.p(), w: shape.q(), c: shape.k };
        Self::new(input, output, shape.pad, size)
    }

    /// Tiles of `dx`, windows of `dy`: a convolution with the filter turned by half a turn.
    pub fn dgrad(shape: &Conv2dShape, size: usize) -> Self {
        let fprop = Self::fprop(shape, size);
        Self::new(fprop.output, fprop.input, 2 - shape.pad, size)
    }

    fn new(input: ImageShape, output: ImageShape, pad: usize, size: usize) -> Self {
        Self { input, output, pad, size, rows: output.h.div_ceil(size), cols: output.w.div_ceil(size) }
    }

    /// Tiles of `n` images.
    pub fn count(&self, n: usize) -> usize {
        n.saturating_mul(self.rows * self.cols)
    }

    /// Image, and first output row and column, of a tile.
    fn corner(&self, tile: usize) -> (usize, usize, usize) {
        let (row, col) = (tile / self.cols, tile % self.cols);
        (row / self.rows, row % self.rows * self.size, col * self.size)
    }

    /// The window of `input` that `tile` reads.
    #[inline(always)]
    pub fn window<E, const A: usize>(&self, input: *const E, tile: usize) -> Window<E, A> {
        let (image, row, col) = self.corner(tile);
        // Zeros of f32 are zeros of any element.
        let mut pixels = [[ZEROS.as_ptr().cast::<E>(); A]; A];
        for (i, pixels) in pixels.iter_mut().enumerate() {
            let row = (row + i).wrapping_sub(self.pad);
            if row < self.input.h {
                for (j, pixel) in pixels.iter_mut().enumerate() {
                    let col = (col + j).wrapping_sub(self.pad);
                    if col < self.input.w {
                        let index = (image * self.input.h + row) * self.input.w + col;
                        *pixel = input.wrapping_add(index * self.input.c);
                    }
                }
            }
        }
        Window { pixels, channel: 0 }
    }

    /// The pixels of `output` that `tile` writes; for gradients, those it reads.
    #[inline(always)]
    pub fn patch<E, const M: usize>(&self, output: *mut E, tile: usize) -> Patch<E, M> {
        let (image, row, col) = self.corner(tile);
        let index = (image * self.output.h + row) * self.output.w + col;
        Patch {
            first: output.wrapping_add(index * self.output.c),
            row_pitch: self.output.w * self.output.c,
            pixel_pitch: self.output.c,
            rows: (self.output.h - row).min(M),
            cols: (self.output.w - col).min(M),
            bias: std::ptr::null(),
            relu: false,
        }
    }
}

/// The pixels under a window, from one channel on; those outside the input are a row of zeros.
pub(super) struct Window<E, const A: usize> {
    pixels: [[*const E; A]; A],
    pub channel: usize,
}

impl<V: Lanes, E: Stored, const A: usize> Source<V> for Window<E, A> {
    #[inline(always)]
    unsafe fn get(&self, row: usize, column: usize) -> V {
        // SAFETY: as the trait demands.
        unsafe { E::load(self.pixels[row][column].add(self.channel)) }
    }
}

/// An output tile, from one channel on: pixels beyond `rows` and `cols` are not there.
#[derive(Clone, Copy)]
pub(super) struct Patch<E, const M: usize> {
    pub first: *mut E,
    row_pitch: usize,
    pixel_pitch: usize,
    rows: usize,
    cols: usize,
    /// The channel's bias, or null.
    pub bias: *const f32,
    pub relu: bool,
}

impl<V: Lanes, E: Stored, const M: usize> Source<V> for Patch<E, M> {
    #[inline(always)]
    unsafe fn get(&self, row: usize, column: usize) -> V {
        // SAFETY: as the trait demands; absent pixels are not read.
        unsafe {
            if row < self.rows && column < self.cols {
                E::load(self.first.cast_const().add(row * self.row_pitch + column * self.pixel_pitch))
            } else {
                V::zero()
            }
        }
    }
}

impl<V: Lanes, E: Stored, const M: usize> Target<V> for Patch<E, M> {
    #[inline(always)]
    unsafe fn put(&self, row: usize, column: usize, value: V) {
        // SAFETY: as the trait demands; absent pixels are not written.
        unsafe {
            if row < self.rows && column < self.cols {
                let mut value = value;
                if !self.bias.is_null() {
                    value = value.add(V::load(self.bias));
                }
                if self.relu {
                    value = value.relu();
                }
                E::store(value, self.first.add(row * self.row_pitch + column * self.pixel_pitch));
            }
        }
    }
}
