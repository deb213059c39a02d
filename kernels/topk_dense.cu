// topk_dense.cu: sum += a + b + c + d, which become 0: up to four devices send all they have
//
// Role       a dense step of error feedback: what was held back goes out with the new gradient
// Shapes     sum, a, b, c, d: [numel], not overlapping; a to d may be null, and have room for whole packs of four
// Types      f32 in, f32 out; added in the order of arguments, each sum rounded, so the result has the CPU's bits
// Launch     1-D grid-stride loop over packs, blocks of 256 threads
// Cost       8 * numel bytes for the sum and for each device: bound by memory bandwidth
// See        src/compress/cuda/payload.rs, src/aggregate.rs (add_scaled), tests/kernels/topk.rs

#include "topk.cuh"

__device__ __forceinline__ void take_pack(Pack<float>& sum, float* from, int64_t i) {
    if (from == nullptr) return;
    const Pack<float> x = load_four(from + i);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum.at[e] = __fadd_rn(sum.at[e], x.at[e]);
    store_four(from + i, Pack<float>{});
}

extern "C" __global__ void __launch_bounds__(256)
    topk_dense_f32(float* sum, float* a, float* b, float* c, float* d, int64_t numel, int sum_is_aligned) {
#pragma unroll 2
    for (int64_t i = 4 * global_thread_index(); i < numel; i += 4 * grid_stride()) {
        const bool whole = sum_is_aligned && i + 4 <= numel;
        Pack<float> total = {};
        if (whole) {
            total = load_four(sum + i);
        } else {
            for (int e = 0; e < 4 && i + e < numel; ++e) total.at[e] = sum[i + e];
        }
        take_pack(total, a, i);
        take_pack(total, b, i);
        take_pack(total, c, i);
        take_pack(total, d, i);
        if (whole) {
            store_four(sum + i, total);
        } else {
            for (int e = 0; e < 4 && i + e < numel; ++e) sum[i + e] = total.at[e];
        }
    }
}
