// block.cuh: sums and prefix sums over a warp and over a block, in an order that only the block size decides
#pragma once

#include <cstdint>

// The sum over the warp, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
    return value;
}

// The sum over the lanes up to this one.
template <class T>
__device__ __forceinline__ T warp_inclusive_sum(T value) {
#pragma unroll
    for (unsigned lanes = 1; lanes < 32; lanes *= 2) {
        const T before = __shfl_up_sync(0xffffffffu, value, lanes);
        if (threadIdx.x % 32 >= lanes) value += before;
    }
    return value;
}

// The sum over the block, in every thread. The block is whole warps.
template <class T>
__device__ __forceinline__ T block_sum(T value) {
    __shared__ T of_warp[32];
    const unsigned lane = threadIdx.x % 32;
    const T sum = warp_sum(value);
    if (lane == 0) of_warp[threadIdx.x / 32] = sum;
    __syncthreads();
    const T total = warp_sum(lane < blockDim.x / 32 ? of_warp[lane] : T{});
    __syncthreads();
    return total;
}

// The sum over the threads before this one; `total` becomes the sum over the block. The block is whole warps. Of integers:
// it subtracts.
template <class T>
__device__ __forceinline__ T block_exclusive_sum(T value, T* total) {
    __shared__ T of_warp[32];
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const T inclusive = warp_inclusive_sum(value);
    if (lane == 31) of_warp[warp] = inclusive;
    __syncthreads();
    const T own = lane < blockDim.x / 32 ? of_warp[lane] : T{};
    const T warps = warp_inclusive_sum(own);
    const T before = __shfl_sync(0xffffffffu, warps - own, static_cast<int>(warp));
    *total = __shfl_sync(0xffffffffu, warps, 31);
    __syncthreads();
    return before + inclusive - value;
}

// Whether this block is the last of those that work on something: each adds its `share` to `*arrived`, which counts to
// `all`. What the others wrote before is there to read then, past the first-level cache (`__ldcg`).
__device__ __forceinline__ bool block_is_last(unsigned int* arrived, unsigned int share, unsigned int all) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();  // what the block wrote, before its arrival
        last = atomicAdd(arrived, share) + share == all;
        __threadfence();  // all arrivals, before what is read
    }
    __syncthreads();
    return last;
}
