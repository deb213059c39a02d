//! Data injection: in each step a random fraction alpha of the devices shares a fraction beta of its batch with all
//! others, so that devices with few labels see the rest (paper, section on non-IID data).

use crate::rng::{Philox, Stream};
use crate::train::config::{InjectedBatch, InjectionConfig};

/// Who shares what in which step: a function of the seed, the step and the rank alone.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    config: InjectionConfig,
    seed: u64,
    world_size: usize,
}

impl Injection {
    /// Injection among `world_size` devices.
    pub fn new(config: InjectionConfig, seed: u64, world_size: usize) -> Self {
        Self { config, seed, world_size }
    }

    /// Whether any sample is ever shared.
    pub fn is_active(&self) -> bool {
        self.config.alpha > 0.0 && self.config.beta > 0.0 && self.world_size > 1
    }

    /// Samples of its own that a device takes so that the batch with what it is given is about `batch`:
    /// `b / (1 + alpha beta N)` (SelSync). Under the paper's rule, `batch` itself: shared samples come on top.
    pub fn own_batch(&self, batch: usize) -> usize {
        if !self.is_active() || self.config.batch == InjectedBatch::Paper {
            return batch;
        }
        let growth = 1.0 + self.config.alpha * self.config.beta * self.world_size as f64;
        ((batch as f64 / growth).round() as usize).max(1)
    }

    /// The devices that share in `step`, ascending: `ceil(alpha N)` of them.
    pub fn givers(&self, step: u64) -> Vec<usize> {
        if !self.is_active() {
            return Vec::new();
        }
        let count = share(self.config.alpha, self.world_size);
        choose(&mut Philox::new(self.seed, Stream::Injection, step << 16), self.world_size, count)
    }

    /// Positions within its batch that device `rank` shares in `step`, ascending: `ceil(beta b)` of them.
    pub fn shared_positions(&self, step: u64, rank: usize, own_batch: usize) -> Vec<usize> {
        let count = share(self.config.beta, own_batch);
        choose(
            &mut Philox::new(self.seed, Stream::Injection, step << 16 | (rank as u64 + 1)),
            own_batch,
            count,
        )
    }

    /// The largest batch with injection, if no device has more than `largest_own` samples of its own.
    pub fn largest_batch(&self, largest_own: usize) -> usize {
        if !self.is_active() {
            return largest_own;
        }
        let own = self.own_batch(largest_own);
        own + share(self.config.alpha, self.world_size) * share(self.config.beta, own)
    }
}

/// `ceil(fraction * whole)`, without the round-off that would make 0.1 * 10 two.
fn share(fraction: f64, whole: usize) -> usize {
    ((fraction * whole as f64 - 1e-9).ceil() as usize).min(whole)
}

/// `count` of `0..whole`, each subset equally likely, ascending.
fn choose(rng: &mut Philox, whole: usize, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..whole).collect();
    rng.shuffle(&mut all);
    all.truncate(count);
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection(alpha: f64, beta: f64, batch: InjectedBatch) -> Injection {
        Injection::new(InjectionConfig { alpha, beta, batch }, 7, 10)
    }

    #[test]
    fn fractions_round_up_as_in_figure_9() {
        // 10 devices, alpha = beta = 0.1, 38 samples: one device shares four images.
        let rule = injection(0.1, 0.1, InjectedBatch::Paper);
        assert_eq!((rule.givers(3).len(), rule.shared_positions(3, 0, 38).len()), (1, 4));
        let rule = injection(0.5, 0.5, InjectedBatch::Paper);
        assert_eq!((rule.givers(3).len(), rule.shared_positions(3, 0, 38).len()), (5, 19));
    }

    #[test]
    fn choices_change_with_step_and_rank_but_not_between_runs() {
        let rule = injection(0.5, 0.5, InjectedBatch::Paper);
        assert_eq!(rule.givers(1), rule.givers(1));
        assert!((1..20).any(|step| rule.givers(step) != rule.givers(0)));
        assert_ne!(rule.shared_positions(1, 0, 64), rule.shared_positions(1, 1, 64));
        assert!(rule.shared_positions(1, 0, 64).windows(2).all(|pair| pair[0] < pair[1]));
    }

    /// Defect 5 of the reference code: injection only inflates the batch. The corrected batch keeps its size.
    #[test]
    fn the_corrected_batch_stays_about_as_large_as_without_injection() {
        let (paper, selsync) =
            (injection(0.5, 0.5, InjectedBatch::Paper), injection(0.5, 0.5, InjectedBatch::Selsync));
        let total = |rule: &Injection| {
            let own = rule.own_batch(70);
            own + rule.givers(0).len() * rule.shared_positions(0, 0, own).len()
        };
        assert_eq!(total(&selsync), 70);
        assert_eq!(total(&paper), 70 + 5 * 35, "the defective order grows the batch 3.5 times");
        assert_eq!(selsync.largest_batch(70), 70);
    }

    #[test]
    fn without_alpha_or_beta_or_others_nothing_is_shared() {
        for rule in [
            injection(0.0, 0.5, InjectedBatch::Selsync),
            injection(0.5, 0.0, InjectedBatch::Selsync),
            Injection::new(InjectionConfig { alpha: 0.5, beta: 0.5, batch: InjectedBatch::Paper }, 7, 1),
        ] {
            assert!(rule.givers(0).is_empty());
            assert_eq!((rule.own_batch(64), rule.largest_batch(64)), (64, 64));
        }
    }
}
