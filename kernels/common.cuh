// common.cuh: what the kernels share
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

// Dynamic shared memory of the block, aligned for every use. One declaration a kernel.
#ifdef SCADLES_EMULATOR
#define DYNAMIC_SHARED(name) unsigned char* const name = emulator_dynamic_shared()
#else
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

// Where a grid-stride loop over a 1-D grid starts, and its step.
__device__ __forceinline__ int64_t global_thread_index() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t grid_stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// a * b + c, rounded after the product and again after the sum, as the CPU backend computes it. Written with operators,
// nvcc would contract it to one FMA with one rounding, and the two backends would drift apart.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return __fadd_rn(__fmul_rn(a, b), c); }

// Storage types: computed with as f32, rounded to nearest even when stored.
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

// 16 bytes of elements, loaded and stored at once.
template <class T>
struct alignas(16) Pack {
    static constexpr int kLen = 16 / sizeof(T);
    T at[kLen];
};

// Packs are loaded and stored where they are aligned.
template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T>*>(from);
}

template <class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack) {
    *reinterpret_cast<Pack<T>*>(to) = pack;
}

// Images of a batch that there are.
__device__ __forceinline__ int64_t images_of(const int32_t* num_images, int max_images) {
    return min(max(*num_images, 0), max_images);
}
