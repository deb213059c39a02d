//! How long each layer of a step takes.

use std::time::{Duration, Instant};

/// What is done with a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Output from input.
    Forward,
    /// Gradients of a layer that is no convolution.
    Backward,
    /// Gradients of a convolution's filter and bias.
    Wgrad,
    /// Gradient of a convolution's input.
    Dgrad,
    /// The loss and its gradient; of the last layer.
    Loss,
}

/// Time of one pass of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerTime {
    /// Number of the layer in the plan.
    pub layer: usize,
    /// What was done.
    pub pass: Pass,
    /// How long.
    pub time: Duration,
}

/// Notes the end of each pass, if it runs.
#[derive(Debug, Default)]
pub(super) struct Clock {
    runs: bool,
    last: Option<Instant>,
    times: Vec<LayerTime>,
}

impl Clock {
    /// Lets it run or not; there is room for the passes of `layers` layers.
    pub fn run(&mut self, runs: bool, layers: usize) {
        self.runs = runs;
        self.times.clear();
        self.times.reserve(if runs { 3 * layers + 1 } else { 0 });
    }

    /// A step begins.
    pub fn begin(&mut self) {
        if self.runs {
            self.times.clear();
            self.last = Some(Instant::now());
        }
    }

    /// A pass is done; it began when the one before ended.
    pub fn end(&mut self, layer: usize, pass: Pass) {
        if self.runs {
            let now = Instant::now();
            let time = now - self.last.unwrap_or(now);
            self.last = Some(now);
            self.times.push(LayerTime { layer, pass, time });
        }
    }

    pub fn times(&self) -> &[LayerTime] {
        &self.times
    }
}
