//! Ops against plain f64 loops, on every SIMD level of this machine.

mod conv2d;
mod conv2d_bf16;
mod linear;
mod reference;
mod shapes;
mod winograd;
