//! Detection of change in the streams.

use serde::{Deserialize, Serialize};

/// Detector of change, per device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DriftConfig {
    /// None.
    #[default]
    Off,
    /// Page-Hinkley test on the loss, total variation between windows on the labels.
    PageHinkley(PageHinkleyConfig),
}

/// Thresholds, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PageHinkleyConfig {
    /// Standard deviations by which a loss may exceed the recent mean, at least 0. Default 0.5.
    pub tolerance: f64,
    /// The loss has drifted when what is beyond adds up to this many standard deviations, above 0. Default 12.
    pub threshold: f64,
    /// Labels in each of the two windows that are compared, 10 to 1000000. Default 200.
    pub label_window: usize,
    /// The labels have drifted when the windows' shares differ by this much more than chance would have it, above 0 and
    /// at most 1. Default 0.25.
    pub label_distance: f64,
    /// What a drift changes. Default `none`.
    pub react: DriftReaction,
    /// First factor on the learning rate under `lr-boost`, above 0, at most 100. Default 2.
    pub boost: f64,
    /// Steps in which that factor goes back to 1, at least 1. Default 20.
    pub boost_steps: usize,
}

impl Default for PageHinkleyConfig {
    fn default() -> Self {
        Self {
            tolerance: 0.5,
            threshold: 12.0,
            label_window: 200,
            label_distance: 0.25,
            react: DriftReaction::None,
            boost: 2.0,
            boost_steps: 20,
        }
    }
}

/// What a drift changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftReaction {
    /// Nothing: it is recorded.
    #[default]
    None,
    /// The learning rate of all devices is raised for a while.
    LrBoost,
    /// The device drops what it holds but the newest, what one second brings; under truncation with `buffer.keep`.
    KeepNewest,
}
