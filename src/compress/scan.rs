//! One pass over a tile: updates it, sums squares, lists what lies above or inside a bracket of magnitudes.
//!
//! A *key* is the bit pattern of `|x|`; among finite numbers it orders like `|x|` itself.

#[cfg(target_arch = "x86_64")]
use super::wide::{M256x2, M512};
use super::wide::{Plain, WIDTH, Wide, level};
use crate::ops::simd::SimdLevel;

/// Elements between two looks at the room of the lists.
const STRIP_LEN: usize = 2048;
/// Elements that are asked for ahead of their use.
pub(super) const PREFETCH_AHEAD: usize = 512;
/// The positions of a tile are listed while they are fewer than its elements divided by this.
const ELEMENTS_PER_LISTED: usize = 4;
const LARGEST_FINITE: u32 = f32::MAX.to_bits();

/// Key of a number: its bits without the sign.
#[inline(always)]
pub(super) fn key(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// Keys between which the smallest kept key is expected; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bracket {
    pub low: u32,
    pub high: u32,
}

impl Bracket {
    /// Every finite number.
    pub const ALL: Bracket = Bracket { low: 0, high: LARGEST_FINITE };

    /// One known key.
    pub fn exactly(key: u32) -> Self {
        Self { low: key, high: key }
    }

    pub fn is_one_key(self) -> bool {
        self.low == self.high
    }
}

/// What a pass does to the elements of a tile before it looks at them.
pub(super) trait Term: Send {
    /// The 16 elements of the vector from position `i` of the tile on, after the update; they are stored too.
    ///
    /// # Safety
    /// As for [`Wide`]; `acc` is the tile, of the length that this term was made for, and `i + 16` is inside it.
    unsafe fn sixteen<V: Wide>(&mut self, acc: *mut f32, i: usize) -> V;

    /// As [`Self::sixteen`], for one element.
    ///
    /// # Safety
    /// `acc` is the tile, of the length that this term was made for, and `i` is inside it.
    unsafe fn one(&mut self, acc: *mut f32, i: usize) -> f32;
}

/// Leaves the vector as it is; only reads.
pub(super) struct Unchanged;

impl Term for Unchanged {
    #[inline(always)]
    unsafe fn sixteen<V: Wide>(&mut self, acc: *mut f32, i: usize) -> V {
        // SAFETY: as the trait demands.
        unsafe { V::load(acc.add(i)) }
    }

    #[inline(always)]
    unsafe fn one(&mut self, acc: *mut f32, i: usize) -> f32 {
        // SAFETY: as the trait demands.
        unsafe { *acc.add(i) }
    }
}

/// What one tile contributes to a selection. Kept from step to step for the memory of its lists.
#[derive(Clone, Debug, Default)]
pub(super) struct TileScan {
    /// Sum of squares of all elements.
    pub sq: f64,
    /// Sum of squares of the elements above the bracket.
    pub above_sq: f64,
    /// Elements above the bracket.
    pub above: usize,
    /// Elements inside the bracket.
    pub within: usize,
    /// Keys of those inside by ascending index, unless all are equal (a bracket of one key) or there were too many.
    pub keys: Vec<u32>,
    /// There were more keys than allowed, and `keys` is not complete.
    pub overflow: bool,
    /// `found` is complete.
    pub listed: bool,
    /// Ascending positions in the tile of all elements above the bracket or inside.
    pub found: Vec<u16>,
    /// Where in `found` the elements of `keys` are.
    at: Vec<u16>,
}

