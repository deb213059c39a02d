// dropout.cu: y[i] = x[i] * scale where a random number of i is at least p, else 0
//
// Role       inverted dropout, and its gradient, which is the same map. Element i uses word i % 4 of block i / 4 of
//            Philox4x32-10 (Salmon et al., SC'11), whose counter is the block and then index * layers + ordinal
// Shapes     x, y: [images, per_image], contiguous, not overlapping; index: [1]
// Types      f32 or bf16; scaled in f32; masks, and f32 results, have the CPU's bits
// Launch     1-D grid-stride loop, any block size, in packs of 16 bytes if `packs`; no barrier, no atomics
// Cost       2 elements of memory and about 25 integer operations an element: bound by memory bandwidth in f32, near it
//            in bf16
// See        src/ops/dropout/, src/rng.rs, tests/kernels/dropout.rs

#include "common.cuh"

struct PhiloxBlock {
    uint32_t word[4];
};

__device__ __forceinline__ PhiloxBlock philox(uint64_t block, uint64_t index, uint32_t key_low, uint32_t key_high) {
    uint32_t c0 = static_cast<uint32_t>(block);
    uint32_t c1 = static_cast<uint32_t>(block >> 32);
    uint32_t c2 = static_cast<uint32_t>(index);
    uint32_t c3 = static_cast<uint32_t>(index >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = static_cast<uint64_t>(c0) * 0xd2511f53u;
        const uint64_t p1 = static_cast<uint64_t>(c2) * 0xcd9e8d57u;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key_low;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key_high;
        c3 = static_cast<uint32_t>(p0);
        key_low += 0x9e3779b9u;
        key_high += 0xbb67ae85u;
    }
    return PhiloxBlock{{c0, c1, c2, c3}};
}

template <class T>
__device__ __forceinline__ T dropped(T x, uint32_t word, float p, float scale) {
    const float uniform = static_cast<float>(word >> 8) * (1.0f / 16777216.0f);
    return from_float<T>(uniform >= p ? to_float(x) * scale : 0.0f);
}

template <class T>
__device__ __forceinline__ void dropout(T* __restrict__ y, const T* __restrict__ x, const uint64_t* __restrict__ index,
                                        uint64_t layers, uint64_t ordinal, uint32_t key_low, uint32_t key_high, float p,
                                        float scale, const int32_t* num_images, int max_images, int64_t per_image,
                                        int packs) {
    const int64_t numel = images_of(num_images, max_images) * per_image;
    const uint64_t draw = *index * layers + ordinal;
    constexpr int kLen = Pack<T>::kLen;
    const int64_t num_packs = packs ? numel / kLen : 0;
#pragma unroll 2
    for (int64_t i = global_thread_index(); i < num_packs; i += grid_stride()) {
        Pack<T> pack = load_pack(x + i * kLen);
#pragma unroll
        for (int j = 0; j < kLen; j += 4) {
            const PhiloxBlock random = philox((i * kLen + j) / 4, draw, key_low, key_high);
#pragma unroll
            for (int k = 0; k < 4; ++k) pack.at[j + k] = dropped(pack.at[j + k], random.word[k], p, scale);
        }
        store_pack(y + i * kLen, pack);
    }
    for (int64_t i = num_packs * kLen + global_thread_index(); i < numel; i += grid_stride()) {
        const PhiloxBlock random = philox(i / 4, draw, key_low, key_high);
        const int k = static_cast<int>(i % 4);
        // Selected without an index, which would put the words into memory.
        const uint32_t low = k % 2 == 0 ? random.word[0] : random.word[1];
        const uint32_t high = k % 2 == 0 ? random.word[2] : random.word[3];
        y[i] = dropped(x[i], k < 2 ? low : high, p, scale);
    }
}

extern "C" __global__ void dropout_f32(float* y, const float* x, const uint64_t* index, uint64_t layers,
                                       uint64_t ordinal, uint32_t key_low, uint32_t key_high, float p, float scale,
                                       const int32_t* num_images, int max_images, int64_t per_image, int packs) {
    dropout(y, x, index, layers, ordinal, key_low, key_high, p, scale, num_images, max_images, per_image, packs);
}

extern "C" __global__ void dropout_bf16(__nv_bfloat16* y, const __nv_bfloat16* x, const uint64_t* index,
                                        uint64_t layers, uint64_t ordinal, uint32_t key_low, uint32_t key_high, float p,
                                        float scale, const int32_t* num_images, int max_images, int64_t per_image,
                                        int packs) {
    dropout(y, x, index, layers, ordinal, key_low, key_high, p, scale, num_images, max_images, per_image, packs);
}
