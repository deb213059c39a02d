//! What activations are stored as: f32, or bf16 to halve their memory and its traffic.

use bytemuck::Pod;
use half::bf16;

/// A number as it lies in memory. Everything is computed in f32; a result is rounded to nearest even when it is stored.
pub trait Element: Pod + Default + Send + Sync + std::fmt::Debug {
    /// Whether it is bf16 and not f32.
    const IS_BF16: bool;

    /// The GPU's entry point for it, of one for f32 and one for bf16.
    fn entry(f32: &'static str, bf16: &'static str) -> &'static str {
        if Self::IS_BF16 { bf16 } else { f32 }
    }

    /// Its value, exactly.
    fn to_f32(self) -> f32;

    /// The nearest element, the even one of two; NaN stays NaN.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const IS_BF16: bool = false;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

// As `half` converts, without branches, so that loops vectorise.
impl Element for bf16 {
    const IS_BF16: bool = true;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let quiet = bits >> 16 | 0x40;
        Self::from_bits(if value.is_nan() { quiet } else { rounded } as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_converts_as_half_does() {
        // Every high half of an f32, with low halves around a tie.
        for high in 0..=u32::from(u16::MAX) {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(high << 16 | low);
                let (got, want) = (<bf16 as Element>::from_f32(value), bf16::from_f32(value));
                assert_eq!(got.to_bits(), want.to_bits(), "{value:e} ({high:x} {low:x})");
                assert_eq!(Element::to_f32(got).to_bits(), got.to_f32().to_bits());
            }
        }
    }
}
