//! The gate: is what compression would drop small enough to send compressed?
//!
//! Each device watches the share of its compensated gradient that top-k would drop, averaged over steps ([`Gate`]); one
//! rule turns all devices' averages into one decision for the step ([`decide`]), because all must join the same
//! collective.

use super::topk::Norms;
use crate::train::config::GateConfig;

/// Running average of one device. Starts empty; two numbers for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    config: GateConfig,
    state: GateState,
}

/// What a [`Gate`] remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GateState {
    /// Average of the values seen.
    pub average: f64,
    /// Values seen: since the run began, or since the epoch began in the reference form.
    pub count: u64,
}

/// What one device with samples says about a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vote {
    /// Its averaged gate value: smaller is more compressible.
    pub value: f64,
    /// Its weight in the step; 0 abstains.
    pub agg_weight: f64,
}

/// What all devices send in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The whole compensated gradient.
    Dense,
    /// Its top-k.
    Compressed,
}

impl Gate {
    /// A gate that has seen nothing.
    pub fn new(config: GateConfig) -> Self {
        Self { config, state: GateState::default() }
    }

    /// Takes the norms of a step into the average and returns the average.
    ///
    /// Paper: the share of `|p|^2` that is dropped, in an exponential average that the first value starts. Reference:
    /// the share of the sum over layers of `|p_l|`, in a plain mean. A vector of zeros loses nothing: its value is 0.
    pub fn observe(&mut self, norms: &Norms) -> f64 {
        let state = &mut self.state;
        state.count += 1;
        let (value, share) = match self.config {
            GateConfig::Always => (0.0, 1.0),
            GateConfig::Paper { ewma, .. } => {
                (dropped(norms.squared, norms.topk_squared), if state.count == 1 { 1.0 } else { ewma })
            }
            GateConfig::Reference { .. } => {
                (dropped(norms.layer_sum, norms.layer_topk_sum), 1.0 / state.count as f64)
            }
        };
        state.average += share * (value - state.average);
        state.average
    }

    /// Begins an epoch: the reference form forgets what it has seen, the others do not.
    pub fn start_epoch(&mut self) {
        if matches!(self.config, GateConfig::Reference { .. }) {
            self.state = GateState::default();
        }
    }

    /// Average and count, for a checkpoint.
    pub fn state(&self) -> GateState {
        self.state
    }

    /// Continues from a checkpoint.
    pub fn restore(&mut self, state: GateState) {
        self.state = state;
    }
}

/// `abs(whole - kept) / whole`.
fn dropped(whole: f64, kept: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { (whole - kept).abs() / whole }
}

/// One decision from the votes of all devices that have samples.
///
/// - `Always` compresses.
/// - `Paper`: the mean of the values, weighted by `agg_weight`, is at most delta. The paper decides per device and does
///   not say how devices agree; this is our choice. A device counts as much as its gradient does.
/// - `Reference`: a device whose value is at most delta votes for compression, which wins with `floor(N/2)` of the N
///   votes, at least one. (The code it follows asks for none when N is 1, and so always compresses.)
///
/// Without any vote nobody has anything to send, and empty payloads are the cheapest way to say so. A value that is
/// NaN never votes for compression.
pub fn decide(config: &GateConfig, votes: &[Vote]) -> Decision {
    let voters = || votes.iter().filter(|vote| vote.agg_weight > 0.0);
    let compress = match *config {
        GateConfig::Always => true,
        GateConfig::Paper { delta, .. } => {
            let total: f64 = voters().map(|vote| vote.agg_weight).sum();
            let sum: f64 = voters().map(|vote| vote.agg_weight * vote.value).sum();
            total == 0.0 || sum / total <= delta
        }
        GateConfig::Reference { delta } => {
            let (asked, won) = (voters().count(), voters().filter(|vote| vote.value <= delta).count());
            asked == 0 || won >= (asked / 2).max(1)
        }
    };
    if compress { Decision::Compressed } else { Decision::Dense }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: GateConfig = GateConfig::Paper { delta: 0.3, ewma: 0.25 };
    const REFERENCE: GateConfig = GateConfig::Reference { delta: 0.3 };

    fn norms(dropped: f64) -> Norms {
        let (squared, layer_sum) = (8.0, 4.0);
        let (topk_squared, layer_topk_sum) = (squared * (1.0 - dropped), layer_sum * (1.0 - dropped / 2.0));
        Norms { squared, topk_squared, layer_sum, layer_topk_sum, num_kept: 1 }
    }

    fn votes(values: &[f64]) -> Vec<Vote> {
        values.iter().map(|&value| Vote { value, agg_weight: 1.0 / values.len() as f64 }).collect()
    }

    #[test]
    fn the_paper_form_averages_exponentially_from_the_first_value_and_through_epochs() {
        let mut gate = Gate::new(PAPER);
        assert_eq!(gate.observe(&norms(0.5)), 0.5);
        gate.start_epoch();
        assert_eq!(gate.observe(&norms(0.25)), 0.5 + 0.25 * (0.25 - 0.5));
        let mut resumed = Gate::new(PAPER);
        resumed.restore(gate.state());
        assert_eq!(resumed.observe(&norms(1.0)), gate.observe(&norms(1.0)));
    }

    #[test]
    fn the_reference_form_is_a_mean_of_layer_sums_within_the_epoch() {
        let mut gate = Gate::new(REFERENCE);
        assert_eq!(gate.observe(&norms(0.5)), 0.25);
        assert_eq!(gate.observe(&norms(0.25)), (0.25 + 0.125) / 2.0);
        gate.start_epoch();
        assert_eq!(gate.observe(&norms(0.75)), 0.375);
    }

    #[test]
    fn zeros_drop_nothing() {
        assert_eq!(Gate::new(PAPER).observe(&Norms::default()), 0.0);
        assert_eq!(Gate::new(REFERENCE).observe(&Norms::default()), 0.0);
    }

    #[test]
    fn the_paper_decision_weighs_devices_by_their_samples() {
        let vote = |value, agg_weight| Vote { value, agg_weight };
        assert_eq!(decide(&PAPER, &[vote(0.2, 0.9), vote(0.9, 0.1)]), Decision::Compressed);
        assert_eq!(decide(&PAPER, &[vote(0.2, 0.5), vote(0.9, 0.5)]), Decision::Dense);
        assert_eq!(decide(&PAPER, &[vote(0.2, 0.5), vote(f64::NAN, 0.0)]), Decision::Compressed);
        assert_eq!(decide(&PAPER, &[vote(f64::NAN, 1.0)]), Decision::Dense);
    }

    #[test]
    fn the_reference_decision_needs_half_of_the_votes_rounded_down_and_at_least_one() {
        assert_eq!(decide(&REFERENCE, &votes(&[0.1, 0.9, 0.9])), Decision::Compressed);
        assert_eq!(decide(&REFERENCE, &votes(&[0.1, 0.9, 0.9, 0.9])), Decision::Dense);
        assert_eq!(decide(&REFERENCE, &votes(&[0.1, 0.9, 0.9, 0.3])), Decision::Compressed);
        assert_eq!(decide(&REFERENCE, &votes(&[0.9])), Decision::Dense);
        assert_eq!(decide(&REFERENCE, &votes(&[0.3])), Decision::Compressed);
    }

    #[test]
    fn without_votes_and_with_always_the_step_is_compressed() {
        assert!([PAPER, REFERENCE].iter().all(|config| decide(config, &[]) == Decision::Compressed));
        assert_eq!(decide(&GateConfig::Always, &votes(&[f64::NAN])), Decision::Compressed);
    }
}
