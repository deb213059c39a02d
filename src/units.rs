//! Quantities with their unit in the type: rates and sizes cannot be swapped for plain numbers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Samples per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SamplesPerSec(pub f64);

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Throughput in units of 1e9 bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GbPerSec(pub f64);

impl Bytes {
    /// `mib` times 2^20 bytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The size in MiB (2^20 bytes).
    pub fn as_mib(self) -> f64 {
        self.0 as f64 / f64::from(1 << 20)
    }
}

impl std::ops::Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self(0), |total, item| total + item)
    }
}

impl fmt::Display for SamplesPerSec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} samples/s", self.0)
    }
}

impl fmt::Display for Bytes {
    /// Decimal units, as network rates use: `12 B`, `3.07 kB`, `1.20 GB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        for unit in ["kB", "MB", "GB", "TB"] {
            value /= 1000.0;
            if value < 999.5 || unit == "TB" {
                return write!(
                    f,
                    "{value:.*} {unit}",
                    if value < 9.995 {
                        2
                    } else if value < 99.95 {
                        1
                    } else {
                        0
                    }
                );
            }
        }
        unreachable!("the loop returns at TB")
    }
}

impl fmt::Display for GbPerSec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} GB/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_print_in_decimal_units() {
        let shown: Vec<String> =
            [0, 999, 3073, 999_600, 1_200_000_000, 25_000_000].map(|b| Bytes(b).to_string()).into();
        assert_eq!(shown, ["0 B", "999 B", "3.07 kB", "1.00 MB", "1.20 GB", "25.0 MB"]);
        assert_eq!(Bytes::mib(3).as_mib(), 3.0);
    }
}
