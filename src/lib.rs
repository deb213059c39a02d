//! Trains convolutional networks (ResNet, VGG) together on edge devices fed by live streams.
//!
//! An implementation of ScaDLES (Tyagi and Swany, IEEE Big Data 2022, arXiv 2301.08897): devices train on what their stream
//! brings, gradients are weighted by samples, buffers stay small, skewed devices share samples, and gradients are sent
//! compressed whenever that loses little. One direction, one type per arrow:
//!
//! ```text
//! source -> ring/buffer -> batch -> network -> compressor -> communicator -> optimizer -> parameters
//! (rate)    (policy)     (injection) (fwd, bwd) (error feedback, (weighted     (lr scaling)
//!                                                gate, coding)    reduce)
//! ```
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`train`] | the trainer, its configuration, whole runs |
//! | [`data`] | CIFAR files, the embedded data set, downloads, the split over devices |
//! | [`stream`] | arrival rates, sources, the lock-free ring, buffer policies |
//! | [`models`], [`nn`], [`ops`] | networks by name, their static plan and executor, the operations |
//! | [`compress`], [`aggregate`], [`comm`] | top-k with error feedback, weights, collectives |
//! | [`optim`] | SGD, LARS, learning rate |
//! | [`cluster`] | clock, links and compute speeds of a simulated cluster |
//! | [`metrics`] | records of a run, where they go, report and comparison |
//! | [`cli`] | the programs `scadles` and `scadles-bench` |
//!
//! # Example
//! Four devices with streams of 40, 20, 10 and 5 samples/s train a small ResNet together:
//!
//! ```
//! use scadles::train::config::{RatesConfig, RunConfig};
//! use std::sync::atomic::AtomicBool;
//!
//! let mut config = RunConfig::default(); // the paper's method on the embedded data set
//! config.model.width = 0.25;
//! config.cluster.devices = 4;
//! config.cluster.rates = RatesConfig::List(vec![40.0, 20.0, 10.0, 5.0]);
//! (config.data.embedded_train, config.data.embedded_test) = (400, 50);
//! config.run.steps = 3;
//!
//! let record = scadles::train::run(&config, &mut [], &AtomicBool::new(false))?;
//! assert_eq!(record.steps[0].local_batch, [40, 20, 10, 8]); // 5 is below the smallest batch
//! println!("top-1 {:.1} % after {:.0} s", 100.0 * record.best_top1(), record.steps[2].time_s);
//! # Ok::<(), scadles::Error>(())
//! ```
//!
//! Each part also works alone: see [`compress::DeviceCompressor`], [`stream::ring`], [`nn::Executor`],
//! [`aggregate::weighted_sum`].

pub mod aggregate;
pub mod cli;
pub mod cluster;
pub mod comm;
pub mod compress;
pub mod data;
pub mod device;
pub mod element;
pub mod error;
pub mod metrics;
pub mod models;
mod nearest;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod rng;
pub mod shape;
pub mod stream;
pub mod train;
pub mod units;

pub use error::{Error, Result};
