//! Loss and accuracy of the current parameters on the test set.

use super::device_batch::DeviceBatch;
use super::engine::Engine;
use super::gather::InputRule;
use crate::data::Dataset;
use crate::error::Result;
use crate::ops::softmax_xent::LossStats;

/// Most images of one forward pass: enough to keep all threads busy, little memory.
const CHUNK: usize = 250;

/// A test set and room for one chunk of it.
pub(crate) struct Evaluator {
    test: Dataset,
    batch: DeviceBatch,
    chunk: usize,
}

impl Evaluator {
    /// Evaluates on `test` with a network planned for `max_batch` images.
    pub fn new(test: Dataset, max_batch: usize, engine: &dyn Engine) -> Result<Self> {
        let chunk = max_batch.min(CHUNK).min(test.len().max(1));
        Ok(Self { batch: engine.new_batch(chunk)?, test, chunk })
    }

    /// Sums over the whole test set, with these batch-norm statistics.
    pub fn evaluate(
        &mut self,
        engine: &mut dyn Engine,
        inputs: &InputRule,
        stats: &[f32],
    ) -> Result<LossStats> {
        engine.begin_evaluation(stats)?;
        let mut total = LossStats::default();
        for start in (0..self.test.len()).step_by(self.chunk) {
            let end = self.test.len().min(start + self.chunk);
            self.batch.fill(inputs, &self.test, start..end);
            total = total + engine.evaluate(&self.batch)?;
        }
        Ok(total)
    }

    /// Images of the test set.
    pub fn len(&self) -> usize {
        self.test.len()
    }
}
