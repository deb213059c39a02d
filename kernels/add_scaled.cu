// add_scaled.cu: out[i] += weight * x[i]
//
// Role       adds one device's gradient, times its agg_weight, to the sum over devices
// Shapes     out, x: [numel], contiguous, not overlapping
// Types      f32 in, f32 out; product and sum are rounded apart, so the result has the CPU's bits
// Launch     1-D grid-stride loop, any block size; no barrier, no atomics
// Cost       12 * numel bytes, 2 * numel FLOP: bound by memory bandwidth
// See        src/device/cuda/add_scaled.rs, src/aggregate.rs, tests/kernels/add_scaled.rs

#include "common.cuh"

extern "C" __global__ void add_scaled_f32(float* __restrict__ out, const float* __restrict__ x, float weight,
                                          int64_t numel) {
#pragma unroll 4
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) {
        out[i] = multiply_add(weight, x[i], out[i]);
    }
}
