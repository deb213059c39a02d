//! Turns a network's layers into a static [`Plan`] and runs it: `Batch -> loss and one flat gradient`.
//!
//! A [`Plan`] is plain data. It lists the layers in forward order, the parameters as ranges of one flat vector, the
//! batch-norm statistics as ranges of another, and where in one arena each activation and gradient lies
//! ([`Memory`]), so that nothing is allocated while training. [`Executor`] walks it on the CPU,
//! [`cuda::CudaExecutor`] on a GPU.
//!
//! ```text
//! Builder --Plan--> Executor        params, stats, x, labels ---> LossStats, grad
//!          layers      arena, packed filters, scratch
//!          params
//!          memory
//! ```
//!
//! # Example
//! ```
//! use scadles::models::{self, ModelSpec};
//! use scadles::nn::{DropoutSeed, Executor};
//! use std::sync::Arc;
//!
//! let spec = ModelSpec { name: "resnet20".into(), width: 0.25, ..ModelSpec::default() };
//! let plan = Arc::new(models::plan(&spec, 8)?);
//! let (params, mut stats) = (plan.init_params(1), plan.init_stats());
//! let mut executor = Executor::<f32>::new(plan.clone())?;
//! executor.load_params(&params)?;
//!
//! let (x, labels) = (vec![0.5; 4 * 32 * 32 * 3], [3, 1, 4, 1]);
//! let mut grad = vec![0.0; plan.num_params()];
//! let dropout = DropoutSeed { seed: 1, index: 0 };
//! let loss = executor.forward_backward(&x, &labels, &params, &mut stats, &mut grad, dropout)?;
//! assert!(loss.loss_sum > 0.0 && grad.iter().any(|&g| g != 0.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aligned;
mod backward;
mod builder;
mod clock;
pub mod cuda;
mod error;
mod executor;
mod forward;
mod inference;
mod init;
mod memory;
mod plan;
mod table;

pub use builder::{BatchNormParams, Builder, Window};
pub use clock::{LayerTime, Pass};
pub use error::NnError;
pub use executor::{DropoutSeed, Executor, Packing};
pub use inference::Inference;
pub use memory::{GradTarget, LayerSlots, Memory, Slot};
pub use plan::{Layer, LayerSummary, Op, Plan, TensorId, TensorShape};
pub use table::{Init, ParamEntry, ParamKind, StatsEntry, StatsKind};
