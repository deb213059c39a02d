//! Ops against plain f64 loops, on every SIMD level of this machine.

mod conv2d;
mod linear;
mod reference;
mod winograd;
