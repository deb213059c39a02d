//! Gradient of a bias: `dbias[k] = sum over rows of dy[row, k]`, in fixed blocks of rows.

use crate::element::Element;
use rayon::prelude::*;

/// Rows that one partial sum covers. Fixed, so that the order of additions depends on the shape alone.
const BLOCK_ROWS: usize = 512;

/// Floats of scratch that [`bias_backward`] needs for up to `max_rows` rows of `k` channels.
pub fn bias_scratch_len(max_rows: usize, k: usize) -> usize {
    max_rows.div_ceil(BLOCK_ROWS) * k
}

/// `dbias[k] = sum over rows of dy[row, k]`; overwrites `dbias`. For a convolution `rows` is N * P * Q.
///
/// # Shapes
/// `dy` `[rows, k]`, `dbias` `[k]`, `scratch` at least [`bias_scratch_len`].
///
/// # Panics
/// If a slice has another length.
pub fn bias_backward<E: Element>(rows: usize, k: usize, dy: &[E], dbias: &mut [f32], scratch: &mut [f32]) {
    let scratch_len = bias_scratch_len(rows, k);
    assert!(
        dy.len() == rows * k && dbias.len() == k && scratch.len() >= scratch_len,
        "bias_backward: {rows} rows of {k} channels need dy {}, dbias {k}, scratch {scratch_len}; got {}, {}, {}",
        rows * k,
        dy.len(),
        dbias.len(),
        scratch.len(),
    );
    dbias.fill(0.0);
    if rows == 0 || k == 0 {
        return;
    }
    let partial_sums = &mut scratch[..scratch_len];
    partial_sums.par_chunks_mut(k).zip(dy.par_chunks(BLOCK_ROWS * k)).for_each(|(sums, block)| {
        sums.fill(0.0);
        for row in block.chunks_exact(k) {
            add(sums, row);
        }
    });
    for sums in partial_sums.chunks_exact(k) {
        add(dbias, sums);
    }
}

fn add<E: Element>(sums: &mut [f32], values: &[E]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_whole_numbers_exactly_across_blocks() {
        for rows in [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS] {
            let dy: Vec<f32> = (0..rows * 3).map(|i| (i % 3) as f32).collect();
            let mut dbias = [f32::NAN; 3];
            let mut scratch = vec![f32::NAN; bias_scratch_len(rows, 3)];
            bias_backward(rows, 3, &dy, &mut dbias, &mut scratch);
            assert_eq!(dbias, [0.0, rows as f32, 2.0 * rows as f32]);
        }
    }

    #[test]
    #[should_panic(expected = "bias_backward: 2 rows of 3 channels need dy 6")]
    fn rejects_a_short_gradient() {
        bias_backward(2, 3, &[0.0f32; 5], &mut [0.0; 3], &mut [0.0; 3]);
    }
}
