//! The streams of a configuration's devices without a trainer: what a publisher plays.

use super::config::RunConfig;
use super::setup;
use crate::error::Result;
use crate::shape::ImageShape;
use crate::stream::StreamError;
use crate::stream::rates::RateModel;
use crate::stream::source::ReplaySource;

/// The share of the training data of every device, at its rate: the same that a run of the configuration replays.
pub struct DeviceSources {
    /// Size of every image.
    pub shape: ImageShape,
    /// One per device.
    pub sources: Vec<ReplaySource>,
    /// Long-run mean rate of each, samples/s.
    pub rates: Vec<f64>,
}

impl DeviceSources {
    /// Loads the data set and splits it.
    ///
    /// # Errors
    /// Data that cannot be read or split, rates that cannot be made.
    pub fn new(config: &RunConfig) -> Result<Self> {
        let train = setup::load_data(config)?.train;
        config.validate_classes("training", train.classes())?;
        let devices = config.cluster.devices;
        let rates = RateModel::new(&config.cluster.rates, &config.cluster.arrivals, devices, config.seed)
            .map_err(StreamError::from)?;
        let sources = setup::replay_sources(config, &train, &rates, 0..devices)?;
        let rates = (0..devices).map(|device| rates.mean(device).0).collect();
        Ok(Self { shape: train.shape(), sources, rates })
    }
}
