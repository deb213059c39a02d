// conv2d_dgrad.cu: dx[n,h,w,c] = sum over k and the (p,q,r,s) that read x[n,h,w] of dy[n,p,q,k] * filter[k,r,s,c]
//
// Role       gradient of the input of convolutions and linear layers
// Shapes     dy [images, P, Q, K], filter [K, R, S, C], dx [images, H, W, C]; partials [parts, part_len] or null;
//            num_images [1], at most the images the grid was sized for
// Types      f32 (FMA, f32 sums) or bf16 (tensor cores, f32 sums, rounded once); partials f32. dx is written (=), or with
//            `accumulate` added to (+=) in f32; same bits in every run
// Launch     Pixels are taken in classes by h and w modulo the stride, since those of a class meet the same taps: every
//            (stride / gcd(stride, dilation))-th. Classes without taps get zeros. blockIdx.x is a class, a tile of its rows
//            (n,h,w) and of columns c, columns innermost; blockIdx.y is a part of the depth (r,s,k), which writes its sums to
//            partials[part] for the reduce kernel to add. Threads and dynamic shared memory as in
//            src/ops/conv2d/cuda/tiled.rs. Images beyond the first num_images are neither read nor written. dy, filter, dx and
//            partials start at multiples of 16 bytes. Without gather, C and K must fill 16-byte chunks.
// Cost       2*N*P*Q*K*R*S*C FLOP; dy, filter and dx once from memory, dy up to R*S/stride^2 times from the L2 cache; parts
//            8 bytes each
// See        src/ops/conv2d/cuda/, conv2d_tile.cuh, conv2d_math.cuh, tests/kernels/conv2d_dgrad.rs

#include "conv2d_math.cuh"

// Taps of one direction that meet the pixels a, a + stride, a + 2 * stride, ...: first, first + tap_stride, ...
struct Taps {
    int first, count;
    int origin;  // where pixel a meets the first tap

    __device__ __forceinline__ Taps(const Conv2d& conv, int a, int extent, int tap_stride) {
        first = 0;
        while (first < tap_stride && (a + conv.pad - first * conv.dilation) % conv.stride != 0) ++first;
        count = first < min(tap_stride, extent) ? ceil_div(extent - first, tap_stride) : 0;
        origin = (a + conv.pad - first * conv.dilation) / conv.stride;
    }
};

template <class TileT, class Math>
__device__ __forceinline__ void dgrad(typename TileT::Element* dx, float* partials, const typename TileT::Element* dy,
                                      const typename TileT::Element* filter, const int32_t* num_images, const Conv2d& conv,
                                      int tap_stride, int tiles_m, int accumulate, int64_t part_len) {
    using T = typename TileT::Element;
    DYNAMIC_SHARED(shared);
    const int tiles_c = ceil_div(conv.c, TileT::kColumns);
    const int tile = blockIdx.x / tiles_c;
    const int column0 = (blockIdx.x - tile * tiles_c) * TileT::kColumns;
    const int which = tile / tiles_m;
    const int row0 = (tile - which * tiles_m) * TileT::kRows;
    const int classes_w = min(conv.stride, conv.w);
    const int a_h = which / classes_w, a_w = which % classes_w;
    const int grid_h = ceil_div(conv.h - a_h, conv.stride), grid_w = ceil_div(conv.w - a_w, conv.stride);
    const int rows = *num_images * grid_h * grid_w;
    if (row0 >= rows) return;

    const Taps taps_h(conv, a_h, conv.r, tap_stride), taps_w(conv, a_w, conv.s, tap_stride);
    const int depth = taps_h.count * taps_w.count * conv.k;
    if (depth == 0 && accumulate) return;
    const int steps = ceil_div(depth, TileT::kStep);
    const int steps_per_part = ceil_div(steps, gridDim.y);
    const int first = min(static_cast<int>(blockIdx.y) * steps_per_part, steps);
    const int tap_step = -(tap_stride * conv.dilation / conv.stride);
    Math math;
    if (depth > 0) {
        const Window window = {grid_h, grid_w, 1, taps_h.origin, taps_w.origin, taps_h.count, taps_w.count, tap_step,
                               conv.p, conv.q, conv.k};
        Pixels<TileT> pixels(dy, window, row0, rows, first * TileT::kStep);
        FilterTaps<TileT> filter_taps(filter, conv, window, taps_h.first, taps_w.first, tap_stride, column0,
                                      first * TileT::kStep);
        multiply<TileT>(math, pixels, filter_taps, min(steps_per_part, steps - first), shared);
    }

    // Where a row of the class lies among all pixels.
    const auto pixel = [&](int row) -> int64_t {
        if (conv.stride == 1) return row;
        const int line = row / grid_w;
        const int n = line / grid_h;
        const int h = a_h + (line - n * grid_h) * conv.stride, w = a_w + (row - line * grid_w) * conv.stride;
        return (static_cast<int64_t>(n) * conv.h + h) * conv.w + w;
    };
    float* const staged = reinterpret_cast<float*>(shared);
    stage_sums<TileT>(math, staged);
    if (partials != nullptr) {
        float* const part = partials + blockIdx.y * part_len;
        for_each_staged<TileT, 1>(staged, [&](int row, int column, const float(&values)[1]) {
            if (row0 + row >= rows || column0 + column >= conv.c) return;
            part[pixel(row0 + row) * conv.c + column0 + column] = values[0];
        });
        return;
    }
    constexpr int kLanes = TileT::kLanes;
    const bool aligned = conv.c % kLanes == 0;
    for_each_staged<TileT, kLanes>(staged, [&](int row, int column, const float(&values)[kLanes]) {
        const int valid = conv.c - column0 - column;
        if (row0 + row >= rows || valid <= 0) return;
        store_chunk<T>(dx + (pixel(row0 + row) * conv.c + column0 + column), values, valid, aligned, accumulate != 0);
    });
}

