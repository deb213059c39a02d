//! One read of a tile: sums of squares, elements above and inside a bracket of magnitudes, and the keys inside it.
//!
//! A *key* is the bit pattern of `|x|`; among finite numbers it orders like `|x|` itself.

use std::ops::Range;

/// Elements updated and then scanned while they are in the first-level cache.
const STRIP_LEN: usize = 2048;
/// Independent partial sums; part of the result, so fixed.
const LANES: usize = 16;
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

    fn is_one_key(self) -> bool {
        self.low == self.high
    }
}

/// What one tile contributes to a selection.
#[derive(Debug)]
pub(super) struct TileScan {
    /// Sum of squares of all elements.
    pub sq: f64,
    /// Sum of squares of the elements above the bracket.
    pub above_sq: f64,
    /// Elements above the bracket.
    pub above: usize,
    /// Elements inside the bracket.
    pub within: usize,
    /// Their keys by ascending index, unless all are equal (a bracket of one key) or there were too many.
    pub candidates: Vec<u32>,
    /// There were more candidates than allowed, and `candidates` is not complete.
    pub overflow: bool,
}

/// Applies `update` to each strip of `tile` (it gets the strip's position in the tile), then scans the strip.
/// `Err` holds the position of the first element that is not finite.
pub(super) fn update_and_scan(
    tile: &mut [f32],
    bracket: Bracket,
    limit: usize,
    mut update: impl FnMut(Range<usize>, &mut [f32]),
) -> Result<TileScan, usize> {
    let mut scanner = Scanner::new(bracket, limit);
    let mut start = 0;
    for strip in tile.chunks_mut(STRIP_LEN) {
        update(start..start + strip.len(), strip);
        scanner.strip(strip).map_err(|at| start + at)?;
        start += strip.len();
    }
    Ok(scanner.finish())
}

/// Scans `tile` as it is.
pub(super) fn scan(tile: &[f32], bracket: Bracket, limit: usize) -> Result<TileScan, usize> {
    let mut scanner = Scanner::new(bracket, limit);
    for (i, strip) in tile.chunks(STRIP_LEN).enumerate() {
        scanner.strip(strip).map_err(|at| i * STRIP_LEN + at)?;
    }
    Ok(scanner.finish())
}

struct Scanner {
    bracket: Bracket,
    limit: usize,
    sq: [f64; LANES],
    above_sq: [f64; LANES],
    above: usize,
    within: usize,
    candidates: Vec<u32>,
}

impl Scanner {
    fn new(bracket: Bracket, limit: usize) -> Self {
        let (sq, above_sq) = ([0.0; LANES], [0.0; LANES]);
        Self { bracket, limit, sq, above_sq, above: 0, within: 0, candidates: Vec::new() }
    }

    fn strip(&mut self, strip: &[f32]) -> Result<(), usize> {
        let [above, within, not_finite] = count(strip, self.bracket);
        if not_finite > 0 {
            return Err(strip.iter().position(|x| !x.is_finite()).unwrap_or(0));
        }
        self.above += above;
        self.within += within;
        add_squares(strip, self.bracket.high, &mut self.sq, &mut self.above_sq);
        if within > 0 && !self.bracket.is_one_key() && self.within <= self.limit {
            collect(strip, self.bracket, &mut self.candidates);
        }
        Ok(())
    }

    fn finish(self) -> TileScan {
        let overflow = !self.bracket.is_one_key() && self.within > self.limit;
        let (sq, above_sq) = (self.sq.iter().sum(), self.above_sq.iter().sum());
        let (above, within, candidates) = (self.above, self.within, self.candidates);
        TileScan { sq, above_sq, above, within, candidates, overflow }
    }
}

/// Elements above the bracket, inside it, and not finite. Comparisons are signed because SSE2 has no others; keys
/// stay below 2^31.
fn count(strip: &[f32], bracket: Bracket) -> [usize; 3] {
    let (low, high) = (bracket.low as i32, bracket.high as i32);
    let tally = |counts: &mut [[i32; LANES]; 3], lane: usize, x: f32| {
        let key = key(x) as i32;
        counts[0][lane] += i32::from(key > high);
        counts[1][lane] += i32::from(key >= low);
        counts[2][lane] += i32::from(key > LARGEST_FINITE as i32);
    };
    let mut counts = [[0; LANES]; 3];
    let (chunks, rest) = strip.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in chunk.iter().enumerate() {
            tally(&mut counts, lane, x);
        }
    }
    rest.iter().enumerate().for_each(|(lane, &x)| tally(&mut counts, lane, x));
    let [above, at_least_low, not_finite] = counts.map(|lanes| lanes.iter().sum::<i32>() as usize);
    [above, at_least_low - above, not_finite]
}

fn add_squares(strip: &[f32], high: u32, sq: &mut [f64; LANES], above_sq: &mut [f64; LANES]) {
    let mut add = |lane: usize, x: f32| {
        let above = if key(x) as i32 > high as i32 { x } else { 0.0 };
        sq[lane] += f64::from(x) * f64::from(x);
        above_sq[lane] += f64::from(above) * f64::from(above);
    };
    let (chunks, rest) = strip.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in chunk.iter().enumerate() {
            add(lane, x);
        }
    }
    rest.iter().enumerate().for_each(|(lane, &x)| add(lane, x));
}

fn collect(strip: &[f32], bracket: Bracket, candidates: &mut Vec<u32>) {
    let inside = |x: f32| key(x) as i32 >= bracket.low as i32 && key(x) as i32 <= bracket.high as i32;
    for chunk in strip.chunks(LANES) {
        if chunk.iter().fold(false, |any, &x| any | inside(x)) {
            candidates.extend(chunk.iter().filter(|&&x| inside(x)).map(|&x| key(x)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * 0.25).collect()
    }

    #[test]
    fn a_scan_counts_sums_and_collects() {
        for len in [1, 15, 16, 17, STRIP_LEN - 1, STRIP_LEN + 1, 5000] {
            let x = values(len);
            let bracket = Bracket { low: key(20.0), high: key(60.0) };
            let found = scan(&x, bracket, len).unwrap();
            let above: Vec<f32> = x.iter().copied().filter(|x| x.abs() > 60.0).collect();
            let within: Vec<u32> =
                x.iter().filter(|x| (20.0..=60.0).contains(&x.abs())).map(|&x| key(x)).collect();
            assert_eq!((found.above, found.within, found.overflow), (above.len(), within.len(), false));
            assert_eq!(found.candidates, within);
            // Multiples of 1/16 far below 2^53: the sums are exact in any order.
            assert_eq!(found.sq, x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>());
            assert_eq!(found.above_sq, above.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>());
        }
    }

    #[test]
    fn too_many_candidates_are_reported() {
        let x = values(5000);
        assert!(scan(&x, Bracket::ALL, 4999).unwrap().overflow);
        assert!(!scan(&x, Bracket::ALL, 5000).unwrap().overflow);
        assert!(!scan(&[0.0; 100], Bracket::exactly(0), 10).unwrap().overflow);
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            let mut x = values(5000);
            (x[3001], x[4000]) = (bad, f32::NAN);
            assert_eq!(scan(&x, Bracket::ALL, 5000).unwrap_err(), 3001);
        }
    }
}
