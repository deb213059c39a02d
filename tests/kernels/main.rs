//! Every kernel of `kernels/` through its launch code, against the CPU backend, bit for bit.
//!
//! The same tests run twice: on a GPU where there is one (skipped by name without; `REQUIRE_GPU=1` makes that a failure),
//! and, by `host`, on the emulator: a CUDA driver over the same kernel sources, compiled by the host's C++ compiler.

mod add_scaled;
mod coding;
mod compressors;
#[path = "../support/emulator.rs"]
mod emulator;
mod host;
mod sgd;
mod support;
mod topk;
mod weighted_sum;