// Adds the parts in their order; `len` elements an image.
template <class T>
__device__ __forceinline__ void dgrad_reduce(T* dx, const float* partials, const int32_t* num_images, int len,
                                             int accumulate, int parts, int64_t part_len) {
    const int64_t numel = static_cast<int64_t>(*num_images) * len;
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) {
        float v = 0.0f;
#pragma unroll 8
        for (int part = 0; part < parts; ++part) v += partials[part * part_len + i];
        dx[i] = from_float<T>(accumulate ? to_float(dx[i]) + v : v);
    }
}

extern "C" __global__ void __launch_bounds__(128, 2)
    conv2d_dgrad_mma_128x128_bf16(Bf16* dx, float* partials, const Bf16* dy, const Bf16* filter,
                                  const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                  int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                  int64_t part_len) {
    dgrad<MmaTile128x128, Mma<MmaTile128x128, 2, 2, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_dgrad_mma_128x64_bf16(Bf16* dx, float* partials, const Bf16* dy, const Bf16* filter,
                                 const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                 int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                 int64_t part_len) {
    dgrad<MmaTile128x64, Mma<MmaTile128x64, 2, 2, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_dgrad_mma_64x64_bf16(Bf16* dx, float* partials, const Bf16* dy, const Bf16* filter,
                                const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                int64_t part_len) {
    dgrad<MmaTile64x64, Mma<MmaTile64x64, 2, 2, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_dgrad_mma_gather_bf16(Bf16* dx, float* partials, const Bf16* dy, const Bf16* filter,
                                 const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                 int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                 int64_t part_len) {
    dgrad<MmaTileGather, Mma<MmaTileGather, 2, 2, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    conv2d_dgrad_simt_128x128_f32(float* dx, float* partials, const float* dy, const float* filter,
                                  const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                  int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                  int64_t part_len) {
    dgrad<SimtTile128x128, Simt<SimtTile128x128, 4, 2, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_dgrad_simt_128x64_f32(float* dx, float* partials, const float* dy, const float* filter,
                                 const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                 int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                 int64_t part_len) {
    dgrad<SimtTile128x64, Simt<SimtTile128x64, 4, 1, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv2d_dgrad_simt_64x64_f32(float* dx, float* partials, const float* dy, const float* filter,
                                const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                int64_t part_len) {
    dgrad<SimtTile64x64, Simt<SimtTile64x64, 2, 1, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv2d_dgrad_simt_gather_f32(float* dx, float* partials, const float* dy, const float* filter,
                                 const int32_t* num_images, int c, int h, int w, int k, int r, int s, int p, int q,
                                 int stride, int pad, int dilation, int tap_stride, int tiles_m, int accumulate,
                                 int64_t part_len) {
    dgrad<SimtTileGather, Simt<SimtTileGather, 2, 1, true, false>>(
        dx, partials, dy, filter, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, tap_stride, tiles_m,
        accumulate, part_len);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_dgrad_reduce_f32(float* dx, const float* partials, const int32_t* num_images, int len, int accumulate, int parts,
                            int64_t part_len) {
    dgrad_reduce<float>(dx, partials, num_images, len, accumulate, parts, part_len);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_dgrad_reduce_bf16(Bf16* dx, const float* partials, const int32_t* num_images, int len, int accumulate, int parts,
                             int64_t part_len) {
    dgrad_reduce<Bf16>(dx, partials, num_images, len, accumulate, parts, part_len);
}
