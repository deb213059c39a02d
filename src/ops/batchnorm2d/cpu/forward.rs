//! Forward passes: statistics per tile, their merge, normalisation with the epilogue.

use super::{Columns, MAX_COLUMNS, TOTALS, scratch_len, tile_len};
use crate::element::Element;
use crate::ops::batchnorm2d::{
    EPS, Epilogue, Extent, MOMENTUM, Parameters, RunningStatistics, TrainStatistics,
};
use crate::ops::multiversion::multiversion;
use rayon::prelude::*;

/// Rows whose mean is the pivot of a tile's sums.
const PIVOT_ROWS: usize = 8;

pub(in crate::ops::batchnorm2d) fn forward_train<E: Element>(
    extent: Extent,
    x: &[E],
    parameters: Parameters<'_>,
    epilogue: Epilogue<'_, E>,
    y: &mut [E],
    statistics: TrainStatistics<'_>,
    scratch: &mut [f32],
) {
    let Extent { rows, c } = extent;
    let totals = &mut scratch[..scratch_len(rows, c)];
    (x.par_chunks(tile_len(c)), totals.par_chunks_mut(TOTALS * c))
        .into_par_iter()
        .for_each(|(x, totals)| tile_statistics(c, x, totals));
    let mut statistics = statistics;
    merge_statistics(extent, totals, &mut statistics);
    let (mean, inv_std) = (&*statistics.saved_mean, &*statistics.saved_inv_std);
    normalize(c, x, epilogue, y, |columns, affine| {
        columns.spread(mean, &mut affine.mean);
        columns.spread(inv_std, &mut affine.scale);
        columns.finish(parameters, affine);
    });
}

pub(in crate::ops::batchnorm2d) fn forward_eval<E: Element>(
    extent: Extent,
    x: &[E],
    parameters: Parameters<'_>,
    running: RunningStatistics<'_>,
    epilogue: Epilogue<'_, E>,
    y: &mut [E],
) {
    normalize(extent.c, x, epilogue, y, |columns, affine| {
        columns.spread(running.mean, &mut affine.mean);
        columns.spread(running.var, &mut affine.scale);
        affine.scale.iter_mut().for_each(|var| *var = 1.0 / (*var + EPS).sqrt());
        columns.finish(parameters, affine);
    });
}

/// `(x - mean) * scale + beta` per column. The subtraction comes first: folding the mean into `beta` would
/// lose the digits that a large mean takes.
struct Affine {
    mean: [f32; MAX_COLUMNS],
    scale: [f32; MAX_COLUMNS],
    beta: [f32; MAX_COLUMNS],
}

fn normalize<E: Element>(
    c: usize,
    x: &[E],
    epilogue: Epilogue<'_, E>,
    y: &mut [E],
    fill: impl Fn(Columns, &mut Affine) + Sync,
) {
    let tile_len = tile_len(c);
    (x.par_chunks(tile_len), y.par_chunks_mut(tile_len)).into_par_iter().enumerate().for_each(
        |(tile, (x, y))| {
            let shortcut = epilogue.shortcut.map(|shortcut| &shortcut[tile * tile_len..][..x.len()]);
            let mut affine =
                Affine { mean: [0.0; MAX_COLUMNS], scale: [0.0; MAX_COLUMNS], beta: [0.0; MAX_COLUMNS] };
            for columns in Columns::blocks(c) {
                fill(columns, &mut affine);
                tile_normalize(columns, &affine, x, shortcut, epilogue.relu, y);
            }
        },
    );
}

impl Columns {
    /// From `mean` and `inv_std` (in the place of `scale`) to the whole affine map.
    #[inline(always)]
    fn finish(self, parameters: Parameters<'_>, affine: &mut Affine) {
        self.spread(parameters.gamma, &mut affine.beta);
        affine.scale.iter_mut().zip(&affine.beta).for_each(|(scale, gamma)| *scale *= gamma);
        self.spread(parameters.beta, &mut affine.beta);
    }
}

