//! Tensor maps: what tells Hopper's copy engine how a tensor of bf16 lies in memory and how a copy walks over it.
//!
//! All maps here are of contiguous tensors whose innermost extent is a multiple of 8 elements, since strides must be
//! multiples of 16 bytes, and are copied in rows of 64 elements with the 128-byte swizzle. What a copy takes beyond a
//! tensor's extents is zeros. A map holds the tensor's address, and encoding one takes the host about a microsecond, so
//! every launch encodes its own; recorded launches keep theirs.

use super::error::{CudaError, status};
use super::memory::View;
use crate::element::Element;
use cudarc::driver::sys;
use half::bf16;

/// Elements of a swizzled row.
pub(crate) const ROW_LEN: u32 = 64;

const FORMAT: sys::CUtensorMapDataType = sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
const INTERLEAVE: sys::CUtensorMapInterleave = sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE;
const SWIZZLE: sys::CUtensorMapSwizzle = sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B;
const PROMOTION: sys::CUtensorMapL2promotion =
    sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
const FILL: sys::CUtensorMapFloatOOBfill = sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;

/// Dimensions of the largest map.
const MAX_RANK: usize = 4;

/// Extents, innermost first, and strides of all but the innermost in bytes, of a contiguous tensor.
struct Layout {
    extents: [u64; MAX_RANK],
    strides: [u64; MAX_RANK],
}

impl Layout {
    fn new(outermost_first: &[usize]) -> Self {
        let mut layout = Self { extents: [1; MAX_RANK], strides: [0; MAX_RANK] };
        let mut stride = size_of::<bf16>() as u64;
        for (i, &extent) in outermost_first.iter().rev().enumerate() {
            layout.extents[i] = extent as u64;
            stride *= extent as u64;
            layout.strides[i] = stride;
        }
        layout
    }
}

fn empty() -> sys::CUtensorMap {
    sys::CUtensorMap { opaque: [0; 16] }
}

fn joined(numbers: &[impl ToString]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A map of a tensor of these extents, outermost first, whose copies take boxes: 64 elements of the innermost extent, and
/// `copied` of the others, outermost first.
///
/// # Errors
/// [`CudaError::TensorMap`] with what the driver says.
pub(crate) fn tiled_map<E: Element, const RANK: usize, const OUTER: usize>(
    kernel: &'static str,
    tensor: (&'static str, &View<'_, E>),
    extents: [usize; RANK],
    copied: [u32; OUTER],
) -> Result<sys::CUtensorMap, CudaError> {
    const { assert!(RANK <= MAX_RANK && RANK == OUTER + 1) };
    assert!(E::IS_BF16, "{kernel}: tensor maps are of bf16");
    let layout = Layout::new(&extents);
    let mut taken = [ROW_LEN; MAX_RANK];
    for (taken, copied) in taken[1..].iter_mut().zip(copied.iter().rev()) {
        *taken = *copied;
    }
    let mut map = empty();
    // SAFETY: the arrays hold RANK numbers or more; the driver reads them and writes the map, and no tensor memory.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            FORMAT,
            RANK as u32,
            tensor.1.address() as *mut _,
            layout.extents.as_ptr(),
            layout.strides.as_ptr(),
            taken.as_ptr(),
            [1u32; MAX_RANK].as_ptr(),
            INTERLEAVE,
            SWIZZLE,
            PROMOTION,
            FILL,
        )
    };
    encoded.result().map(|()| map).map_err(|error| CudaError::TensorMap {
        kernel,
        tensor: tensor.0,
        extents: joined(&extents),
        copied: joined(&[&copied[..], &[ROW_LEN]].concat()),
        status: status(error),
    })
}

/// How copies walk over images for a convolution: a copy takes the same 64 channels of pixels that follow each other, at
/// the filter's stride, in rows, then columns, then images of the *output*. Which place of the filter they are for is the
/// offset of the copy, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageMap {
    /// N, H, W, C of the images.
    pub(crate) extents: [usize; 4],
    /// Height and width of the output.
    pub(crate) output: [usize; 2],
    /// Where the output's first pixel starts, down and right from the images' first; negative in padding.
    pub(crate) lower: [i64; 2],
    /// Pixels of the image from one output pixel to the next.
    pub(crate) stride: usize,
    /// Output pixels of a copy.
    pub(crate) pixels: u32,
}

