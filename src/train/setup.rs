//! From a configuration to everything a run needs: data, streams, network, devices.

use super::batch::largest_batch;
use super::engine::Engine;
use super::gather::{BatchRule, InputRule};
use super::injection::Injection;
use super::local_device::LocalDevice;
use crate::cluster::device_profile::NetworkCost;
use crate::cluster::{Clock, DeviceProfile};
use crate::data::{self, DataSets, Dataset};
use crate::error::{Error, Result};
use crate::models::{self, ModelSpec};
use crate::nn::{Op, Plan};
use crate::ops::input::{Augment, Normalizer};
use crate::stream::rates::RateModel;
use crate::stream::source::{ReplaySource, Samples, SocketOptions, SocketSource, Source};
use crate::stream::{DeviceStream, LiveOptions, LiveStream, StreamError, VirtualStream};
use crate::train::config::{RunConfig, SourceConfig};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Padding of the random crop, as usual for CIFAR.
const CROP_PAD: usize = 4;
/// Images of the two steps that measure this machine's speed.
const MEASURED_BATCHES: (usize, usize) = (8, 64);

impl Samples for Dataset {
    fn len(&self) -> usize {
        self.len()
    }

    fn pixel_bytes(&self) -> usize {
        self.shape().numel()
    }

    fn pixels(&self, index: u32) -> &[u8] {
        self.image(index as usize)
    }

    fn label(&self, index: u32) -> u32 {
        self.label(index as usize)
    }
}

/// The data set that the configuration names.
pub(crate) fn load_data(config: &RunConfig) -> Result<DataSets> {
    Ok(match &config.data.dir {
        Some(dir) => data::load(dir)?,
        None => data::embedded(config.seed, config.data.embedded_train, config.data.embedded_test),
    })
}

/// The network's plan for the largest batch of the cluster.
pub(crate) fn plan_network(config: &RunConfig, data: &DataSets, rates: &[f64]) -> Result<Plan> {
    let found = data.train.classes();
    config.validate_classes(&data.name.to_string(), found)?;
    let classes = if config.model.classes == 0 { found } else { config.model.classes };
    let spec = ModelSpec {
        name: config.model.name.clone(),
        stem: config.model.stem,
        classes,
        width: config.model.width,
        image: data.train.shape(),
    };
    let own = largest_batch(&config.batch, &config.cluster.arrivals, rates);
    let injection = Injection::new(config.injection, config.seed, config.cluster.devices);
    Ok(models::plan(&spec, injection.largest_batch(own))?)
}

/// A checksum of images and labels.
pub(crate) fn fingerprint(data: &Dataset) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    (0..data.len()).for_each(|index| {
        hasher.update(data.image(index));
        hasher.update(&data.label(index).to_le_bytes());
    });
    hasher.finalize()
}

/// How batches are sized.
pub(crate) fn batch_rule(config: &RunConfig, max_batch: usize) -> BatchRule {
    BatchRule {
        config: config.batch,
        injection: Injection::new(config.injection, config.seed, config.cluster.devices),
        wait_limit: Duration::from_secs_f64(config.cluster.wait_limit_s),
        max_batch,
    }
}

/// How pixels become a batch.
pub(crate) fn input_rule(config: &RunConfig, train: &Dataset) -> InputRule {
    let crop_pad = if config.data.augment { CROP_PAD } else { 0 };
    InputRule {
        image: train.shape(),
        normalizer: Normalizer::new(&train.normalization().mean, &train.normalization().std),
        augment: Augment { crop_pad, flip: config.data.augment },
        seed: config.seed,
    }
}

/// The shares of the training data of the ranks `hosted`, each replayed at its rate.
pub(crate) fn replay_sources(
    config: &RunConfig,
    train: &Dataset,
    rates: &RateModel,
    hosted: Range<usize>,
) -> Result<Vec<ReplaySource>> {
    let count = config.cluster.devices;
    let mut shares =
        data::partition(train.labels(), train.classes(), count, &config.data.partition, config.seed)?;
    if let Some(rank) = shares.iter().position(Vec::is_empty) {
        return Err(Error::EmptyDevice { device: rank, devices: count, samples: train.len() });
    }
    let samples: Arc<dyn Samples> = Arc::new(train.clone());
    hosted
        .map(|rank| {
            let (share, arrivals) = (std::mem::take(&mut shares[rank]), rates.arrivals(rank));
            let source = ReplaySource::new(Arc::clone(&samples), share, arrivals, config.seed, rank as u64);
            Ok(source.map_err(StreamError::from)?)
        })
        .collect()
}

/// The devices of the ranks `hosted`, each with its share of the data at its rate.
pub(crate) fn devices(
    config: &RunConfig,
    train: &Dataset,
    rates: &RateModel,
    (hosted, max_batch): (Range<usize>, usize),
    engine: &mut dyn Engine,
    profiles: &[DeviceProfile],
    clock: &Clock,
) -> Result<Vec<LocalDevice>> {
    let mut devices = Vec::with_capacity(hosted.len());
    for (rank, source) in hosted.clone().zip(replay_sources(config, train, rates, hosted)?) {
        devices.push(LocalDevice {
            rank,
            stream: stream(config, train, source, max_batch, clock, rank)?,
            profile: profiles[rank],
            batch: engine.new_batch(max_batch)?,
            trained_samples: 0,
        });
    }
    Ok(devices)
}

fn stream(
    config: &RunConfig,
    train: &Dataset,
    source: ReplaySource,
    max_batch: usize,
    clock: &Clock,
    rank: usize,
) -> Result<Box<dyn DeviceStream>> {
    let epoch = match clock {
        Clock::Virtual { .. } => {
            return Ok(Box::new(VirtualStream::new(source, &config.buffer, config.seed, rank as u64)?));
        }
        Clock::Real { start } => *start,
    };
    let source: Box<dyn Source> = match &config.source {
        SourceConfig::Replay => Box::new(source),
        SourceConfig::Tcp { addresses } => Box::new(SocketSource::new(SocketOptions {
            address: addresses[rank].clone(),
            shape: train.shape(),
            classes: train.classes(),
            expected_rate: source.rate(Duration::ZERO),
        })),
    };
    let options = LiveOptions {
        ring_samples: 2 * max_batch,
        buffer: config.buffer.clone(),
        seed: config.seed,
        device: rank as u64,
        epoch,
    };
    Ok(Box::new(LiveStream::spawn(source, options)?))
}

/// Compute speed of each device; may run two steps of the network to measure this machine.
pub(crate) fn profiles(
    config: &RunConfig,
    plan: &Plan,
    engine: &mut dyn Engine,
) -> Result<Vec<DeviceProfile>> {
    let cost = NetworkCost {
        macs_per_image: plan.macs_per_image() as u64,
        weighted_layers: plan.layers().iter().filter(|layer| matches!(layer.op, Op::Conv2d { .. })).count(),
    };
    DeviceProfile::for_cluster(&config.cluster.compute, config.cluster.devices, cost, || {
        let many = MEASURED_BATCHES.1.min(plan.max_batch());
        let few = MEASURED_BATCHES.0.min(many.div_ceil(2));
        let (few, many) = ((few, engine.measure(few)?), (many, engine.measure(many)?));
        if few.0 == many.0 {
            return Ok(DeviceProfile { overhead_s: 0.0, per_sample_s: many.1 / many.0 as f64 });
        }
        Ok(DeviceProfile::from_measurements(few, many))
    })
}
