// weighted_sum.cu: out[i] = sum over ranks of weights[rank] * inputs[rank][i]
//
// Role       the weighted gradient of a step, from the gradients of all devices that share this GPU
// Shapes     out: [numel]; inputs: [num_ranks, numel]; weights: [num_ranks]; contiguous, not overlapping
// Types      f32 in, f32 sum, f32 out (written, not added to); added in the order of ranks, each product and sum rounded
//            apart, so the result has the CPU's bits. An input of weight 0 is not read.
// Launch     1-D grid-stride loop, any block size; no barrier, no atomics
// Cost       4 * (num_ranks + 1) * numel bytes, 2 * num_ranks * numel FLOP: bound by memory bandwidth
// See        src/device/cuda/weighted_sum.rs, src/aggregate.rs, tests/kernels/weighted_sum.rs

#include "common.cuh"

// Loads in flight per thread, so that the sum does not wait for one after another.
constexpr int kRanksAtOnce = 4;

extern "C" __global__ void weighted_sum_f32(float* __restrict__ out, const float* __restrict__ inputs,
                                            const float* __restrict__ weights, int64_t num_ranks, int64_t numel) {
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) {
        float sum = 0.0f;
        for (int64_t first = 0; first < num_ranks; first += kRanksAtOnce) {
            float weight[kRanksAtOnce];
            float x[kRanksAtOnce];
#pragma unroll
            for (int j = 0; j < kRanksAtOnce; ++j) {
                weight[j] = first + j < num_ranks ? weights[first + j] : 0.0f;
                x[j] = weight[j] != 0.0f ? inputs[(first + j) * numel + i] : 0.0f;
            }
#pragma unroll
            for (int j = 0; j < kRanksAtOnce; ++j) {
                if (weight[j] != 0.0f) sum = multiply_add(weight[j], x[j], sum);
            }
        }
        out[i] = sum;
    }
}
