// pipelines.cu: small kernels that are right as they stand; the tests take away one line each, marked "guard"

#include "common.cuh"
#include "ptx.cuh"

// out = x with each block's 256 elements reversed.
extern "C" __global__ void __launch_bounds__(256) pipelines_barrier(float* out, const float* x) {
    __shared__ float values[256];
    const int64_t i = global_thread_index();
    values[threadIdx.x] = x[i];
    __syncthreads();  // guard
    out[i] = values[255 - threadIdx.x];
}

// The same by asynchronous copies.
extern "C" __global__ void __launch_bounds__(256) pipelines_async(float* out, const float* x) {
    __shared__ __align__(16) float values[256];
    const int64_t i = global_thread_index();
    cp_async_4(values + threadIdx.x, x + i, 4);
    cp_async_commit();
    cp_async_wait<0>();  // guard
    __syncthreads();
    out[i] = values[255 - threadIdx.x];
}

// The same by bulk copies of 8 rows of 32 elements.
extern "C" __global__ void __launch_bounds__(256) pipelines_bulk(float* out, const __grid_constant__ TensorMap map) {
    DYNAMIC_SHARED(shared);
    __shared__ uint64_t barrier;
    if (threadIdx.x == 0) {
        mbarrier_init(&barrier, 1);
        mbarrier_init_fence();
        mbarrier_arrive_expect_bytes(&barrier, 1024);
        bulk_copy_2d(shared, &map, &barrier, 0, 8 * blockIdx.x);
    }
    __syncthreads();
    mbarrier_wait(&barrier, 0);  // guard
    out[global_thread_index()] = reinterpret_cast<const float*>(shared)[255 - threadIdx.x];
    __syncthreads();
    mbarrier_wait(&barrier, 0);
}

// out += a product of a warpgroup: operands written by the threads, read by the tensor cores, written again.
extern "C" __global__ void __launch_bounds__(128) pipelines_product(float* out) {
    DYNAMIC_SHARED(shared);
    auto* const operands = reinterpret_cast<__nv_bfloat16*>(shared);
    float d[32];
    for (float& value : d) value = 0.0f;
    for (int step = 0; step < 4; ++step) {
        for (int i = threadIdx.x; i < 2 * 64 * 16; i += 128) operands[i] = from_float<__nv_bfloat16>(1.0f + step);
        fence_proxy_async();
        __syncthreads();
        // K-major without a swizzle: pieces of 8 rows, two of them along K.
        const uint64_t offsets = uint64_t{128 >> 4} << 16 | uint64_t{256 >> 4} << 32;
        wgmma_fence();
        wgmma_m64n64k16_bf16<0, 0>(d, shared_address(operands) >> 4 | offsets, shared_address(operands + 64 * 16) >> 4 | offsets, 1);
        wgmma_commit();
        wgmma_wait<0>();  // guard
        __syncthreads();
    }
    wgmma_wait<0>();
    for (int i = 0; i < 32; ++i) out[32 * threadIdx.x + i] = d[i];
}