impl TileScan {
    /// Applies `term` to the tile at `acc`, and looks at it. `Err` holds the first position that is not finite.
    ///
    /// # Safety
    /// `acc` holds `len` elements, at most 65,536, that nobody else uses meanwhile (or writes, if `term` only reads);
    /// `term` was made for a tile of that length.
    unsafe fn run<T: Term>(
        &mut self,
        level: SimdLevel,
        acc: *mut f32,
        len: usize,
        term: &mut T,
        bracket: Bracket,
        limit: usize,
    ) -> Result<(), usize> {
        self.keys.clear();
        self.at.clear();
        self.found.clear();
        self.found.reserve(len / ELEMENTS_PER_LISTED + STRIP_LEN.min(len) + WIDTH);
        (self.above, self.within, self.listed) = (0, 0, true);
        // SAFETY: `level` was checked; the rest is the caller's promise.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx512 => pass_avx512(self, acc, len, term, bracket, limit),
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx2 => pass_avx2(self, acc, len, term, bracket, limit),
                _ => pass::<Plain, T>(self, acc, len, term, bracket, limit),
            }
        }
        self.overflow = !bracket.is_one_key() && self.within > limit;
        // Squares of finite floats do not overflow an f64.
        if self.sq.is_finite() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let tile = unsafe { std::slice::from_raw_parts(acc, len) };
        Err(tile.iter().position(|x| !x.is_finite()).unwrap_or(0))
    }

    /// Applies `term`, made for a tile of this length, to `tile`, then looks at it. `Err` holds the first position that
    /// is not finite.
    ///
    /// # Safety
    /// `term` was made for a tile of this length.
    pub unsafe fn update<T: Term>(
        &mut self,
        tile: &mut [f32],
        term: &mut T,
        bracket: Bracket,
        limit: usize,
    ) -> Result<(), usize> {
        assert!(tile.len() <= 1 << 16, "positions have 16 bits");
        // SAFETY: the slice is borrowed alone; the caller vouches for `term`; `level` returns what can be run.
        unsafe { self.run(level(), tile.as_mut_ptr(), tile.len(), term, bracket, limit) }
    }

    /// Looks at `tile` as it is.
    pub fn look(&mut self, tile: &[f32], bracket: Bracket, limit: usize) -> Result<(), usize> {
        assert!(tile.len() <= 1 << 16, "positions have 16 bits");
        // SAFETY: `Unchanged` only reads, at any position of the slice; `level` returns what can be run.
        unsafe { self.run(level(), tile.as_ptr().cast_mut(), tile.len(), &mut Unchanged, bracket, limit) }
    }

    /// Leaves in `found` what is kept: keys above `key`, and the first `kept_ties` equal to it of `ties`. Where that
    /// takes more than the list, the list is given up.
    pub fn keep(&mut self, bracket: Bracket, key: u32, ties: usize, mut kept_ties: usize) {
        if !self.listed || bracket.is_one_key() {
            self.listed &= kept_ties == ties;
            return;
        }
        let (mut kept, mut next) = (0, 0);
        for (&candidate, &at) in self.keys.iter().zip(&self.at) {
            let tie = candidate == key && kept_ties > 0;
            kept_ties -= usize::from(tie);
            if candidate > key || tie {
                continue;
            }
            let at = usize::from(at);
            self.found.copy_within(next..at, kept);
            (kept, next) = (kept + at - next, at + 1);
        }
        self.found.copy_within(next.., kept);
        self.found.truncate(kept + self.found.len() - next);
    }
}

/// Sum of squares of `x`; NaN or infinite if an element is.
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    let mut scan = TileScan::default();
    let sum = |tile: &[f32]| {
        // What is not finite shows in the sum.
        let _ = scan.look(tile, Bracket::exactly(LARGEST_FINITE), 0);
        scan.sq
    };
    x.chunks(1 << 16).map(sum).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
