// input.cu: x = pixel * scale + offset, of a crop that may be mirrored; what lies outside the image is pixel 0
//
// Role       from u8 pixels to the first activations: augmentation and normalisation of a batch
// Shapes     x, pixels: [images, H, W, C], C at most 4; placements: [images, 3], of the crop's rows below the image's
//            top, its columns right of the left side, and 1 if it is mirrored left to right
// Types      u8 in, f32 or bf16 out; product and sum are rounded apart, so that f32 has the CPU's bits
// Launch     blocks of an image x images (along y, then z), up to 256 threads; a thread writes packs of 16 bytes if
//            `packs`; no barrier, no atomics
// Cost       1 byte read and an element written, about 15 integer operations and 2 FLOP an element: bound by memory
//            bandwidth in f32, near it in bf16
// See        src/ops/input/, tests/kernels/input.rs

#include "common.cuh"

struct Crop {
    int offset_h, offset_w, flip;
};

// Writes elements first, first + 1, ... of an image, kLen of them.
template <class T, int kLen>
__device__ __forceinline__ void write(T* __restrict__ x, const uint8_t* __restrict__ pixels, int first, int h, int w,
                                      int c, const Crop& crop, const float (&scale)[4], const float (&offset)[4]) {
    int channel = first % c;
    int column = first / c % w;
    int line = first / c / w;
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < kLen; ++i) {
        const int from_line = line + crop.offset_h;
        const int from_column = (crop.flip ? w - 1 - column : column) + crop.offset_w;
        const bool inside = from_line >= 0 && from_line < h && from_column >= 0 && from_column < w;
        // Loaded in any case, from inside the image, so that no branch parts the loads of a pack, nor its store.
        const int near_line = min(max(from_line, 0), h - 1);
        const int near_column = min(max(from_column, 0), w - 1);
        const uint8_t near = pixels[(near_line * w + near_column) * c + channel];
        const float pixel = inside ? static_cast<float>(near) : 0.0f;
        const float s = channel < 2 ? (channel == 0 ? scale[0] : scale[1]) : (channel == 2 ? scale[2] : scale[3]);
        const float o = channel < 2 ? (channel == 0 ? offset[0] : offset[1]) : (channel == 2 ? offset[2] : offset[3]);
        pack.at[i] = from_float<T>(multiply_add(pixel, s, o));
        const bool next_pixel = ++channel == c;
        channel = next_pixel ? 0 : channel;
        column += next_pixel;
        const bool next_line = column == w;
        column = next_line ? 0 : column;
        line += next_line;
    }
    if constexpr (kLen > 1) {
        store_pack(x + first, pack);
    } else {
        x[first] = pack.at[0];
    }
}

template <class T>
__device__ __forceinline__ void input(T* x, const uint8_t* pixels, const int32_t* placements, const int32_t* num_images,
                                      int max_images, int h, int w, int c, int packs, const float (&scale)[4],
                                      const float (&offset)[4]) {
    const int64_t images = images_of(num_images, max_images);
    const int per_image = h * w * c;
    const int start = static_cast<int>(global_thread_index());
    const int stride = static_cast<int>(grid_stride());
    constexpr int kLen = Pack<T>::kLen;
    // One image a block: in a loop over images nvcc stores packs in parts.
    const int64_t image = static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y;
    if (image >= images) return;
    // Offsets further out change nothing and could overflow.
    const Crop crop{min(max(placements[3 * image], -h), h), min(max(placements[3 * image + 1], -w), w),
                    placements[3 * image + 2]};
    T* const to = x + image * per_image;
    const uint8_t* const from = pixels + image * per_image;
    if (packs) {
        for (int i = start; i < per_image / kLen; i += stride) {
            write<T, kLen>(to, from, i * kLen, h, w, c, crop, scale, offset);
        }
    } else {
        for (int i = start; i < per_image; i += stride) write<T, 1>(to, from, i, h, w, c, crop, scale, offset);
    }
}

extern "C" __global__ void input_f32(float* x, const uint8_t* pixels, const int32_t* placements,
                                     const int32_t* num_images, int max_images, int h, int w, int c, int packs,
                                     float scale_0, float scale_1, float scale_2, float scale_3, float offset_0,
                                     float offset_1, float offset_2, float offset_3) {
    const float scale[4] = {scale_0, scale_1, scale_2, scale_3};
    const float offset[4] = {offset_0, offset_1, offset_2, offset_3};
    input(x, pixels, placements, num_images, max_images, h, w, c, packs, scale, offset);
}

extern "C" __global__ void input_bf16(__nv_bfloat16* x, const uint8_t* pixels, const int32_t* placements,
                                      const int32_t* num_images, int max_images, int h, int w, int c, int packs,
                                      float scale_0, float scale_1, float scale_2, float scale_3, float offset_0,
                                      float offset_1, float offset_2, float offset_3) {
    const float scale[4] = {scale_0, scale_1, scale_2, scale_3};
    const float offset[4] = {offset_0, offset_1, offset_2, offset_3};
    input(x, pixels, placements, num_images, max_images, h, w, c, packs, scale, offset);
}
