// max_pool2d.cu: y[p, q] = max over the window of x, and where in the window it was
//
// Role       max pooling; backward gathers, so that overlapping windows need no atomics
// Shapes     x, dx: [images, H, W, C]; y, dy, argmax: [images, P, Q, C]; argmax is row * window + column in the window
// Types      f32 or bf16, argmax u8; the gradient is summed in f32 in the order of windows and written (=)
// Launch     tiles of rows (output pixels forward, input pixels backward) x blocks of channels, 256 threads (RowTiles;
//            `runs` if 4 channels can be loaded at once); no barrier, no atomics
// Cost       with elements of s bytes forward s an input and s + 1 an output, backward s an input and s + 1 an output;
//            one comparison an element and window: bound by memory bandwidth
// See        src/ops/pool2d/, tests/kernels/max_pool2d.rs

#include <cmath>

#include "row_tiles.cuh"

struct MaxPool {
    int h, w, p, q, window, stride, pad;
};

// Of equal maxima the first wins, NaN is greater than any number, and of several NaNs the last wins. kWindow is the
// window if it is known at compile time, so that the loads of a window's row are in flight together, or 0.
template <class T, int kLen, int kWindow>
__device__ __forceinline__ void forward(T* __restrict__ y, uint8_t* __restrict__ argmax, const T* __restrict__ x,
                                        const MaxPool& pool, const RowTile& tile, int pixels, int c) {
    constexpr int kColumns = kWindow > 0 ? kWindow : 1;
    const int window = kWindow > 0 ? kWindow : pool.window;
    if (tile.first >= tile.end) return;
    PixelCursor cursor(tile.first, pixels);
    for (int64_t row = tile.first; row < tile.end; row += tile.step) {
        const int top = cursor.pixel / pool.q * pool.stride - pool.pad;
        const int left = cursor.pixel % pool.q * pool.stride - pool.pad;
        const T* const image = x + cursor.image * pool.h * pool.w * c + tile.column;
        float best[kLen];
        Run<uint8_t, kLen> where;
        const int first_inside = max(-top, 0) * window + max(-left, 0);
#pragma unroll
        for (int i = 0; i < kLen; ++i) {
            best[i] = -INFINITY;
            where.at[i] = static_cast<uint8_t>(first_inside);
        }
#pragma unroll
        for (int r = 0; r < window; ++r) {
            if (top + r < 0 || top + r >= pool.h) continue;
            const T* const line = image + static_cast<int64_t>(top + r) * pool.w * c;
            for (int s = 0; s < window; s += kColumns) {
                Run<T, kLen> run[kColumns];
#pragma unroll
                for (int j = 0; j < kColumns; ++j) {
                    const int column = min(max(left + s + j, 0), pool.w - 1);
                    run[j] = load_run<kLen>(line + static_cast<int64_t>(column) * c);
                }
#pragma unroll
                for (int j = 0; j < kColumns; ++j) {
                    const bool inside = left + s + j >= 0 && left + s + j < pool.w;
#pragma unroll
                    for (int i = 0; i < kLen; ++i) {
                        const float value = to_float(run[j].at[i]);
                        const bool wins = inside && (value > best[i] || value != value);
                        best[i] = wins ? value : best[i];
                        where.at[i] = wins ? static_cast<uint8_t>(r * window + s + j) : where.at[i];
                    }
                }
            }
        }
        Run<T, kLen> out;
#pragma unroll
        for (int i = 0; i < kLen; ++i) out.at[i] = from_float<T>(best[i]);
        store_run(y + row * c + tile.column, out);
        store_run(argmax + row * c + tile.column, where);
        cursor.advance(tile.step, pixels);
    }
}

template <class T, int kLen>
__device__ __forceinline__ void forward(T* y, uint8_t* argmax, const T* x, const MaxPool& pool, int64_t rows,
                                        int pixels, int c, int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (pool.window == 2) {
        forward<T, kLen, 2>(y, argmax, x, pool, tile, pixels, c);
    } else if (pool.window == 3) {
        forward<T, kLen, 3>(y, argmax, x, pool, tile, pixels, c);
    } else {
        forward<T, kLen, 0>(y, argmax, x, pool, tile, pixels, c);
    }
}

