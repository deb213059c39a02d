// conv2d_wgrad.cu: dfilter[k,r,s,c] = sum over (n,p,q) of dy[n,p,q,k] *
// x[n, p*stride - pad + r*dilation, q*stride - pad + s*dilation, c]
//
// Role       gradient of the filter of convolutions and linear layers
// Shapes     x [images, H, W, C], dy [images, P, Q, K], dfilter [K, R, S, C] or parts of it [parts, part_len]; num_images [1],
//            at most the images the parts were sized for
// Types      f32 (FMA, f32 sums) or bf16 (tensor cores, f32 sums); dfilter f32, written (=); same bits in every run
// Launch     blockIdx.x is a tile of rows k and columns (r,s,c), columns innermost; blockIdx.y is a part of split_pixels of the
//            depth (n,p,q), of which those of the first num_images images count, and writes its sums to dfilter +
//            part * part_len; the reduce kernel adds them, a 1-D grid-stride loop. Threads and dynamic shared memory as in
//            src/ops/conv2d/cuda/tiled.rs. x, dy start at multiples of 16 bytes, dfilter at any element. Without gather, C and K
//            must fill 16-byte chunks.
// Cost       2*N*P*Q*K*R*S*C FLOP; x and dy once from memory, dy once per tile of columns and x up to R*S times from the L2
//            cache; parts 8 bytes an element each
// See        src/ops/conv2d/cuda/, conv2d_tile.cuh, conv2d_math.cuh, tests/kernels/conv2d_wgrad.rs

#include "conv2d_math.cuh"

template <class TileT, class Math>
__device__ __forceinline__ void wgrad(float* dfilter, const typename TileT::Element* x, const typename TileT::Element* dy,
                                      const int32_t* num_images, const Conv2d& conv, int split_pixels, int64_t part_len) {
    DYNAMIC_SHARED(shared);
    const int columns = conv.r * conv.s * conv.c;
    const int tiles_n = ceil_div(columns, TileT::kColumns);
    const int tile = blockIdx.x / tiles_n;
    const int row0 = tile * TileT::kRows, column0 = (blockIdx.x - tile * tiles_n) * TileT::kColumns;
    const int pixels = *num_images * conv.p * conv.q;
    const int begin = static_cast<int>(min(static_cast<int64_t>(blockIdx.y) * split_pixels, static_cast<int64_t>(pixels)));
    const int end = min(split_pixels, pixels - begin) + begin;

    PixelChannels<TileT> channels(dy, begin, end, row0, conv.k);
    PixelTaps<TileT> taps(x, conv, begin, end, column0);
    Math math;
    multiply<TileT>(math, channels, taps, ceil_div(end - begin, TileT::kStep), shared);
    float* const staged = reinterpret_cast<float*>(shared);
    stage_sums<TileT>(math, staged);
    store_f32<TileT>(dfilter + blockIdx.y * part_len, staged, row0, conv.k, column0, columns);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    conv2d_wgrad_mma_128x128_bf16(float* dfilter, const Bf16* x, const Bf16* dy, const int32_t* num_images, int c,
                                  int h, int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                  int split_pixels, int64_t part_len) {
    wgrad<MmaTile128x128, Mma<MmaTile128x128, 2, 2, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_wgrad_mma_128x64_bf16(float* dfilter, const Bf16* x, const Bf16* dy, const int32_t* num_images, int c, int h,
                                 int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                 int split_pixels, int64_t part_len) {
    wgrad<MmaTile128x64, Mma<MmaTile128x64, 2, 2, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_wgrad_mma_64x64_bf16(float* dfilter, const Bf16* x, const Bf16* dy, const int32_t* num_images, int c, int h,
                                int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                int split_pixels, int64_t part_len) {
    wgrad<MmaTile64x64, Mma<MmaTile64x64, 2, 2, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_wgrad_mma_gather_bf16(float* dfilter, const Bf16* x, const Bf16* dy, const int32_t* num_images, int c, int h,
                                 int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                 int split_pixels, int64_t part_len) {
    wgrad<MmaTileGather, Mma<MmaTileGather, 2, 2, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    conv2d_wgrad_simt_128x128_f32(float* dfilter, const float* x, const float* dy, const int32_t* num_images, int c,
                                  int h, int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                  int split_pixels, int64_t part_len) {
    wgrad<SimtTile128x128, Simt<SimtTile128x128, 4, 2, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_wgrad_simt_128x64_f32(float* dfilter, const float* x, const float* dy, const int32_t* num_images, int c,
                                 int h, int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                 int split_pixels, int64_t part_len) {
    wgrad<SimtTile128x64, Simt<SimtTile128x64, 4, 1, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

extern "C" __global__ void __launch_bounds__(64, 6)
    conv2d_wgrad_simt_64x64_f32(float* dfilter, const float* x, const float* dy, const int32_t* num_images, int c,
                                int h, int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                int split_pixels, int64_t part_len) {
    wgrad<SimtTile64x64, Simt<SimtTile64x64, 2, 1, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv2d_wgrad_simt_gather_f32(float* dfilter, const float* x, const float* dy, const int32_t* num_images, int c,
                                 int h, int w, int k, int r, int s, int p, int q, int stride, int pad, int dilation,
                                 int split_pixels, int64_t part_len) {
    wgrad<SimtTileGather, Simt<SimtTileGather, 2, 1, false, false>>(
        dfilter, x, dy, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, split_pixels, part_len);
}

// Adds the parts in their order.
extern "C" __global__ void __launch_bounds__(256)
    conv2d_wgrad_reduce_f32(float* dfilter, const float* partials, int parts, int64_t part_len, int64_t numel) {
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) {
        float v = 0.0f;
#pragma unroll 8
        for (int part = 0; part < parts; ++part) v += partials[part * part_len + i];
        dfilter[i] = v;
    }
}