unsafe fn pass_avx512<T: Term>(
    scan: &mut TileScan,
    acc: *mut f32,
    len: usize,
    term: &mut T,
    bracket: Bracket,
    limit: usize,
) {
    // SAFETY: as for `pass`.
    unsafe { pass::<M512, T>(scan, acc, len, term, bracket, limit) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,popcnt")]
unsafe fn pass_avx2<T: Term>(
    scan: &mut TileScan,
    acc: *mut f32,
    len: usize,
    term: &mut T,
    bracket: Bracket,
    limit: usize,
) {
    // SAFETY: as for `pass`.
    unsafe { pass::<M256x2, T>(scan, acc, len, term, bracket, limit) }
}

/// # Safety
/// As for [`TileScan::run`] and [`Wide`]; the lists are empty and `found` has the room that `run` reserves.
#[inline(always)]
unsafe fn pass<V: Wide, T: Term>(
    scan: &mut TileScan,
    acc: *mut f32,
    len: usize,
    term: &mut T,
    bracket: Bracket,
    limit: usize,
) {
    // SAFETY: `V` is available.
    let (mut sq, mut above_sq) = unsafe { (V::no_squares(), V::no_squares()) };
    let mut start = 0;
    while start < len {
        let end = (start + STRIP_LEN).min(len);
        scan.listed &= scan.found.capacity() - scan.found.len() >= end - start + WIDTH;
        let collect = !bracket.is_one_key() && scan.within <= limit;
        if collect {
            scan.keys.reserve(end - start);
            scan.at.reserve(end - start);
        }
        let mut strip = Strip::<V> {
            // Signed: SSE2 has no other comparison, and keys stay below 2^31.
            below: bracket.low as i32 - 1,
            high: bracket.high as i32,
            collecting: if collect { u16::MAX } else { 0 },
            step: usize::from(scan.listed),
            into: [scan.found.as_mut_ptr(), scan.at.as_mut_ptr()],
            keys_into: scan.keys.as_mut_ptr(),
            found: scan.found.len(),
            keys: scan.keys.len(),
            above: 0,
            at_least: 0,
            sq,
            above_sq,
        };
        let mut i = start;
        while i + WIDTH <= end {
            // SAFETY: `i + 16` is inside the tile; `V` is available; the lists have room for the strip.
            unsafe {
                V::prefetch(acc.wrapping_add(i + PREFETCH_AHEAD));
                let values = term.sixteen::<V>(acc, i);
                strip.look(values, acc.add(i), i, u16::MAX);
            }
            i += WIDTH;
        }
        if i < end {
            let mut rest = [0.0; WIDTH];
            // SAFETY: the positions are inside the tile; `rest` has 16 values; the lists have room for the strip.
            unsafe {
                for (lane, value) in rest.iter_mut().enumerate().take(end - i) {
                    *value = term.one(acc, i + lane);
                }
                strip.look(V::load(rest.as_ptr()), rest.as_ptr(), i, (1 << (end - i)) - 1);
            }
        }
        (scan.above, scan.within) = (scan.above + strip.above, scan.within + strip.at_least - strip.above);
        (sq, above_sq) = (strip.sq, strip.above_sq);
        // SAFETY: so many were written.
        unsafe {
            scan.found.set_len(strip.found);
            scan.keys.set_len(strip.keys);
            scan.at.set_len(strip.keys);
        }
        start = end;
    }
    // SAFETY: `V` is available.
    let (sq, above_sq) = unsafe { (V::lanes(sq), V::lanes(above_sq)) };
    (scan.sq, scan.above_sq) = (sq.iter().sum(), above_sq.iter().sum());
}

/// The state of a pass inside a strip.
struct Strip<V: Wide> {
    below: i32,
    high: i32,
    /// All bits if keys inside the bracket are collected, else none.
    collecting: u16,
    /// 1 if positions are listed, else 0: they are written to the end of the list, and stay outside of it.
    step: usize,
    /// `found` and `at`.
    into: [*mut u16; 2],
    keys_into: *mut u32,
    found: usize,
    keys: usize,
    above: usize,
    at_least: usize,
    sq: V::Squares,
    above_sq: V::Squares,
}

impl<V: Wide> Strip<V> {
    /// Takes in the lanes `lanes` of `values`, which are also at `from`; the first is at position `i` of the tile. Not a
    /// closure: that would be compiled without the instructions of `V`.
    ///
    /// # Safety
    /// As for [`Wide`]; `into` has room for 16 more positions behind `found`, both key lists for the lanes inside the bracket.
    #[inline(always)]
    unsafe fn look(&mut self, values: V, from: *const f32, i: usize, lanes: u16) {
        // SAFETY: the caller's promise.
        unsafe {
            let (over, at_least) = (values.above(self.high) & lanes, values.above(self.below) & lanes);
            self.sq = values.add_squares(u16::MAX, self.sq);
            self.above_sq = values.add_squares(over, self.above_sq);
            V::positions(at_least, i as u16, self.into[0].add(self.found));
            let mut within = at_least & !over & self.collecting;
            while within != 0 {
                let lane = within.trailing_zeros();
                let before = (at_least & ((1 << lane) - 1)).count_ones() as usize;
                self.keys_into.add(self.keys).write(key(*from.add(lane as usize)));
                self.into[1].add(self.keys).write((self.found + before) as u16);
                self.keys += 1;
                within &= within - 1;
            }
            let count = at_least.count_ones() as usize;
            self.found += self.step * count;
            self.at_least += count;
            self.above += over.count_ones() as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::wide::can_run;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * 0.25).collect()
    }

    fn levels() -> impl Iterator<Item = SimdLevel> {
        SimdLevel::ALL.into_iter().filter(|&level| can_run(level))
    }

    fn look(level: SimdLevel, x: &[f32], bracket: Bracket, limit: usize) -> Result<TileScan, usize> {
        let mut scan = TileScan { found: vec![7; 3], keys: vec![7; 3], at: vec![7; 3], ..Default::default() };
        // SAFETY: `Unchanged` only reads; the level can be run here.
        unsafe { scan.run(level, x.as_ptr().cast_mut(), x.len(), &mut Unchanged, bracket, limit) }?;
        Ok(scan)
    }

    #[test]
    fn a_scan_counts_sums_and_lists_on_every_level() {
        for len in [0, 1, 15, 16, 17, STRIP_LEN - 1, STRIP_LEN + 1, 5000, 1 << 16] {
            let x = values(len);
            for (low, high) in [(100.0f32, 120.0f32), (20.0, 60.0), (0.0, 126.0), (0.0, 0.0), (126.0, 126.0)]
            {
                let bracket = Bracket { low: key(low), high: key(high) };
                let is_above = |&i: &usize| x[i].abs() > high;
                let is_within = |&i: &usize| (low..=high).contains(&x[i].abs());
                let above: Vec<f32> = (0..len).filter(is_above).map(|i| x[i]).collect();
                let within: Vec<u32> = (0..len).filter(is_within).map(|i| key(x[i])).collect();
                let listed: Vec<usize> = (0..len).filter(|i| is_above(i) || is_within(i)).collect();
                for level in levels() {
                    let found = look(level, &x, bracket, len).unwrap();
                    assert_eq!(
                        (found.above, found.within, found.overflow),
                        (above.len(), within.len(), false)
                    );
                    assert_eq!(found.keys, if bracket.is_one_key() { &[][..] } else { &within }, "{level:?}");
                    let fits = listed.len() <= len / ELEMENTS_PER_LISTED;
                    assert!(found.listed || !fits, "{level:?}: {len}, {bracket:?}");
                    if found.listed {
                        assert!(found.found.iter().map(|&at| usize::from(at)).eq(listed.iter().copied()));
                    }
                    // Multiples of 1/16 far below 2^53: the sums are exact in any order.
                    assert_eq!(found.sq, x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>());
                    assert_eq!(found.above_sq, above.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>());
                }
            }
        }
    }

    #[test]
    fn every_level_sums_in_the_same_order() {
        let x: Vec<f32> = (1..10_007).map(|i| (i as f32).sin() * 1e3 / i as f32).collect();
        let bracket = Bracket { low: key(0.1), high: key(0.2) };
        let sums: Vec<(f64, f64)> = levels()
            .map(|level| look(level, &x, bracket, 10_006).unwrap())
            .map(|s| (s.sq, s.above_sq))
            .collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    }

    #[test]
    fn keeping_leaves_the_larger_keys_and_the_first_ties() {
        let x = values(6000);
        let (bracket, threshold) = (Bracket { low: key(110.0), high: key(124.0) }, 120.0);
        for level in levels() {
            let ties = x.iter().filter(|x| x.abs() == threshold).count();
            for kept_ties in 0..=ties {
                let mut scan = look(level, &x, bracket, 6000).unwrap();
                scan.keep(bracket, key(threshold), ties, kept_ties);
                let mut free = kept_ties;
                let expected = x.iter().enumerate().filter(|(_, x)| {
                    let tie = x.abs() == threshold && free > 0;
                    free -= usize::from(tie);
                    tie || x.abs() > threshold
                });
                let expected: Vec<u16> = expected.map(|(i, _)| i as u16).collect();
                assert!(scan.listed && scan.found == expected, "{level:?}, {kept_ties} of {ties} ties");
            }
        }
    }

    #[test]
    fn too_many_candidates_are_reported() {
        let x = values(5000);
        for level in levels() {
            assert!(look(level, &x, Bracket::ALL, 4999).unwrap().overflow);
            assert!(!look(level, &x, Bracket::ALL, 5000).unwrap().overflow);
            assert!(!look(level, &[0.0; 100], Bracket::exactly(0), 10).unwrap().overflow);
        }
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            let mut x = values(5000);
            (x[3001], x[4000]) = (bad, f32::NAN);
            for level in levels() {
                assert_eq!(look(level, &x, Bracket::ALL, 5000).unwrap_err(), 3001);
            }
        }
    }
}
