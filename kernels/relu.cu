// relu.cu: dy[i] = 0 where y[i] <= 0
//
// Role       gradient through a ReLU that was fused into the op before it
// Shapes     y, dy: [images, per_image], contiguous, not overlapping
// Types      f32 or bf16; NaN passes
// Launch     1-D grid-stride loop, any block size, in packs of 16 bytes if `packs`; no barrier, no atomics
// Cost       3 elements of memory an element, no FLOP: bound by memory bandwidth
// See        src/ops/relu/, tests/kernels/relu.rs

#include "common.cuh"

template <class T>
__device__ __forceinline__ T masked(T dy, T y) {
    return to_float(y) <= 0.0f ? from_float<T>(0.0f) : dy;
}

template <class T>
__device__ __forceinline__ void backward(T* __restrict__ dy, const T* __restrict__ y, const int32_t* num_images,
                                         int max_images, int64_t per_image, int packs) {
    const int64_t numel = images_of(num_images, max_images) * per_image;
    const int64_t num_packs = packs ? numel / Pack<T>::kLen : 0;
#pragma unroll 2
    for (int64_t i = global_thread_index(); i < num_packs; i += grid_stride()) {
        Pack<T> slope = load_pack(dy + i * Pack<T>::kLen);
        const Pack<T> output = load_pack(y + i * Pack<T>::kLen);
#pragma unroll
        for (int j = 0; j < Pack<T>::kLen; ++j) slope.at[j] = masked(slope.at[j], output.at[j]);
        store_pack(dy + i * Pack<T>::kLen, slope);
    }
    for (int64_t i = num_packs * Pack<T>::kLen + global_thread_index(); i < numel; i += grid_stride()) {
        dy[i] = masked(dy[i], y[i]);
    }
}

extern "C" __global__ void relu_backward_f32(float* dy, const float* y, const int32_t* num_images, int max_images,
                                             int64_t per_image, int packs) {
    backward(dy, y, num_images, max_images, per_image, packs);
}

extern "C" __global__ void relu_backward_bf16(__nv_bfloat16* dy, const __nv_bfloat16* y, const int32_t* num_images,
                                              int max_images, int64_t per_image, int packs) {
    backward(dy, y, num_images, max_images, per_image, packs);
}
