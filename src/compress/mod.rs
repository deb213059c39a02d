//! What a device sends: exact top-k with error feedback, the gate between compressed and dense, payload coding, DGC.

mod bracket;
pub mod coding;
pub mod cuda;
pub mod dgc;
mod error;
mod error_feedback;
pub mod gate;
mod pack;
mod plan;
mod scan;
mod topk;
mod wide;

pub use error::CompressError;
pub use error_feedback::DeviceCompressor;
pub use gate::{Decision, Gate, Vote, decide};
pub use pack::PayloadInfo;
pub use plan::{BLOCK_LEN, Plan, num_kept};
pub use topk::{Norms, Selection, top_k};
