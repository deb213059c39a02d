// row_tiles.cuh: passes over [rows, C], a tile of rows times channels a block; src/ops/row_tiles.rs sizes their grids
#pragma once

#include "common.cuh"

// Threads of a block that has a tile.
constexpr int kTileThreads = 256;

// Blocks that a multiprocessor holds at least: enough loads in flight to keep the memory busy.
constexpr int kTileBlocks = 4;

// Most threads side by side along the channels.
constexpr int kMaxWidth = 64;

// Channels of a thread where they can be loaded and stored at once. With the 8 that 16 bytes of bf16 hold, what a
// thread keeps for each channel would leave too few registers for loads in flight.
constexpr int kRunLen = 4;

template <class T, int kLen>
struct alignas(sizeof(T) * kLen) Run {
    T at[kLen];
};

template <int kLen, class T>
__device__ __forceinline__ Run<T, kLen> load_run(const T* from) {
    return *reinterpret_cast<const Run<T, kLen>*>(from);
}

template <int kLen, class T>
__device__ __forceinline__ void store_run(T* to, const Run<T, kLen>& run) {
    *reinterpret_cast<Run<T, kLen>*>(to) = run;
}

// What one thread has of its block's tile: channels [column, column + kLen) of the rows first, first + step, ... below
// end. Blocks along x are tiles, blocks along y are blocks of width * kLen channels. A thread without channels has no
// rows.
struct RowTile {
    int64_t top;  // the tile's first row; not below `bottom` in a block without a tile
    int64_t bottom;
    int64_t first;
    int64_t end;
    int step;
    int lane;
    int column;
    int block_column;  // the block's first channel
};

template <int kLen>
__device__ __forceinline__ RowTile row_tile(int64_t rows, int c, int tile_rows, int width) {
    const int thread = static_cast<int>(threadIdx.x);
    RowTile tile;
    tile.top = static_cast<int64_t>(blockIdx.x) * tile_rows;
    tile.bottom = min(tile.top + tile_rows, rows);
    tile.step = kTileThreads / width;
    tile.lane = thread / width;
    tile.block_column = static_cast<int>(blockIdx.y) * width * kLen;
    tile.column = tile.block_column + thread % width * kLen;
    tile.first = tile.top + tile.lane;
    tile.end = tile.lane < tile.step && tile.column < c ? tile.bottom : tile.first;
    return tile;
}

// Adds up each of `values` over the threads whose indices are equal modulo `width`, `lanes` of them; the sums are those
// of lane 0. The order of additions depends on `lanes` alone. All threads of the block take part.
template <int kThreads, class A, int kCount>
__device__ __forceinline__ void sum_lanes(A (&values)[kCount], int lane, int lanes, int width) {
    __shared__ A shared[kCount][kThreads];
    const int thread = static_cast<int>(threadIdx.x);
    for (int num = lanes; num > 1;) {
        const int half = (num + 1) / 2;
        if (lane >= half && lane < num) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) shared[i][thread] = values[i];
        }
        __syncthreads();
        if (lane + half < num) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) values[i] += shared[i][thread + half * width];
        }
        __syncthreads();
        num = half;
    }
}

// A pixel of an image, for loops over the pixels of many.
struct PixelCursor {
    int64_t image;
    int pixel;

    __device__ __forceinline__ PixelCursor(int64_t row, int pixels)
        : image(row / pixels), pixel(static_cast<int>(row - image * pixels)) {}

    __device__ __forceinline__ void advance(int step, int pixels) {
        pixel += step;
        if (pixel >= pixels) {
            image += pixel / pixels;
            pixel %= pixels;
        }
    }
};
