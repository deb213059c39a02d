// batchnorm2d.cuh: what the passes of batch normalisation share
#pragma once

#include "row_tiles.cuh"

// Most threads of a finishing pass.
constexpr int kFinishThreads = 512;

// Rows of a thread that are loaded together: of one or two tensors, of two or three.
constexpr int kRowsAtOnce = 4;
constexpr int kGradientRowsAtOnce = 2;

// Blocks of the gradient's sums that a multiprocessor holds at least; one more would spill registers.
constexpr int kGradientBlocks = 3;

__device__ __forceinline__ float rectify(float value) { return value <= 0.0f ? 0.0f : value; }

// The channels of a block: vectors that every thread reads once for all its rows.
template <int kVectors, int kLen>
struct alignas(16) Channels {
    float of[kVectors][kMaxWidth * kLen];
};

// Calls fill(i, channel) for the block's channels, i counting from 0. A barrier must follow.
template <int kLen, class F>
__device__ __forceinline__ void for_channels(const RowTile& tile, int c, int width, const F& fill) {
    const int num = min(width * kLen, c - tile.block_column);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < num; i += kTileThreads) fill(i, tile.block_column + i);
}

// This thread's channels of a vector. Threads without rows may read anything.
template <int kLen>
__device__ __forceinline__ void read_channels(float (&to)[kLen], const float* from, int column) {
    constexpr int kStep = kLen < 4 ? kLen : 4;
#pragma unroll
    for (int i = 0; i < kLen; i += kStep) {
        const Run<float, kStep> run = load_run<kStep>(from + column + i);
#pragma unroll
        for (int j = 0; j < kStep; ++j) to[i + j] = run.at[j];
    }
}

// (x - mean) * scale + beta, rounded after each step.
__device__ __forceinline__ float affine(float x, float mean, float scale, float beta) {
    return multiply_add(__fadd_rn(x, -mean), scale, beta);
}
