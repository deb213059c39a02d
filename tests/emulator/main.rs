//! The emulator against what it stands for: each part that kernels use, its driver, and that it finds mistakes.
//!
//! `host` builds the emulator over `kernels/` beside this file and starts this program again on it, for several orders of
//! threads; there the other modules test. `mistakes` takes lines out of kernels and must see them fail.

mod collectives;
mod device;
mod driver;
#[path = "../support/emulator.rs"]
mod emulator;
mod hopper;
mod host;
mod matrix;
mod mistakes;
mod numbers;
mod product;
