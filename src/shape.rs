//! Extents of tensors and convolutions. [`Conv2dShape`] is the sole owner of the output-size formula.

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

impl Conv2dShape {
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
