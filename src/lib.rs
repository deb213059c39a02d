//! Trains convolutional networks (ResNet, VGG) together on edge devices fed by live streams.

pub mod aggregate;
pub mod cli;
pub mod cluster;
pub mod comm;
pub mod compress;
pub mod data;
pub mod device;
pub mod error;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod rng;
pub mod shape;
pub mod stream;
pub mod train;
pub mod units;

pub use error::{Error, Result};
