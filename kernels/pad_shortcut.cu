// pad_shortcut.cu: y[p, q] = x[p * stride, q * stride] between zero channels
//
// Role       the parameter-free shortcut of the CIFAR ResNets: every stride-th pixel, `front` zero channels before its
//            own
// Shapes     x, dx: [images, H, W, C]; y, dy: [images, P, Q, K]
// Types      f32 or bf16, copied; the gradient is written (=), 0 where a pixel was not taken
// Launch     tiles of rows (pixels of what is written) x blocks of its channels, 256 threads (RowTiles; `runs` if 4
//            channels can be loaded at once); no barrier, no atomics
// Cost       with elements of s bytes forward s for each of K outputs and s for each input taken, backward s an input
//            and s an input taken; no FLOP: bound by memory bandwidth
// See        src/ops/pad_shortcut/, tests/kernels/pad_shortcut.rs

#include "row_tiles.cuh"

struct Shortcut {
    int h, w, c, p, q, k, front, stride;
};

template <class T, int kLen>
__device__ __forceinline__ void forward(T* __restrict__ y, const T* __restrict__ x, const Shortcut& shape, int64_t rows,
                                        int pixels, int channels, int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, channels, tile_rows, width);
    if (tile.first >= tile.end) return;
    const int source = tile.column - shape.front;
    const bool copied = source >= 0 && source < shape.c;
    PixelCursor cursor(tile.first, pixels);
    for (int64_t row = tile.first; row < tile.end; row += tile.step) {
        const int h = cursor.pixel / shape.q * shape.stride;
        const int w = cursor.pixel % shape.q * shape.stride;
        Run<T, kLen> run;
        if (copied) {
            run = load_run<kLen>(x + ((cursor.image * shape.h + h) * shape.w + w) * shape.c + source);
        } else {
#pragma unroll
            for (int i = 0; i < kLen; ++i) run.at[i] = from_float<T>(0.0f);
        }
        store_run(y + row * channels + tile.column, run);
        cursor.advance(tile.step, pixels);
    }
}

template <class T>
__device__ __forceinline__ void forward(T* y, const T* x, const int32_t* num_images, int max_images,
                                        const Shortcut& shape, int pixels, int channels, int tile_rows, int width,
                                        int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        forward<T, kRunLen>(y, x, shape, rows, pixels, channels, tile_rows, width);
    } else {
        forward<T, 1>(y, x, shape, rows, pixels, channels, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    pad_shortcut_forward_f32(float* y, const float* x, const int32_t* num_images, int max_images, int pixels,
                             int channels, int tile_rows, int width, int runs, int h, int w, int c, int p, int q, int k,
                             int front, int stride) {
    forward(y, x, num_images, max_images, Shortcut{h, w, c, p, q, k, front, stride}, pixels, channels, tile_rows, width,
            runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    pad_shortcut_forward_bf16(__nv_bfloat16* y, const __nv_bfloat16* x, const int32_t* num_images, int max_images,
                              int pixels, int channels, int tile_rows, int width, int runs, int h, int w, int c, int p,
                              int q, int k, int front, int stride) {
    forward(y, x, num_images, max_images, Shortcut{h, w, c, p, q, k, front, stride}, pixels, channels, tile_rows, width,
            runs);
}

template <class T, int kLen>
__device__ __forceinline__ void backward(T* __restrict__ dx, const T* __restrict__ dy, const Shortcut& shape,
                                         int64_t rows, int pixels, int channels, int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, channels, tile_rows, width);
    if (tile.first >= tile.end) return;
    PixelCursor cursor(tile.first, pixels);
    for (int64_t row = tile.first; row < tile.end; row += tile.step) {
        const int h = cursor.pixel / shape.w;
        const int w = cursor.pixel % shape.w;
        Run<T, kLen> run;
        if (h % shape.stride == 0 && w % shape.stride == 0) {
            const int64_t pixel = (cursor.image * shape.p + h / shape.stride) * shape.q + w / shape.stride;
            run = load_run<kLen>(dy + pixel * shape.k + shape.front + tile.column);
        } else {
#pragma unroll
            for (int i = 0; i < kLen; ++i) run.at[i] = from_float<T>(0.0f);
        }
        store_run(dx + row * channels + tile.column, run);
        cursor.advance(tile.step, pixels);
    }
}

template <class T>
__device__ __forceinline__ void backward(T* dx, const T* dy, const int32_t* num_images, int max_images,
                                         const Shortcut& shape, int pixels, int channels, int tile_rows, int width,
                                         int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        backward<T, kRunLen>(dx, dy, shape, rows, pixels, channels, tile_rows, width);
    } else {
        backward<T, 1>(dx, dy, shape, rows, pixels, channels, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    pad_shortcut_backward_f32(float* dx, const float* dy, const int32_t* num_images, int max_images, int pixels,
                              int channels, int tile_rows, int width, int runs, int h, int w, int c, int p, int q,
                              int k, int front, int stride) {
    backward(dx, dy, num_images, max_images, Shortcut{h, w, c, p, q, k, front, stride}, pixels, channels, tile_rows,
             width, runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    pad_shortcut_backward_bf16(__nv_bfloat16* dx, const __nv_bfloat16* dy, const int32_t* num_images, int max_images,
                               int pixels, int channels, int tile_rows, int width, int runs, int h, int w, int c, int p,
                               int q, int k, int front, int stride) {
    backward(dx, dy, num_images, max_images, Shortcut{h, w, c, p, q, k, front, stride}, pixels, channels, tile_rows,
             width, runs);
}
