//! Counter-based random numbers: `(seed, stream, counter) -> bits`, the same on every thread and device.
//!
//! [`Philox`] is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). Every random
//! choice of a run draws from a stream of its own ([`Stream`]), so adding a draw in one place moves nothing elsewhere,
//! and a sample's augmentation does not depend on which thread prepares it.

use rand_core::RngCore;

/// What a random stream is for; the first half of its key, so that no two purposes share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial parameters of a network.
    Init = 1,
    /// Generated images of the embedded data set.
    Images = 2,
    /// Assignment of training samples to devices.
    Partition = 3,
    /// Order in which a device's source replays its samples.
    Replay = 4,
    /// Arrival times of samples.
    Arrivals = 5,
    /// Crop and flip of one sample.
    Augment = 6,
    /// Dropout masks.
    Dropout = 7,
    /// Devices and samples chosen for data injection.
    Injection = 8,
    /// Replacement choices of a reservoir buffer.
    Reservoir = 9,
    /// Stream rates sampled for a cluster.
    Rates = 10,
}

/// Philox4x32-10 generator: 2^64 independent blocks of 128 bits per `(seed, stream, index)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
    index: u64,
    block: u64,
    buffer: [u32; 4],
    used: usize,
}

impl Philox {
    /// The generator of `seed` for one purpose and one `index` (a device, a sample, a step).
    ///
    /// # Example
    /// ```
    /// use rand_core::RngCore;
    /// use scadles::rng::{Philox, Stream};
    /// let mut a = Philox::new(1, Stream::Augment, 7);
    /// let mut b = Philox::new(1, Stream::Augment, 7);
    /// assert_eq!(a.next_u64(), b.next_u64());
    /// ```
    pub fn new(seed: u64, stream: Stream, index: u64) -> Self {
        // The purpose is folded into the key by a bijection of 64 bits, so different purposes never collide.
        let key = mix64(seed ^ (u64::from(stream as u32) << 32 | u64::from(stream as u32)));
        Self { key: [key as u32, (key >> 32) as u32], index, block: 0, buffer: [0; 4], used: 4 }
    }

    /// What distinguishes its seed and purpose: the key of every block. The counter is the block's number and then the
    /// index, 64 bits each, low word first.
    pub(crate) fn key(&self) -> [u32; 2] {
        self.key
    }

    /// The 128 bits at `block` of this generator, without moving it. Inlined, so that a loop over blocks vectorises.
    #[inline(always)]
    pub fn block(&self, block: u64) -> [u32; 4] {
        let counter = [block as u32, (block >> 32) as u32, self.index as u32, (self.index >> 32) as u32];
        philox4x32_10(counter, self.key)
    }

    /// A number in `[0, 1)` with 24 random bits.
    pub fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// A number in `0..bound` without bias (Lemire's multiply and reject). `bound` must not be 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "Philox::below: bound must be at least 1");
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            if product as u32 >= bound.wrapping_neg() % bound {
                return (product >> 32) as u32;
            }
        }
    }

    /// A standard normal number (Box-Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform_f64()).cos()
    }

    /// Puts `items` into random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

impl RngCore for Philox {
    fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.buffer = self.block(self.block);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        for chunk in dst.chunks_mut(4) {
            let bytes = self.next_u32().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

fn mix64(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[inline(always)]
fn philox4x32_10(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * 0xd251_1f53;
        let p1 = u64::from(c[2]) * 0xcd9e_8d57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9e37_79b9), k[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        // Known-answer vectors of the Random123 distribution for philox4x32-10.
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn purposes_and_indices_differ() {
        let first = Philox::new(1, Stream::Init, 0).next_u64();
        assert_ne!(first, Philox::new(1, Stream::Images, 0).next_u64());
        assert_ne!(first, Philox::new(1, Stream::Init, 1).next_u64());
        assert_ne!(first, Philox::new(2, Stream::Init, 0).next_u64());
    }

    #[test]
    fn below_is_uniform_and_normal_has_unit_variance() {
        let mut rng = Philox::new(3, Stream::Replay, 0);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");
        let (sum, squares) =
            (0..50_000).map(|_| rng.normal()).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        assert!((sum / 5e4f64).abs() < 0.02 && (squares / 5e4 - 1.0f64).abs() < 0.03);
    }
}
