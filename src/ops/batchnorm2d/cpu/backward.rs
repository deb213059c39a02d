//! Backward pass: masked sums per tile, their merge, `dx`.

use super::{Columns, MAX_COLUMNS, TOTALS, scratch_len, tile_len};
use crate::element::Element;
use crate::ops::batchnorm2d::{Extent, Gradients, Saved};
use crate::ops::multiversion::multiversion;
use rayon::prelude::*;

pub(in crate::ops::batchnorm2d) fn backward<E: Element>(
    extent: Extent,
    saved: Saved<'_, E>,
    dy: &mut [E],
    gradients: Gradients<'_, E>,
    scratch: &mut [f32],
) {
    let Extent { rows, c } = extent;
    let tile_len = tile_len(c);
    let totals = &mut scratch[..scratch_len(rows, c)];
    (saved.x.par_chunks(tile_len), dy.par_chunks_mut(tile_len), totals.par_chunks_mut(TOTALS * c))
        .into_par_iter()
        .enumerate()
        .for_each(|(tile, (x, dy, totals))| {
            let y = saved.relu_y.map(|y| &y[tile * tile_len..][..x.len()]);
            tile_gradients(c, x, y, dy, saved.mean, totals);
        });
    merge_gradients(c, totals, saved.inv_std, gradients.dgamma, gradients.dbeta);
    let (dgamma, dbeta) = (&*gradients.dgamma, &*gradients.dbeta);
    (saved.x.par_chunks(tile_len), dy.par_chunks(tile_len), gradients.dx.par_chunks_mut(tile_len))
        .into_par_iter()
        .for_each(|(x, dy, dx)| tile_dx(rows, x, dy, saved, dgamma, dbeta, dx));
}

multiversion! {
    /// Masks `dy` by the ReLU; per channel of a tile, the sum of `dy` and of `dy * (x - mean)`.
    fn tile_gradients<E: Element>(
        c: usize,
        x: &[E],
        y: Option<&[E]>,
        dy: &mut [E],
        mean: &[f32],
        totals: &mut [f32],
    ) {
        let pitch = Columns::pitch(c);
        let (sums, totals) = totals.split_at_mut(c);
        let products = &mut totals[..c];
        for columns in Columns::blocks(c) {
            let mut means = [0.0f32; MAX_COLUMNS];
            let mut sum = [0.0f32; MAX_COLUMNS];
            let mut product = [0.0f32; MAX_COLUMNS];
            columns.spread(mean, &mut means);
            for (i, (x, dy)) in x.chunks(pitch).zip(dy.chunks_mut(pitch)).enumerate() {
                let range = columns.range(x.len());
                let (x, dy) = (&x[range.clone()], &mut dy[range.clone()]);
                if let Some(y) = y {
                    for (dy, y) in dy.iter_mut().zip(&y[i * pitch..][range]) {
                        *dy = if y.to_f32() <= 0.0 { E::default() } else { *dy };
                    }
                }
                for ((((x, dy), mean), sum), product) in
                    x.iter().zip(dy.iter()).zip(&means).zip(&mut sum).zip(&mut product)
                {
                    *sum += dy.to_f32();
                    *product += dy.to_f32() * (x.to_f32() - mean);
                }
            }
            columns.gather(&sum, sums);
            columns.gather(&product, products);
        }
    }

    fn merge_gradients(c: usize, totals: &[f32], inv_std: &[f32], dgamma: &mut [f32], dbeta: &mut [f32]) {
        for start in (0..c).step_by(MAX_COLUMNS) {
            let len = MAX_COLUMNS.min(c - start);
            let mut sum = [0.0f64; MAX_COLUMNS];
            let mut product = [0.0f64; MAX_COLUMNS];
            for totals in totals.chunks_exact(TOTALS * c) {
                for (sum, total) in sum.iter_mut().zip(&totals[start..][..len]) {
                    *sum += f64::from(*total);
                }
                for (product, total) in product.iter_mut().zip(&totals[c + start..][..len]) {
                    *product += f64::from(*total);
                }
            }
            for i in 0..len {
                dbeta[start + i] = sum[i] as f32;
                dgamma[start + i] = (product[i] * f64::from(inv_std[start + i])) as f32;
            }
        }
    }

    /// `dx = gamma * inv_std * (dy - dbeta / rows - (x - mean) * inv_std * dgamma / rows)`.
    fn tile_dx<E: Element>(
        rows: usize,
        x: &[E],
        dy: &[E],
        saved: Saved<'_, E>,
        dgamma: &[f32],
        dbeta: &[f32],
        dx: &mut [E],
    ) {
        let c = saved.mean.len();
        let pitch = Columns::pitch(c);
        let per_row = 1.0 / rows as f32;
        for columns in Columns::blocks(c) {
            let mut mean = [0.0f32; MAX_COLUMNS];
            let mut scale = [0.0f32; MAX_COLUMNS];
            let mut offset = [0.0f32; MAX_COLUMNS];
            let mut slope = [0.0f32; MAX_COLUMNS];
            columns.spread(saved.inv_std, &mut mean);
            columns.spread(saved.gamma, &mut scale);
            columns.spread(dbeta, &mut offset);
            columns.spread(dgamma, &mut slope);
            for i in 0..columns.len {
                scale[i] *= mean[i];
                offset[i] *= per_row;
                slope[i] *= mean[i] * per_row;
            }
            columns.spread(saved.mean, &mut mean);
            for ((x, dy), dx) in x.chunks(pitch).zip(dy.chunks(pitch)).zip(dx.chunks_mut(pitch)) {
                let range = columns.range(x.len());
                let line = x[range.clone()].iter().zip(&dy[range.clone()]).zip(&mut dx[range]);
                for (((x, dy), dx), (((mean, scale), offset), slope)) in
                    line.zip(mean.iter().zip(&scale).zip(&offset).zip(&slope))
                {
                    *dx = E::from_f32(scale * ((dy.to_f32() - offset) - (x.to_f32() - mean) * slope));
                }
            }
        }
    }
}