multiversion! {
    /// Per channel of a tile: a pivot, the sum of `x - pivot` and the sum of its squares.
    ///
    /// The pivot is the mean of `k` of the tile's `n` values, so `(mean - pivot)^2 <= var * n / k`
    /// (Cauchy-Schwarz): removing the square of the mean later cancels at most that many times the variance.
    fn tile_statistics<E: Element>(c: usize, x: &[E], totals: &mut [f32]) {
        let (pivots, totals) = totals.split_at_mut(c);
        let (sums, squares) = totals.split_at_mut(c);
        let head = &x[..x.len().min(PIVOT_ROWS * c)];
        pivots.fill(0.0);
        for row in head.chunks_exact(c) {
            for (pivot, x) in pivots.iter_mut().zip(row) {
                *pivot += x.to_f32();
            }
        }
        let pivot_scale = c as f32 / head.len() as f32;
        pivots.iter_mut().for_each(|pivot| *pivot *= pivot_scale);
        for columns in Columns::blocks(c) {
            let mut pivot = [0.0f32; MAX_COLUMNS];
            let mut sum = [0.0f32; MAX_COLUMNS];
            let mut square = [0.0f32; MAX_COLUMNS];
            columns.spread(pivots, &mut pivot);
            for line in x.chunks(Columns::pitch(c)) {
                let line = &line[columns.range(line.len())];
                for (((x, pivot), sum), square) in line.iter().zip(&pivot).zip(&mut sum).zip(&mut square) {
                    let shifted = x.to_f32() - pivot;
                    *sum += shifted;
                    *square += shifted * shifted;
                }
            }
            columns.gather(&sum, sums);
            columns.gather(&square, squares);
        }
    }

    /// Mean and variance per channel from the totals of all tiles, in f64 (Chan, Golub, LeVeque 1983).
    fn merge_statistics(extent: Extent, totals: &[f32], statistics: &mut TrainStatistics<'_>) {
        let Extent { rows, c } = extent;
        let tile_rows = tile_len(c) / c;
        for start in (0..c).step_by(MAX_COLUMNS) {
            let len = MAX_COLUMNS.min(c - start);
            let mut mean_f64 = [0.0f64; MAX_COLUMNS];
            let mut deviation = [0.0f64; MAX_COLUMNS];
            for (tile, totals) in totals.chunks_exact(TOTALS * c).enumerate() {
                let n = tile_rows.min(rows - tile * tile_rows) as f64;
                let (pivots, sums) = (&totals[start..][..len], &totals[c + start..][..len]);
                for ((mean, pivot), sum) in mean_f64.iter_mut().zip(pivots).zip(sums) {
                    *mean += n * f64::from(*pivot) + f64::from(*sum);
                }
            }
            mean_f64.iter_mut().for_each(|mean| *mean /= rows as f64);
            for (tile, totals) in totals.chunks_exact(TOTALS * c).enumerate() {
                let n = tile_rows.min(rows - tile * tile_rows) as f64;
                let per_row = 1.0 / n;
                let (pivots, sums) = (&totals[start..][..len], &totals[c + start..][..len]);
                let squares = &totals[2 * c + start..][..len];
                for ((((mean, deviation), pivot), sum), square) in
                    mean_f64.iter().zip(&mut deviation).zip(pivots).zip(sums).zip(squares)
                {
                    let sum = f64::from(*sum);
                    let apart = f64::from(*pivot) + sum * per_row - mean;
                    *deviation += (f64::from(*square) - sum * sum * per_row) + n * apart * apart;
                }
            }
            for i in 0..len {
                // Written so that NaN passes and only a rounding below 0 is cut.
                let deviation = if deviation[i] < 0.0 { 0.0 } else { deviation[i] };
                let (biased, unbiased) = (deviation / rows as f64, deviation / (rows - 1).max(1) as f64);
                let channel = start + i;
                statistics.saved_mean[channel] = mean_f64[i] as f32;
                statistics.saved_inv_std[channel] = (1.0 / (biased + f64::from(EPS)).sqrt()) as f32;
                update_running(&mut statistics.running_mean[channel], mean_f64[i] as f32);
                update_running(&mut statistics.running_var[channel], unbiased as f32);
            }
        }
    }

    fn tile_normalize<E: Element>(
        columns: Columns,
        affine: &Affine,
        x: &[E],
        shortcut: Option<&[E]>,
        relu: bool,
        y: &mut [E],
    ) {
        let pitch = Columns::pitch(columns.c);
        for (i, (x, y)) in x.chunks(pitch).zip(y.chunks_mut(pitch)).enumerate() {
            let range = columns.range(x.len());
            let shortcut = shortcut.map(|shortcut| &shortcut[i * pitch..][range.clone()]);
            let (x, y) = (&x[range.clone()], &mut y[range]);
            match (shortcut, relu) {
                (None, false) => line_normalize(affine, x, y, |value| value),
                (None, true) => line_normalize(affine, x, y, rectify),
                (Some(shortcut), false) => line_normalize_add(affine, x, shortcut, y, |value| value),
                (Some(shortcut), true) => line_normalize_add(affine, x, shortcut, y, rectify),
            }
        }
    }
}

#[inline(always)]
fn line_normalize<E: Element>(affine: &Affine, x: &[E], y: &mut [E], activation: impl Fn(f32) -> f32) {
    let parameters = affine.mean.iter().zip(&affine.scale).zip(&affine.beta);
    for ((x, y), ((mean, scale), beta)) in x.iter().zip(y).zip(parameters) {
        *y = E::from_f32(activation((x.to_f32() - mean) * scale + beta));
    }
}

#[inline(always)]
fn line_normalize_add<E: Element>(
    affine: &Affine,
    x: &[E],
    shortcut: &[E],
    y: &mut [E],
    activation: impl Fn(f32) -> f32,
) {
    let parameters = affine.mean.iter().zip(&affine.scale).zip(&affine.beta);
    for (((x, shortcut), y), ((mean, scale), beta)) in x.iter().zip(shortcut).zip(y).zip(parameters) {
        *y = E::from_f32(activation((x.to_f32() - mean) * scale + beta + shortcut.to_f32()));
    }
}

/// ReLU that lets NaN through.
#[inline(always)]
fn rectify(value: f32) -> f32 {
    if value <= 0.0 { 0.0 } else { value }
}

#[inline(always)]
fn update_running(running: &mut f32, new: f32) {
    *running = (1.0 - MOMENTUM) * *running + MOMENTUM * new;
}
