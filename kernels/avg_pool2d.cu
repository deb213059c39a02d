// avg_pool2d.cu: y[p, q] = mean of x over the bin floor(p * H / P) .. ceil((p + 1) * H / P), likewise along W
//
// Role       adaptive average pooling, of which 1 x 1 is global; backward gathers, so that overlapping bins need no
//            atomics
// Shapes     x, dx: [images, H, W, C]; y, dy: [images, P, Q, C]
// Types      f32 or bf16; summed in f32, the forward sum in the CPU's order; the gradient is written (=)
// Launch     tiles of rows (output pixels forward, input pixels backward) x blocks of channels, 256 threads (RowTiles;
//            `runs` if 4 channels can be loaded at once); no barrier, no atomics
// Cost       with elements of s bytes s an input and s an output in both directions, one addition an element and bin:
//            bound by memory bandwidth
// See        src/ops/pool2d/, tests/kernels/avg_pool2d.rs

#include "row_tiles.cuh"

struct AvgPool {
    int h, w, p, q;
};

// Indices on the `to` side that share a bin with `index` on the `from` side; the relation is symmetric.
struct Bin {
    int first, end;

    __device__ __forceinline__ Bin(int index, int from, int to)
        : first(static_cast<int>(static_cast<int64_t>(index) * to / from)),
          end(static_cast<int>((static_cast<int64_t>(index + 1) * to + from - 1) / from)) {}

    __device__ __forceinline__ int len() const { return end - first; }
};

template <class T, int kLen>
__device__ __forceinline__ void forward(T* __restrict__ y, const T* __restrict__ x, const AvgPool& pool, int64_t rows,
                                        int pixels, int c, int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (tile.first >= tile.end) return;
    PixelCursor cursor(tile.first, pixels);
    for (int64_t row = tile.first; row < tile.end; row += tile.step) {
        const Bin lines(cursor.pixel / pool.q, pool.p, pool.h);
        const Bin columns(cursor.pixel % pool.q, pool.q, pool.w);
        float sum[kLen] = {};
        for (int h = lines.first; h < lines.end; ++h) {
            const T* const line = x + (cursor.image * pool.h + h) * pool.w * c + tile.column;
#pragma unroll 4
            for (int w = columns.first; w < columns.end; ++w) {
                const Run<T, kLen> run = load_run<kLen>(line + static_cast<int64_t>(w) * c);
#pragma unroll
                for (int i = 0; i < kLen; ++i) sum[i] += to_float(run.at[i]);
            }
        }
        const float scale = 1.0f / static_cast<float>(lines.len() * columns.len());
        Run<T, kLen> out;
#pragma unroll
        for (int i = 0; i < kLen; ++i) out.at[i] = from_float<T>(sum[i] * scale);
        store_run(y + row * c + tile.column, out);
        cursor.advance(tile.step, pixels);
    }
}

template <class T>
__device__ __forceinline__ void forward(T* y, const T* x, const int32_t* num_images, int max_images,
                                        const AvgPool& pool, int pixels, int c, int tile_rows, int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        forward<T, kRunLen>(y, x, pool, rows, pixels, c, tile_rows, width);
    } else {
        forward<T, 1>(y, x, pool, rows, pixels, c, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    avg_pool2d_forward_f32(float* y, const float* x, const int32_t* num_images, int max_images, int pixels, int c,
                           int tile_rows, int width, int runs, int h, int w, int p, int q) {
    forward(y, x, num_images, max_images, AvgPool{h, w, p, q}, pixels, c, tile_rows, width, runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    avg_pool2d_forward_bf16(__nv_bfloat16* y, const __nv_bfloat16* x, const int32_t* num_images, int max_images,
                            int pixels, int c, int tile_rows, int width, int runs, int h, int w, int p, int q) {
    forward(y, x, num_images, max_images, AvgPool{h, w, p, q}, pixels, c, tile_rows, width, runs);
}

// Each input pixel adds up its share of the bins it lies in.
template <class T, int kLen>
__device__ __forceinline__ void backward(T* __restrict__ dx, const T* __restrict__ dy, const AvgPool& pool,
                                         int64_t rows, int pixels, int c, int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (tile.first >= tile.end) return;
    PixelCursor cursor(tile.first, pixels);
    for (int64_t row = tile.first; row < tile.end; row += tile.step) {
        const Bin lines(cursor.pixel / pool.w, pool.h, pool.p);
        const Bin columns(cursor.pixel % pool.w, pool.w, pool.q);
        float sum[kLen] = {};
        for (int p = lines.first; p < lines.end; ++p) {
            const int height = Bin(p, pool.p, pool.h).len();
            for (int q = columns.first; q < columns.end; ++q) {
                const float scale = 1.0f / static_cast<float>(height * Bin(q, pool.q, pool.w).len());
                const Run<T, kLen> run =
                    load_run<kLen>(dy + ((cursor.image * pool.p + p) * pool.q + q) * c + tile.column);
#pragma unroll
                for (int i = 0; i < kLen; ++i) sum[i] += to_float(run.at[i]) * scale;
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
__device__ __forceinline__ void backward(T* dx, const T* dy, const int32_t* num_images, int max_images,
                                         const AvgPool& pool, int pixels, int c, int tile_rows, int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        backward<T, kRunLen>(dx, dy, pool, rows, pixels, c, tile_rows, width);
    } else {
        backward<T, 1>(dx, dy, pool, rows, pixels, c, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    avg_pool2d_backward_f32(float* dx, const float* dy, const int32_t* num_images, int max_images, int pixels, int c,
                            int tile_rows, int width, int runs, int h, int w, int p, int q) {
    backward(dx, dy, num_images, max_images, AvgPool{h, w, p, q}, pixels, c, tile_rows, width, runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    avg_pool2d_backward_bf16(__nv_bfloat16* dx, const __nv_bfloat16* dy, const int32_t* num_images, int max_images,
                             int pixels, int c, int tile_rows, int width, int runs, int h, int w, int p, int q) {
    backward(dx, dy, num_images, max_images, AvgPool{h, w, p, q}, pixels, c, tile_rows, width, runs);
}
