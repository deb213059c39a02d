//! Extents of tensors and convolutions. [`Conv2dShape`] is the sole owner of the output-size formula.

use thiserror::Error;

/// Why a [`Conv2dShape`] is not the shape of a convolution.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// An extent, the stride or the dilation is 0.
    #[error("{field} of a convolution must be at least 1, got 0: {shape:?}")]
    Zero {
        /// The field that is 0.
        field: &'static str,
        /// The shape it stands in.
        shape: Conv2dShape,
    },
    /// The filter, spread by its dilation, does not fit into the padded input.
    #[error(
        "the filter spans {filter} pixels of {direction} but the padded input has {input}: enlarge the input \
         or the padding, or shrink the filter or its dilation: {shape:?}"
    )]
    FilterTooLarge {
        /// `height` or `width`.
        direction: &'static str,
        /// Pixels that the filter spans.
        filter: usize,
        /// Pixels of the input with its padding.
        input: usize,
        /// The shape at fault.
        shape: Conv2dShape,
    },
    /// A tensor of one image, or the filter, has more elements than can be addressed.
    #[error("the tensors of this convolution are too large to address: {shape:?}")]
    TooLarge {
        /// The shape at fault.
        shape: Conv2dShape,
    },
}

/// Extents of an image; its elements lie in this order, H outermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Height H.
    pub h: usize,
    /// Width W.
    pub w: usize,
    /// Channels C.
    pub c: usize,
}

impl ImageShape {
    /// Elements of an image, H * W * C.
    pub const fn numel(&self) -> usize {
        self.h * self.w * self.c
    }
}

/// A 2-d convolution (cross-correlation) without its batch extent: `x` NHWC, `filter` KRSC, `y` NPQK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dShape {
    /// Input channels C.
    pub c: usize,
    /// Input height H.
    pub h: usize,
    /// Input width W.
    pub w: usize,
    /// Output channels K.
    pub k: usize,
    /// Filter height R.
    pub r: usize,
    /// Filter width S.
    pub s: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Zero padding on each side.
    pub pad: usize,
    /// Dilation in both directions.
    pub dilation: usize,
}

/// Most pixels of a padded input in one direction: positions and offsets then add up within `isize`.
const MAX_PADDED: usize = isize::MAX as usize / 4;

impl Conv2dShape {
    /// Checks that this is a convolution: nothing is 0 but perhaps the padding, the filter fits, nothing overflows.
    ///
    /// # Errors
    /// [`ShapeError`] names the field or direction at fault.
    ///
    /// # Example
    /// ```
    /// use scadles::shape::Conv2dShape;
    /// let shape = Conv2dShape { c: 3, h: 2, w: 2, k: 8, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };
    /// assert!(shape.validate().is_ok());
    /// assert!(Conv2dShape { pad: 0, ..shape }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), ShapeError> {
        let shape = *self;
        let extents = [
            ("C", self.c),
            ("H", self.h),
            ("W", self.w),
            ("K", self.k),
            ("R", self.r),
            ("S", self.s),
            ("stride", self.stride),
            ("dilation", self.dilation),
        ];
        if let Some((field, _)) = extents.into_iter().find(|(_, extent)| *extent == 0) {
            return Err(ShapeError::Zero { field, shape });
        }
        for (direction, input, taps) in [("height", self.h, self.r), ("width", self.w, self.s)] {
            let padded = self.pad.checked_mul(2).and_then(|pads| pads.checked_add(input));
            let span = self.dilation.checked_mul(taps - 1).and_then(|span| span.checked_add(1));
            match (padded, span) {
                (Some(input), Some(filter)) if filter > input => {
                    return Err(ShapeError::FilterTooLarge { direction, filter, input, shape });
                }
                (Some(input), Some(_)) if input <= MAX_PADDED => {}
                _ => return Err(ShapeError::TooLarge { shape }),
            }
        }
        // Kernels round K and C up to 16; the multiply-accumulates of an image are the largest number formed.
        let (c, k) = (self.c.checked_next_multiple_of(16), self.k.checked_next_multiple_of(16));
        let product = |factors: &[Option<usize>]| {
            factors.iter().try_fold(1usize, |product, factor| product.checked_mul((*factor)?))
        };
        let filter = product(&[c, k, Some(self.r), Some(self.s)]);
        let x = product(&[c, Some(self.h), Some(self.w)]);
        let macs = product(&[filter, Some(self.p()), Some(self.q())]);
        match (x, macs) {
            (Some(x), Some(macs)) if x.max(macs) <= isize::MAX as usize / size_of::<f32>() => Ok(()),
            _ => Err(ShapeError::TooLarge { shape }),
        }
    }

    /// Output height P.
    pub const fn p(&self) -> usize {
        (self.h + 2 * self.pad - self.dilation * (self.r - 1) - 1) / self.stride + 1
    }

    /// Output width Q.
    pub const fn q(&self) -> usize {
        (self.w + 2 * self.pad - self.dilation * (self.s - 1) - 1) / self.stride + 1
    }

    /// Elements of one input image, H * W * C.
    pub const fn x_len(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Elements of one output image, P * Q * K.
    pub const fn y_len(&self) -> usize {
        self.p() * self.q() * self.k
    }

    /// Elements of the filter, K * R * S * C.
    pub const fn filter_len(&self) -> usize {
        self.k * self.r * self.s * self.c
    }

    /// Multiply-accumulates of one image's fprop, padding counted.
    pub const fn macs(&self) -> usize {
        self.y_len() * self.r * self.s * self.c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Conv2dShape =
        Conv2dShape { c: 3, h: 32, w: 24, k: 64, r: 3, s: 5, stride: 2, pad: 1, dilation: 2 };

    #[test]
    fn output_extents_follow_the_formula() {
        assert_eq!((SHAPE.p(), SHAPE.q()), (15, 9));
        assert_eq!(SHAPE.y_len(), 15 * 9 * 64);
        assert_eq!(SHAPE.macs(), 15 * 9 * 64 * 3 * 5 * 3);
        assert_eq!(SHAPE.validate(), Ok(()));
    }

    #[test]
    fn zero_fields_are_named() {
        let fields = |shape: Conv2dShape| match shape.validate() {
            Err(ShapeError::Zero { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(fields(Conv2dShape { c: 0, ..SHAPE }), "C");
        assert_eq!(fields(Conv2dShape { s: 0, ..SHAPE }), "S");
        assert_eq!(fields(Conv2dShape { stride: 0, ..SHAPE }), "stride");
        assert_eq!(fields(Conv2dShape { dilation: 0, ..SHAPE }), "dilation");
    }

    #[test]
    fn a_filter_must_fit_the_padded_input() {
        let narrow = Conv2dShape { w: 6, ..SHAPE };
        let error = ShapeError::FilterTooLarge { direction: "width", filter: 9, input: 8, shape: narrow };
        assert_eq!(narrow.validate(), Err(error));
        assert_eq!(Conv2dShape { w: 7, ..SHAPE }.validate(), Ok(()));
    }

    #[test]
    fn overflow_is_an_error() {
        for shape in [
            Conv2dShape { pad: usize::MAX, ..SHAPE },
            Conv2dShape { pad: 1 << 61, stride: 1 << 62, dilation: 1 << 60, ..SHAPE },
            Conv2dShape { dilation: usize::MAX, ..SHAPE },
            Conv2dShape { c: usize::MAX, ..SHAPE },
            Conv2dShape { h: 1 << 40, w: 1 << 40, ..SHAPE },
        ] {
            assert_eq!(shape.validate(), Err(ShapeError::TooLarge { shape }));
        }
    }
}
