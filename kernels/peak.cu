// peak.cu: how fast the device multiplies when nothing else is asked of it
//
//     out[w] = steps * a * b^T, 32x64x16, for each warp w       peak_mma_bf16
//     out[t] = steps * sum over i, j of a[t][i] * b[j]          peak_fma_f32
//
// Role       benchmarks only: the ceilings that the rates of other kernels are shares of; operands stay in registers
// Shapes     mma: out [warps, 32, 64], a [32, 16], b [64, 16]; fma: out [threads], a [256, 8] by the thread in its block, b [8]
// Types      mma: bf16 in, f32 sums; fma: f32; every step's product is added to the sums in turn
// Launch     1-D grid, blocks of 256 threads; peak_mma_bf16 as many warps as out has tiles
// Cost       mma: 65,536 * steps FLOP a warp; fma: 128 * steps FLOP a thread: bound by the multiplying units
// See        src/device/cuda/peak.rs, tests/kernels/peak.rs

#include "common.cuh"
#include "ptx.cuh"

constexpr int kPeakThreads = 256;

// As many sums as a warp of a large tile holds: 16 instructions that do not wait for each other.
constexpr int kRowTiles = 2;
constexpr int kColumnTiles = 8;
constexpr int kRows = 16 * kRowTiles;
constexpr int kColumns = 8 * kColumnTiles;
constexpr int kDepth = 16;

// Two neighbouring elements of a row.
__device__ __forceinline__ uint32_t pair(const __nv_bfloat16* matrix, int row, int column) {
    return *reinterpret_cast<const uint32_t*>(matrix + row * kDepth + column);
}

extern "C" __global__ void __launch_bounds__(kPeakThreads)
    peak_mma_bf16(float* out, const __nv_bfloat16* a, const __nv_bfloat16* b, int64_t steps) {
    const int row = threadIdx.x % 32 / 4;
    const int column = threadIdx.x % 4 * 2;
    uint32_t left[kRowTiles][4];
    uint32_t right[kColumnTiles][2];
    float sums[kRowTiles][kColumnTiles][4];
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            left[i][part] = pair(a, 16 * i + row + part % 2 * 8, column + part / 2 * 8);
        }
    }
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
        right[j][0] = pair(b, 8 * j + row, column);
        right[j][1] = pair(b, 8 * j + row, column + 8);
    }
#pragma unroll
    for (int i = 0; i < kRowTiles * kColumnTiles * 4; ++i) sums[i / 32][i / 4 % 8][i % 4] = 0.0f;
    for (int64_t step = 0; step < steps; ++step) {
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
            for (int j = 0; j < kColumnTiles; ++j) mma_m16n8k16_bf16(sums[i][j], left[i], right[j][0], right[j][1]);
        }
    }
    float* const tile = out + global_thread_index() / 32 * (kRows * kColumns);
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
            for (int part = 0; part < 4; ++part) {
                tile[(16 * i + row + part / 2 * 8) * kColumns + 8 * j + column + part % 2] = sums[i][j][part];
            }
        }
    }
}

// Extents of the outer product that a thread adds up.
constexpr int kLanes = 8;

extern "C" __global__ void __launch_bounds__(kPeakThreads)
    peak_fma_f32(float* out, const float* a, const float* b, int64_t steps) {
    float left[kLanes];
    float right[kLanes];
    float sums[kLanes][kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
        left[i] = a[threadIdx.x * kLanes + i];
        right[i] = b[i];
#pragma unroll
        for (int j = 0; j < kLanes; ++j) sums[i][j] = 0.0f;
    }
#pragma unroll 4
    for (int64_t step = 0; step < steps; ++step) {
#pragma unroll
        for (int i = 0; i < kLanes; ++i) {
#pragma unroll
            for (int j = 0; j < kLanes; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
        }
    }
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
#pragma unroll
        for (int j = 0; j < kLanes; ++j) total += sums[i][j];
    }
    out[global_thread_index()] = total;
}
