//! Layer ops against naive f64 references: values, gradients, edge shapes, thread counts.

mod batchnorm2d;
mod bf16;
mod check;
mod dropout;
mod elementwise;
mod input;
mod pad_shortcut;
mod pool2d;
mod reference;
mod relu;
mod softmax_xent;
