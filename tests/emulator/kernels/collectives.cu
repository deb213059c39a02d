// collectives.cu: what threads of a warp, of a block and of all blocks say to each other

#include "common.cuh"

// Four numbers a thread: the shuffles of its own number among `width` lanes.
extern "C" __global__ void collectives_shuffles(unsigned* out, int width) {
    const unsigned value = 100 + threadIdx.x;
    unsigned* at = out + 4 * threadIdx.x;
    at[0] = __shfl_sync(0xffffffffu, value, 3, width);
    at[1] = __shfl_up_sync(0xffffffffu, value, 2, width);
    at[2] = __shfl_down_sync(0xffffffffu, value, 5, width);
    at[3] = __shfl_xor_sync(0xffffffffu, value, 6, width);
}

// Eight votes a thread. The last warp may have fewer than 32 lanes.
extern "C" __global__ void collectives_votes(unsigned* out) {
    const int lane = threadIdx.x % 32;
    const unsigned mask = __activemask();
    unsigned* at = out + 8 * threadIdx.x;
    at[0] = __ballot_sync(mask, lane % 3 == 0);
    at[1] = __any_sync(mask, lane == 31);
    at[2] = __all_sync(mask, lane < 31);
    at[3] = __match_any_sync(mask, lane % 5);
    at[4] = __syncthreads_count(threadIdx.x % 7 == 0);
    at[5] = __syncthreads_or(threadIdx.x == 40);
    at[6] = __syncthreads_and(threadIdx.x < 40);
    at[7] = __reduce_add_sync(mask, threadIdx.x);
}

// Halves of a warp that go different ways, each with its own mask; a quarter of the block returns before the barrier.
extern "C" __global__ void collectives_branches(unsigned* out) {
    __shared__ unsigned sums[64];
    const int lane = threadIdx.x % 32;
    unsigned sum = threadIdx.x;
    if (lane < 16) {
        for (int i = 8; i > 0; i /= 2) sum += __shfl_xor_sync(0x0000ffffu, sum, i);
    } else {
        for (int i = 1; i < 16; i *= 2) sum += __shfl_xor_sync(0xffff0000u, sum, i);
        __syncwarp(0xffff0000u);
    }
    if (lane % 16 == 0) sums[threadIdx.x / 16] = sum;
    if (threadIdx.x >= 3 * blockDim.x / 4) return;
    __syncthreads();
    // Of threads that returned only what they wrote before counts; theirs is not awaited.
    out[threadIdx.x] = sums[(threadIdx.x / 16 + 1) % (3 * blockDim.x / 64)];
}

// All blocks count into the same words.
extern "C" __global__ void collectives_atomics(unsigned* count, int* lowest, unsigned long long* bits, float* sum,
                                               double* sums) {
    const int i = static_cast<int>(global_thread_index());
    atomicAdd(count, 1u);
    atomicMin(lowest, 1000 - i);
    atomicOr(bits, 1ull << (i % 64));
    atomicAdd(sum, 1.0f);
    atomicAdd(sums, 0.5);
    for (unsigned found = count[1];;) {
        const unsigned before = atomicCAS(count + 1, found, found + 2);
        if (before == found) break;
        found = before;
    }
}

// Sum of each block's elements: barriers and shuffles as kernels use them.
extern "C" __global__ void __launch_bounds__(256) collectives_sum(float* out, const float* x, int64_t numel) {
    __shared__ float sums[8];
    float sum = 0.0f;
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) sum += x[i];
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = threadIdx.x < 8 ? sums[threadIdx.x] : 0.0f;
    for (int i = 4; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

extern "C" __global__ void collectives_indices(unsigned* out) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    atomicAdd(out + block * blockDim.x * blockDim.y * blockDim.z + thread, 1 + thread);
}

// y += a * x, rounded twice.
extern "C" __global__ void collectives_axpy(float* y, const float* x, float a, int64_t numel) {
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) y[i] = multiply_add(a, x[i], y[i]);
}
