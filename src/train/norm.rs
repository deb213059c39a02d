//! Euclidean norm of a flat vector.

use rayon::prelude::*;

/// Elements summed by one task.
const TILE_LEN: usize = 1 << 14;

/// `|x|_2`: sums of squares in f64 over fixed tiles, so that the thread count does not change a bit of it.
pub(crate) fn l2_norm(x: &[f32]) -> f64 {
    let squares = |tile: &[f32]| tile.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    let tiles: Vec<f64> = x.par_chunks(TILE_LEN).map(squares).collect();
    tiles.iter().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_covers_all_tiles_and_lets_nan_through() {
        let mut x = vec![0.0; 3 * TILE_LEN + 5];
        (x[0], x[TILE_LEN], x[3 * TILE_LEN + 4]) = (2.0, -3.0, 6.0);
        assert_eq!(l2_norm(&x), 7.0);
        x[9] = f32::NAN;
        assert!(l2_norm(&x).is_nan());
        assert_eq!(l2_norm(&[]), 0.0);
    }
}
