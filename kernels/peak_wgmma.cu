// peak_wgmma.cu: how fast Hopper's warpgroup instructions multiply when nothing else is asked of them
//
//     out[block] = steps * a * b^T, 128x256x64
//
// Role       benchmarks only: the ceiling of the convolutions on Hopper; operands lie in shared memory from the start
// Shapes     out [blocks, 128, 256], a [128, 64], b [256, 64]
// Types      bf16 in, f32 sums; every step's product is added to the sums in turn
// Launch     256 threads, two warpgroups of 64 rows each; sm_90a; dynamic shared memory 384 * 128 bytes
// Cost       4,194,304 * steps FLOP a block: bound by matrix instructions
// See        src/device/cuda/peak.rs, tests/kernels/peak_wgmma.rs

#include "wgmma_pipeline.cuh"

constexpr int kTileM = 64 * kConsumerGroups;
constexpr int kTileN = 256;

// Rows of 64 elements, written as bulk copies with the 128-byte swizzle write them.
__device__ __forceinline__ void stage_rows(unsigned char* stage, const __nv_bfloat16* matrix, int rows) {
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * 8; i += kConsumers) {
        const int row = i / 8;
        const int piece = i % 8;
        *reinterpret_cast<Pack<__nv_bfloat16>*>(stage + row * kRowBytes + ((piece ^ (row & 7)) << 4)) =
            *reinterpret_cast<const Pack<__nv_bfloat16>*>(matrix + row * kRowLen + piece * 8);
    }
}

extern "C" __global__ void __launch_bounds__(kConsumers, 1)
    peak_wgmma_bf16(float* out, const __nv_bfloat16* a, const __nv_bfloat16* b, int64_t steps) {
    DYNAMIC_SHARED(shared);
    stage_rows(shared, a, kTileM);
    stage_rows(shared + kTileM * kRowBytes, b, kTileN);
    fence_proxy_async();
    __syncthreads();
    const int group = threadIdx.x / kWarpgroup;
    const uint64_t left = matrix_descriptor(shared + group * kPanelBytes, 0);
    const uint64_t right = matrix_descriptor(shared + kTileM * kRowBytes, 0);
    float d[kTileN / 2];
#pragma unroll
    for (int i = 0; i < kTileN / 2; ++i) d[i] = 0.0f;
#pragma unroll 1
    for (int64_t step = 0; step < steps; ++step) {
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kStepsPerRow; ++k) {
            multiply<kTileN, 0, 0>(d, advanced(left, k * kStepK * 2), advanced(right, k * kStepK * 2));
        }
        wgmma_commit();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
    keep_registers(d);
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    float* const tile = out + static_cast<int64_t>(blockIdx.x) * kTileM * kTileN;
#pragma unroll
    for (int j = 0; j < kTileN / 8; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float2* const place = reinterpret_cast<float2*>(tile + (row + half * 8) * kTileN + 8 * j + threadIdx.x % 4 * 2);
            *place = {d[4 * j + 2 * half], d[4 * j + 2 * half + 1]};
        }
    }
}
