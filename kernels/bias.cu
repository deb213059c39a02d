// bias.cu: dbias[k] = sum over rows of dy[row, k], dy being 0 where the ReLU that followed cut
//
// Role       gradient of the bias of a linear layer or a convolution, and of the ReLU fused into it
// Shapes     dy, relu_y: [images, pixels, K]; partials: [tiles, K], a tile being `tile_rows` rows of all images; dbias:
//            [K], written (=). relu_y may be null: no ReLU, dy is not written
// Types      f32 or bf16; a tile's sums in f32, tiles added up in f64 in a fixed order. NaN outputs let dy pass
// Launch     sums: tiles x blocks of channels, 256 threads (RowTiles; `runs` if 4 channels can be loaded at once);
//            finish: channels x up to 512 threads (Merge); static shared memory up to 5 KiB; barriers, no atomics
// Cost       1 element of memory an element, 3 with relu_y; 1 FLOP: bound by memory bandwidth
// See        src/ops/linear/, tests/kernels/bias.rs

#include "row_tiles.cuh"

// Most threads of the finishing pass.
constexpr int kFinishThreads = 512;

// Rows of a thread that are loaded together.
constexpr int kRowsAtOnce = 4;

// Blocks of the sums that a multiprocessor holds at least; one more would spill registers.
constexpr int kBiasBlocks = 3;

template <class T, int kLen, bool kRelu>
__device__ __forceinline__ void sums(float* __restrict__ partials, T* __restrict__ dy, const T* __restrict__ relu_y,
                                     const RowTile& tile, int k, int width) {
    if (tile.top >= tile.bottom) return;
    float sum[kLen] = {};
    for (int64_t first = tile.first; first < tile.end; first += tile.step * kRowsAtOnce) {
        Run<T, kLen> dys[kRowsAtOnce];
        Run<T, kLen> ys[kRelu ? kRowsAtOnce : 1];
#pragma unroll
        for (int j = 0; j < kRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
            dys[j] = load_run<kLen>(dy + row * k + tile.column);
            if (kRelu) ys[j] = load_run<kLen>(relu_y + row * k + tile.column);
        }
#pragma unroll
        for (int j = 0; j < kRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
#pragma unroll
            for (int i = 0; i < kLen; ++i) {
                if (kRelu && to_float(ys[j].at[i]) <= 0.0f) dys[j].at[i] = from_float<T>(0.0f);
                sum[i] += to_float(dys[j].at[i]);
            }
            if (kRelu) store_run(dy + row * k + tile.column, dys[j]);
        }
    }
    sum_lanes<kTileThreads>(sum, tile.lane, tile.step, width);
    if (tile.lane > 0 || tile.column >= k) return;
#pragma unroll
    for (int i = 0; i < kLen; ++i) partials[static_cast<int64_t>(blockIdx.x) * k + tile.column + i] = sum[i];
}

template <class T, int kLen>
__device__ __forceinline__ void sums(float* partials, T* dy, const T* relu_y, int64_t rows, int k, int tile_rows,
                                     int width) {
    const RowTile tile = row_tile<kLen>(rows, k, tile_rows, width);
    if (relu_y != nullptr) {
        sums<T, kLen, true>(partials, dy, relu_y, tile, k, width);
    } else {
        sums<T, kLen, false>(partials, dy, relu_y, tile, k, width);
    }
}

template <class T>
__device__ __forceinline__ void sums(float* partials, T* dy, const T* relu_y, const int32_t* num_images, int max_images,
                                     int pixels, int k, int tile_rows, int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        sums<T, kRunLen>(partials, dy, relu_y, rows, k, tile_rows, width);
    } else {
        sums<T, 1>(partials, dy, relu_y, rows, k, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kBiasBlocks)
    bias_sums_f32(float* partials, float* dy, const float* relu_y, const int32_t* num_images, int max_images,
                  int pixels, int k, int tile_rows, int width, int runs) {
    sums(partials, dy, relu_y, num_images, max_images, pixels, k, tile_rows, width, runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kBiasBlocks)
    bias_sums_bf16(float* partials, __nv_bfloat16* dy, const __nv_bfloat16* relu_y, const int32_t* num_images,
                   int max_images, int pixels, int k, int tile_rows, int width, int runs) {
    sums(partials, dy, relu_y, num_images, max_images, pixels, k, tile_rows, width, runs);
}

extern "C" __global__ void __launch_bounds__(kFinishThreads)
    bias_finish_f32(float* dbias, const float* __restrict__ partials, const int32_t* num_images, int max_images,
                    int pixels, int k, int tile_rows, int width) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
    const int lane = static_cast<int>(threadIdx.x) / width;
    const int lanes = static_cast<int>(blockDim.x) / width;
    const int channel = static_cast<int>(blockIdx.x) * width + static_cast<int>(threadIdx.x) % width;
    double sum[1] = {};
    if (channel < k) {
#pragma unroll 4
        for (int64_t tile = lane; tile < tiles; tile += lanes) sum[0] += partials[tile * k + channel];
    }
    sum_lanes<kFinishThreads>(sum, lane, lanes, width);
    if (lane == 0 && channel < k) dbias[channel] = static_cast<float>(sum[0]);
}
