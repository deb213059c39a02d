//! Loss and accuracy of the current parameters on the test set.

use super::gather::InputRule;
use crate::data::Dataset;
use crate::error::Result;
use crate::nn::Executor;
use crate::ops::input::{self, Placement};
use crate::ops::softmax_xent::LossStats;
use rayon::prelude::*;

/// Most images of one forward pass: enough to keep all threads busy, little memory.
const CHUNK: usize = 250;

/// A test set and room for one chunk of it.
pub(crate) struct Evaluator {
    test: Dataset,
    x: Vec<f32>,
    chunk: usize,
}

impl Evaluator {
    /// Evaluates on `test` with a network planned for `max_batch` images.
    pub fn new(test: Dataset, max_batch: usize) -> Self {
        let chunk = max_batch.min(CHUNK).min(test.len().max(1));
        Self { x: vec![0.0; chunk * test.shape().numel()], test, chunk }
    }

    /// Sums over the whole test set.
    pub fn evaluate(
        &mut self,
        executor: &mut Executor,
        inputs: &InputRule,
        params: &[f32],
        stats: &[f32],
    ) -> Result<LossStats> {
        let image_len = inputs.image.numel();
        let mut total = LossStats::default();
        for start in (0..self.test.len()).step_by(self.chunk) {
            let n = self.chunk.min(self.test.len() - start);
            let x = &mut self.x[..n * image_len];
            x.par_chunks_exact_mut(image_len).enumerate().for_each(|(i, out)| {
                let pixels = self.test.image(start + i);
                input::write_image(inputs.image, pixels, &inputs.normalizer, Placement::default(), out);
            });
            total = total + executor.evaluate(x, &self.test.labels()[start..start + n], params, stats)?;
        }
        Ok(total)
    }

    /// Images of the test set.
    pub fn len(&self) -> usize {
        self.test.len()
    }
}
