// common.cuh: what the kernels share
#pragma once

#include <cstdint>

// Where a grid-stride loop over a 1-D grid starts, and its step.
__device__ __forceinline__ int64_t global_thread_index() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t grid_stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// a * b + c, rounded after the product and again after the sum, as the CPU backend computes it. Written with operators,
// nvcc would contract it to one FMA with one rounding, and the two backends would drift apart.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return __fadd_rn(__fmul_rn(a, b), c); }