impl ImageMap {
    /// The last start of a filter, counted from the image's last pixel: so that the box that starts lie in, whose both
    /// corners belong to it, holds as many of them as the output has pixels.
    fn upper(&self) -> [i64; 2] {
        let along = |i: usize| {
            let starts = (self.output[i] as i64 - 1) * self.stride as i64;
            self.lower[i] + starts - (self.extents[i + 1] as i64 - 1)
        };
        [along(0), along(1)]
    }

    /// Whether the driver can express it: corners of the box are signed bytes, strides at most 8, strides in memory
    /// multiples of 16 bytes. The offsets of its copies must stay below 256.
    pub(crate) fn is_expressible(&self) -> bool {
        let corners = [self.lower, self.upper()];
        let byte = |corner: &i64| (-128..=127).contains(corner);
        corners.as_flattened().iter().all(byte)
            && (1..=8).contains(&self.stride)
            && self.extents[3].is_multiple_of(8)
    }

    /// The map of a tensor.
    ///
    /// # Errors
    /// [`CudaError::TensorMap`] with what the driver says.
    pub(crate) fn encode<E: Element>(
        &self,
        kernel: &'static str,
        tensor: (&'static str, &View<'_, E>),
    ) -> Result<sys::CUtensorMap, CudaError> {
        assert!(E::IS_BF16, "{kernel}: tensor maps are of bf16");
        let layout = Layout::new(&self.extents);
        // The driver counts the corners' directions as it does extents, innermost first: width, then height.
        let innermost_first = |[down, right]: [i64; 2]| [right as i32, down as i32];
        let (lower, upper) = (innermost_first(self.lower), innermost_first(self.upper()));
        let stride = self.stride as u32;
        let mut map = empty();
        // SAFETY: the arrays hold as many numbers as the rank asks; the driver reads them and writes the map, and no
        // tensor memory.
        let encoded = unsafe {
            sys::cuTensorMapEncodeIm2col(
                &mut map,
                FORMAT,
                4,
                tensor.1.address() as *mut _,
                layout.extents.as_ptr(),
                layout.strides.as_ptr(),
                lower.as_ptr(),
                upper.as_ptr(),
                ROW_LEN,
                self.pixels,
                [1, stride, stride, 1].as_ptr(),
                INTERLEAVE,
                SWIZZLE,
                PROMOTION,
                FILL,
            )
        };
        encoded.result().map(|()| map).map_err(|error| CudaError::TensorMap {
            kernel,
            tensor: tensor.0,
            extents: joined(&self.extents),
            copied: format!("{} pixels, {ROW_LEN}", self.pixels),
            status: status(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(h: usize, w: usize, output: [usize; 2], pad: i64, stride: usize) -> ImageMap {
        ImageMap { extents: [2, h, w, 64], output, lower: [-pad; 2], stride, pixels: 64 }
    }

    #[test]
    fn the_box_of_starts_ends_at_the_last_filter() {
        // 3x3, padding 1: starts from -1 to H - 2, which is 1 before the last pixel.
        assert_eq!(map(8, 5, [8, 5], 1, 1).upper(), [-1, -1]);
        // 1x1: starts are the pixels. With stride 2 the last start of 8 is 6, of 5 is 4.
        assert_eq!(map(8, 5, [8, 5], 0, 1).upper(), [0, 0]);
        assert_eq!(map(8, 5, [4, 3], 0, 2).upper(), [-1, 0]);
        // 7x7, padding 3, stride 2 on 224: the last of 112 starts is 219.
        assert_eq!(map(224, 224, [112, 112], 3, 2).upper(), [-4, -4]);
    }

    #[test]
    fn what_the_driver_cannot_express_is_known() {
        assert!(map(8, 5, [8, 5], 1, 1).is_expressible());
        assert!(!map(8, 5, [8, 5], 129, 1).is_expressible());
        assert!(!map(8, 5, [1, 1], 0, 9).is_expressible());
        let narrow = ImageMap { extents: [2, 8, 5, 12], ..map(8, 5, [8, 5], 1, 1) };
        assert!(!narrow.is_expressible());
    }

    #[test]
    fn strides_are_those_of_a_contiguous_tensor() {
        let layout = Layout::new(&[5, 9, 72]);
        assert_eq!(
            (layout.extents[..3].to_vec(), layout.strides[..2].to_vec()),
            (vec![72, 9, 5], vec![144, 1296])
        );
    }
}
