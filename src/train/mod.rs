//! The trainer: `RunConfig -> steps -> RunRecord`. The only module that knows all stages of a step.
//!
//! | File | Stage |
//! | --- | --- |
//! | [`config`] | everything a run can be told |
//! | `setup` | configuration -> data, streams, network, devices |
//! | `gather`, [`batch`], [`injection`] | samples -> the batch of each device |
//! | `engine` | batches -> loss, gradients, moved parameters: on the CPU or on a GPU |
//! | `exchange` | gradients of all devices -> one |
//! | `update`, `local_sgd` | gradient -> parameters |
//! | [`drift`] | losses and labels of a device -> has its stream changed? |
//! | `evaluate`, `merge_stats` | parameters -> accuracy |
//! | [`Trainer`] | all of them in order |
//! | [`run()`] | steps and evaluations until the run ends |

pub mod batch;
pub mod config;
mod device_batch;
pub mod device_sources;
pub mod drift;
mod engine;
mod evaluate;
mod exchange;
mod gather;
pub mod injection;
mod local_device;
mod local_sgd;
mod merge_stats;
mod norm;
mod run;
mod setup;
mod shared_sample;
mod trainer;
mod update;

pub use device_sources::DeviceSources;
pub use run::{LAST_PARAMETERS_FILE, PARAMETERS_FILE, run, run_process};
pub use trainer::Trainer;
