// norm.cu: out = sum of x[i]^2
//
// Role       squared Euclidean norm of a gradient: for the gate of compression, and to notice what is not finite
// Shapes     x: [numel] at any f32 address; partials: [tiles], a tile being 16384 elements; out: [1], written (=)
// Types      f32 in, f64 squares and sums, f64 out; infinity and NaN stay. The order of additions depends on numel
//            alone
// Launch     tiles: a block of 512 threads each; sum: one block of 512 threads; 4 KiB static shared memory; barriers,
//            no atomics
// Cost       4 * numel bytes, 2 * numel FLOP in f64: bound by memory bandwidth where f64 runs at half the rate of f32,
//            else by f64
// See        src/ops/norm/, tests/kernels/norm.rs

#include "row_tiles.cuh"

constexpr int kThreads = 512;

// src/ops/norm/cuda.rs has the same number.
constexpr int kTileLen = 16 * 1024;

// Elements of a thread that are loaded together.
constexpr int kAtOnce = 8;

extern "C" __global__ void __launch_bounds__(kThreads)
    norm_tiles_f32(double* partials, const float* __restrict__ x, int64_t numel) {
    const int64_t start = static_cast<int64_t>(blockIdx.x) * kTileLen;
    const int len = static_cast<int>(min(numel - start, static_cast<int64_t>(kTileLen)));
    double sum[1] = {};
    for (int first = static_cast<int>(threadIdx.x); first < len; first += kThreads * kAtOnce) {
        float values[kAtOnce];
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
            const int i = first + j * kThreads;
            values[j] = i < len ? x[start + i] : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
            const double value = values[j];
            sum[0] += value * value;
        }
    }
    const int thread = static_cast<int>(threadIdx.x);
    sum_lanes<kThreads>(sum, thread, kThreads, 1);
    if (thread == 0) partials[blockIdx.x] = sum[0];
}

extern "C" __global__ void __launch_bounds__(kThreads)
    norm_sum_f64(double* out, const double* __restrict__ partials, int64_t tiles) {
    const int thread = static_cast<int>(threadIdx.x);
    double sum[1] = {};
#pragma unroll 4
    for (int64_t tile = thread; tile < tiles; tile += kThreads) sum[0] += partials[tile];
    sum_lanes<kThreads>(sum, thread, kThreads, 1);
    if (thread == 0) *out = sum[0];
}
