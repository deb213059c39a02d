//! Initial parameters and statistics, a pure function of the seed.

use super::plan::Plan;
use super::table::{Init, StatsKind};
use crate::rng::{Philox, Stream};

impl Plan {
    /// Initial parameters: each tensor after its [`Init`], from random numbers of its own.
    pub fn init_params(&self, seed: u64) -> Vec<f32> {
        let mut params = vec![0.0; self.num_params()];
        for (index, entry) in self.params().iter().enumerate() {
            let mut rng = Philox::new(seed, Stream::Init, index as u64);
            let tensor = params[entry.range.clone()].iter_mut();
            match entry.init {
                Init::Constant(value) => tensor.for_each(|p| *p = value),
                Init::Normal { std } => tensor.for_each(|p| *p = (std * rng.normal()) as f32),
                Init::Uniform { bound } => {
                    tensor.for_each(|p| *p = (bound * (2.0 * rng.uniform_f64() - 1.0)) as f32)
                }
            }
        }
        params
    }

    /// Initial batch-norm statistics: mean 0, variance 1.
    pub fn init_stats(&self) -> Vec<f32> {
        let mut stats = vec![0.0; self.num_stats()];
        for entry in self.stats().iter().filter(|entry| entry.kind == StatsKind::RunningVar) {
            stats[entry.range.clone()].fill(1.0);
        }
        stats
    }
}
