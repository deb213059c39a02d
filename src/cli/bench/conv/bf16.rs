//! Convolutions with activations in bf16.

use super::{Pass, aligned};
use crate::cli::bench::rows::uniform;
use crate::element::Element;
use crate::ops::conv2d::{self, Epilogue};
use crate::shape::Conv2dShape;
use half::bf16;
use std::hint::black_box;

/// One pass of `n` images, with the filter packed before.
pub(super) fn prepare(shape: Conv2dShape, n: usize, pass: Pass, seed: u64) -> Box<dyn FnMut()> {
    let conv = conv2d::bf16_passes(&shape);
    let mut scratch = vec![0.0; conv.scratch_len(n)];
    let filter = uniform(seed + 1, shape.filter_len());
    let x = rounded(&uniform(seed, n * shape.x_len()));
    let dy = rounded(&uniform(seed + 2, n * shape.y_len()));
    match pass {
        Pass::Fprop => {
            let (mut packed, range) = aligned::<bf16>(conv.packed_fprop_len());
            conv.pack_fprop(&filter, &mut packed[range.clone()]);
            let mut y = dy;
            Box::new(move || {
                let conv = conv2d::bf16_passes(&shape);
                conv.fprop(
                    n,
                    &x,
                    &packed[range.clone()],
                    Epilogue::default(),
                    black_box(&mut y),
                    &mut scratch,
                );
            })
        }
        Pass::Dgrad => {
            let (mut packed, range) = aligned::<bf16>(conv.packed_dgrad_len());
            conv.pack_dgrad(&filter, &mut packed[range.clone()]);
            let mut dx = x;
            Box::new(move || {
                conv2d::bf16_passes(&shape).dgrad(
                    n,
                    &dy,
                    &packed[range.clone()],
                    black_box(&mut dx),
                    &mut scratch,
                );
            })
        }
        Pass::Wgrad => {
            let mut dfilter = vec![0.0; shape.filter_len()];
            Box::new(move || {
                conv2d::bf16_passes(&shape).wgrad(n, &x, &dy, black_box(&mut dfilter), &mut scratch);
            })
        }
    }
}

fn rounded(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| Element::from_f32(value)).collect()
}
