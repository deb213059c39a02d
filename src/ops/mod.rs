//! The operations of a network: one folder per op, each with the same parts.
//!
//! `<op>/mod.rs` states shapes and checks its arguments, `<op>/cpu.rs` (or `cpu/`) computes on the CPU. Every op works on
//! plain slices (activations NHWC, filters KRSC), allocates nothing, and reduces in an order fixed by tiles, never by
//! threads, so its result is the same bytes whatever the number of threads.

pub mod conv2d;
pub mod linear;
pub mod simd;
