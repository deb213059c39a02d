// sgd.cu: one SGD update of the flat parameter vector, PyTorch's definition
//
//     d = grad + weight_decay * params
//     velocity = momentum * velocity + d
//     params -= lr * velocity                        sgd_momentum_f32
//     params -= lr * (d + momentum * velocity)       sgd_nesterov_f32
//     params -= lr * d                               sgd_f32, which has no velocity
//
// With a squared_norm that is infinite or NaN nothing changes; null stands for a finite one.
//
// Role       the optimizer's step: momentum, Nesterov and weight decay in one pass over memory
// Shapes     params, velocity, grad: [numel], contiguous, not overlapping; squared_norm: [1], f64, or null
// Types      f32 in, f32 out; each product and sum is rounded apart, in the CPU's order, so the result has the CPU's bits
// Launch     1-D grid-stride loop, any block size; no barrier, no atomics
// Cost       with momentum 20 * numel bytes, 6 * numel FLOP (Nesterov 8); without 12 and 4: bound by memory bandwidth
// See        src/device/cuda/sgd.rs, src/optim/sgd.rs, tests/kernels/sgd.rs

#include "common.cuh"

// Whether a step may be taken.
__device__ __forceinline__ bool is_finite_or_null(const double* squared_norm) {
    return squared_norm == nullptr || *squared_norm - *squared_norm == 0.0;
}

extern "C" __global__ void sgd_f32(float* __restrict__ params, const float* __restrict__ grad,
                                   const double* __restrict__ squared_norm, float lr, float weight_decay,
                                   int64_t numel) {
    if (!is_finite_or_null(squared_norm)) return;
#pragma unroll 4
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) {
        const float d = multiply_add(weight_decay, params[i], grad[i]);
        params[i] = multiply_add(-lr, d, params[i]);
    }
}

template <bool kNesterov>
__device__ __forceinline__ void momentum_step(float* __restrict__ params, float* __restrict__ velocity,
                                              const float* __restrict__ grad, const double* __restrict__ squared_norm,
                                              float lr, float momentum, float weight_decay, int64_t numel) {
    if (!is_finite_or_null(squared_norm)) return;
#pragma unroll 4
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) {
        const float d = multiply_add(weight_decay, params[i], grad[i]);
        const float v = multiply_add(momentum, velocity[i], d);
        velocity[i] = v;
        params[i] = multiply_add(-lr, kNesterov ? multiply_add(momentum, v, d) : v, params[i]);
    }
}

extern "C" __global__ void sgd_momentum_f32(float* __restrict__ params, float* __restrict__ velocity,
                                            const float* __restrict__ grad, const double* __restrict__ squared_norm,
                                            float lr, float momentum, float weight_decay, int64_t numel) {
    momentum_step<false>(params, velocity, grad, squared_norm, lr, momentum, weight_decay, numel);
}

extern "C" __global__ void sgd_nesterov_f32(float* __restrict__ params, float* __restrict__ velocity,
                                            const float* __restrict__ grad, const double* __restrict__ squared_norm,
                                            float lr, float momentum, float weight_decay, int64_t numel) {
    momentum_step<true>(params, velocity, grad, squared_norm, lr, momentum, weight_decay, numel);
}