template <class T>
__device__ __forceinline__ void forward(T* y, uint8_t* argmax, const T* x, const int32_t* num_images, int max_images,
                                        const MaxPool& pool, int pixels, int c, int tile_rows, int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        forward<T, kRunLen>(y, argmax, x, pool, rows, pixels, c, tile_rows, width);
    } else {
        forward<T, 1>(y, argmax, x, pool, rows, pixels, c, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    max_pool2d_forward_f32(float* y, uint8_t* argmax, const float* x, const int32_t* num_images, int max_images,
                           int pixels, int c, int tile_rows, int width, int runs, int h, int w, int p, int q,
                           int window, int stride, int pad) {
    forward(y, argmax, x, num_images, max_images, MaxPool{h, w, p, q, window, stride, pad}, pixels, c, tile_rows, width,
            runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    max_pool2d_forward_bf16(__nv_bfloat16* y, uint8_t* argmax, const __nv_bfloat16* x, const int32_t* num_images,
                            int max_images, int pixels, int c, int tile_rows, int width, int runs, int h, int w, int p,
                            int q, int window, int stride, int pad) {
    forward(y, argmax, x, num_images, max_images, MaxPool{h, w, p, q, window, stride, pad}, pixels, c, tile_rows, width,
            runs);
}

// Each input pixel adds up dy over the windows that it won.
template <class T, int kLen>
__device__ __forceinline__ void backward(T* __restrict__ dx, const T* __restrict__ dy,
                                         const uint8_t* __restrict__ argmax, const MaxPool& pool, int64_t rows,
                                         int pixels, int c, int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (tile.first >= tile.end) return;
    PixelCursor cursor(tile.first, pixels);
    for (int64_t row = tile.first; row < tile.end; row += tile.step) {
        // In the padded image.
        const int h = cursor.pixel / pool.w + pool.pad;
        const int w = cursor.pixel % pool.w + pool.pad;
        const int p_first = (max(h + 1 - pool.window, 0) + pool.stride - 1) / pool.stride;
        const int q_first = (max(w + 1 - pool.window, 0) + pool.stride - 1) / pool.stride;
        const int p_end = min(h / pool.stride + 1, pool.p);
        const int q_end = min(w / pool.stride + 1, pool.q);
        float sum[kLen] = {};
        for (int p = p_first; p < p_end; ++p) {
#pragma unroll 2
            for (int q = q_first; q < q_end; ++q) {
                const int position = (h - p * pool.stride) * pool.window + w - q * pool.stride;
                const int64_t at = ((cursor.image * pool.p + p) * pool.q + q) * c + tile.column;
                const Run<T, kLen> slope = load_run<kLen>(dy + at);
                const Run<uint8_t, kLen> where = load_run<kLen>(argmax + at);
#pragma unroll
                for (int i = 0; i < kLen; ++i) sum[i] += where.at[i] == position ? to_float(slope.at[i]) : 0.0f;
            }
        }
        Run<T, kLen> out;
#pragma unroll
        for (int i = 0; i < kLen; ++i) out.at[i] = from_float<T>(sum[i]);
        store_run(dx + row * c + tile.column, out);
        cursor.advance(tile.step, pixels);
    }
}

template <class T>
__device__ __forceinline__ void backward(T* dx, const T* dy, const uint8_t* argmax, const int32_t* num_images,
                                         int max_images, const MaxPool& pool, int pixels, int c, int tile_rows,
                                         int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        backward<T, kRunLen>(dx, dy, argmax, pool, rows, pixels, c, tile_rows, width);
    } else {
        backward<T, 1>(dx, dy, argmax, pool, rows, pixels, c, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    max_pool2d_backward_f32(float* dx, const float* dy, const uint8_t* argmax, const int32_t* num_images,
                            int max_images, int pixels, int c, int tile_rows, int width, int runs, int h, int w, int p,
                            int q, int window, int stride, int pad) {
    backward(dx, dy, argmax, num_images, max_images, MaxPool{h, w, p, q, window, stride, pad}, pixels, c, tile_rows,
             width, runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    max_pool2d_backward_bf16(__nv_bfloat16* dx, const __nv_bfloat16* dy, const uint8_t* argmax,
                             const int32_t* num_images, int max_images, int pixels, int c, int tile_rows, int width,
                             int runs, int h, int w, int p, int q, int window, int stride, int pad) {
    backward(dx, dy, argmax, num_images, max_images, MaxPool{h, w, p, q, window, stride, pad}, pixels, c, tile_rows,
             width, runs);
}
