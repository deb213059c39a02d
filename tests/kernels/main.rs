//! Every kernel of `kernels/` through its launch code, against the CPU backend, bit for bit.
//!
//! The same tests run twice: on a GPU where there is one (skipped by name without; `REQUIRE_GPU=1` makes that a failure),
//! and, by `host`, on the emulator: a CUDA driver over the same kernel sources, compiled by the host's C++ compiler.

mod add_scaled;
mod avg_pool2d;
mod batchnorm2d;
mod bias;
mod coding;
mod compressors;
mod conv2d_dgrad;
mod conv2d_dgrad_wgmma;
mod conv2d_fprop;
mod conv2d_fprop_wgmma;
mod conv2d_reference;
mod conv2d_wgrad;
mod conv2d_wgrad_wgmma;
mod dropout;
mod elementwise;
#[path = "../support/emulator.rs"]
mod emulator;
mod hopper_cases;
mod host;
mod input;
mod launch;
mod max_pool2d;
mod norm;
mod pad_shortcut;
mod peak;
mod peak_wgmma;
#[path = "../layer_ops/reference.rs"]
mod reference;
mod relu;
mod sgd;
mod softmax_xent;
mod support;
mod tensors;
mod topk;
mod weighted_sum;
