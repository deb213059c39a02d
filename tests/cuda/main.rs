//! Whole networks on CUDA against the CPU backend: gradients, training, the program.
//!
//! The tests run twice: on a GPU where there is one (skipped by name without; `REQUIRE_GPU=1` makes that a failure), and, by
//! `emulated`, on the emulator.

mod emulated;
mod executor;
mod networks;
mod trainer;
mod training;

#[path = "../support/emulator.rs"]
mod emulator;
#[allow(dead_code, reason = "shared with the kernels' tests")]
#[path = "../kernels/support.rs"]
mod support;
