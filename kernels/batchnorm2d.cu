// batchnorm2d.cu: y = relu?((x - mean) * (inv_std * gamma) + beta + shortcut?), its statistics and its gradient
//
// Forward in training: statistics (two totals a tile and channel), finish_statistics (one mean and deviation a
// channel), normalize. Backward: gradients (masks dy; two totals a tile and channel), finish_gradients (dgamma, dbeta),
// dx. Evaluation: normalize alone, by the running statistics.
//
// Role       batch normalisation fused with the shortcut add and the ReLU that follow it
// Shapes     x, y, shortcut, dy, dx: [images, pixels, C]; vectors: [C]; partials: [tiles, 2, C], a tile being
//            `tile_rows` rows of all images: the sum, and the sum of squared deviations from the tile's own mean
//            (statistics), or sum(dy) and sum(dy * (x - mean)) (gradients). Gradients are written (=). shortcut,
//            relu_y, beta of the gradient may be null: no shortcut; no mask by the output; no mask by the input
// Types      f32 or bf16 tensors, f32 vectors; computed in f32, rounded after each step of the formula, so that f32 has
//            the CPU's bits where the statistics are the same; tiles are merged in f64 in a fixed order
// Launch     tiles x blocks of channels, 256 threads (RowTiles; `runs` if 4 channels can be loaded at once); the
//            finishing passes channels x up to 512 threads (Merge); static shared memory up to 17 KiB; barriers, no
//            atomics
// Cost       bytes an element of s bytes: statistics s, normalize 2s (3s with a shortcut), gradients 2s (3s with
//            relu_y, one more to write the masked dy), dx 3s (4s with relu_y); about 2, 4, 5, 6 FLOP an element. All
//            bound by memory
// See        src/ops/batchnorm2d/, tests/kernels/batchnorm2d.rs

#include "batchnorm2d.cuh"

template <class T, int kLen>
__device__ __forceinline__ void statistics(float* __restrict__ partials, const T* __restrict__ x, int64_t rows, int c,
                                           int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (tile.top >= tile.bottom) return;
    // Sums are taken relative to the tile's first row, so that a large common offset costs no digits.
    float pivot[kLen] = {};
    float sums[2 * kLen] = {};
    if (tile.first < tile.end) {
        const Run<T, kLen> run = load_run<kLen>(x + tile.top * c + tile.column);
#pragma unroll
        for (int i = 0; i < kLen; ++i) pivot[i] = to_float(run.at[i]);
    }
    for (int64_t first = tile.first; first < tile.end; first += tile.step * kRowsAtOnce) {
        Run<T, kLen> run[kRowsAtOnce];
#pragma unroll
        for (int j = 0; j < kRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row < tile.end) run[j] = load_run<kLen>(x + row * c + tile.column);
        }
#pragma unroll
        for (int j = 0; j < kRowsAtOnce; ++j) {
            if (first + j * tile.step >= tile.end) break;
#pragma unroll
            for (int i = 0; i < kLen; ++i) {
                const float shifted = to_float(run[j].at[i]) - pivot[i];
                sums[i] += shifted;
                sums[kLen + i] = fmaf(shifted, shifted, sums[kLen + i]);
            }
        }
    }
    sum_lanes<kTileThreads>(sums, tile.lane, tile.step, width);
    if (tile.lane > 0 || tile.column >= c) return;
    const float num = static_cast<float>(tile.bottom - tile.top);
    float* const totals = partials + 2 * static_cast<int64_t>(blockIdx.x) * c + tile.column;
#pragma unroll
    for (int i = 0; i < kLen; ++i) {
        const float deviation = sums[kLen + i] - sums[i] * (sums[i] / num);
        totals[i] = fmaf(num, pivot[i], sums[i]);
        totals[c + i] = deviation < 0.0f ? 0.0f : deviation;  // NaN passes
    }
}

template <class T>
__device__ __forceinline__ void statistics(float* partials, const T* x, const int32_t* num_images, int max_images,
                                           int pixels, int c, int tile_rows, int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        statistics<T, kRunLen>(partials, x, rows, c, tile_rows, width);
    } else {
        statistics<T, 1>(partials, x, rows, c, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    batchnorm2d_statistics_f32(float* partials, const float* x, const int32_t* num_images, int max_images, int pixels,
                               int c, int tile_rows, int width, int runs) {
    statistics(partials, x, num_images, max_images, pixels, c, tile_rows, width, runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    batchnorm2d_statistics_bf16(float* partials, const __nv_bfloat16* x, const int32_t* num_images, int max_images,
                                int pixels, int c, int tile_rows, int width, int runs) {
    statistics(partials, x, num_images, max_images, pixels, c, tile_rows, width, runs);
}

// The new value has the share `momentum`; rounded as the CPU does.
__device__ __forceinline__ float running_value(float running, float value, float momentum) {
    return __fadd_rn(__fmul_rn(__fadd_rn(1.0f, -momentum), running), __fmul_rn(momentum, value));
}

// Chan, Golub, LeVeque 1983, over all tiles at once: with p the mean of the first tile and d = sum - n * p of each
// tile, mean = p + sum(d) / rows and deviation = sum(own deviation + d^2 / n) - sum(d)^2 / rows.
extern "C" __global__ void __launch_bounds__(kFinishThreads)
    batchnorm2d_finish_statistics_f32(float* saved_mean, float* saved_inv_std, float* running_mean, float* running_var,
                                      const float* __restrict__ partials, const int32_t* num_images, int max_images,
                                      int pixels, int c, int tile_rows, int width, float eps, float momentum) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (rows == 0) return;
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
    const int lane = static_cast<int>(threadIdx.x) / width;
    const int lanes = static_cast<int>(blockDim.x) / width;
    const int channel = static_cast<int>(blockIdx.x) * width + static_cast<int>(threadIdx.x) % width;
    const double last_num = static_cast<double>(rows - (tiles - 1) * tile_rows);
    const double full_num = static_cast<double>(tile_rows);
    const double per_last = 1.0 / last_num;
    const double per_full = 1.0 / full_num;
    double pivot = 0.0;
    double sums[2] = {};
    if (channel < c) {
        pivot = partials[channel] * (tiles > 1 ? per_full : per_last);
#pragma unroll 4
        for (int64_t tile = lane; tile < tiles; tile += lanes) {
            const float* const totals = partials + 2 * tile * c + channel;
            const bool last = tile == tiles - 1;
            const double apart = totals[0] - (last ? last_num : full_num) * pivot;
            sums[0] += apart;
            sums[1] += totals[c] + apart * apart * (last ? per_last : per_full);
        }
    }
    sum_lanes<kFinishThreads>(sums, lane, lanes, width);
    if (lane > 0 || channel >= c) return;
    const double num = static_cast<double>(rows);
    const double mean = pivot + sums[0] / num;
    const double cut = sums[1] - sums[0] * (sums[0] / num);
    const double deviation = cut < 0.0 ? 0.0 : cut;  // NaN passes
    const double unbiased = deviation / (rows > 1 ? num - 1.0 : 1.0);
    saved_mean[channel] = static_cast<float>(mean);
    saved_inv_std[channel] = static_cast<float>(1.0 / sqrt(deviation / num + static_cast<double>(eps)));
    running_mean[channel] = running_value(running_mean[channel], static_cast<float>(mean), momentum);
    running_var[channel] = running_value(running_var[channel], static_cast<float>(unbiased), momentum);
}

template <class T, int kLen, bool kShortcut>
__device__ __forceinline__ void normalize(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ shortcut,
                                          const float* __restrict__ gamma, const float* __restrict__ beta,
                                          const float* __restrict__ mean, const float* __restrict__ spread, bool relu,
                                          bool running, float eps, int64_t rows, int c, int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (tile.top >= tile.bottom) return;
    __shared__ Channels<3, kLen> channels;
    for_channels<kLen>(tile, c, width, [&](int i, int channel) {
        const float inv_std = running ? 1.0f / sqrtf(__fadd_rn(spread[channel], eps)) : spread[channel];
        channels.of[0][i] = mean[channel];
        channels.of[1][i] = __fmul_rn(inv_std, gamma[channel]);
        channels.of[2][i] = beta[channel];
    });
    __syncthreads();
    if (tile.first >= tile.end) return;
    float means[kLen];
    float scales[kLen];
    float betas[kLen];
    read_channels(means, channels.of[0], tile.column - tile.block_column);
    read_channels(scales, channels.of[1], tile.column - tile.block_column);
    read_channels(betas, channels.of[2], tile.column - tile.block_column);
    for (int64_t first = tile.first; first < tile.end; first += tile.step * kRowsAtOnce) {
        Run<T, kLen> run[kRowsAtOnce];
        Run<T, kLen> other[kShortcut ? kRowsAtOnce : 1];
#pragma unroll
        for (int j = 0; j < kRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
            run[j] = load_run<kLen>(x + row * c + tile.column);
            if (kShortcut) other[j] = load_run<kLen>(shortcut + row * c + tile.column);
        }
#pragma unroll
        for (int j = 0; j < kRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
#pragma unroll
            for (int i = 0; i < kLen; ++i) {
                float value = affine(to_float(run[j].at[i]), means[i], scales[i], betas[i]);
                if (kShortcut) value = __fadd_rn(value, to_float(other[j].at[i]));
                run[j].at[i] = from_float<T>(relu ? rectify(value) : value);
            }
            store_run(y + row * c + tile.column, run[j]);
        }
    }
}

template <class T>
__device__ __forceinline__ void normalize(T* y, const T* x, const T* shortcut, const float* gamma, const float* beta,
                                          const float* mean, const float* spread, int relu, int running, float eps,
                                          const int32_t* num_images, int max_images, int pixels, int c, int tile_rows,
                                          int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    constexpr int kLen = kRunLen;
    if (runs && shortcut != nullptr) {
        normalize<T, kLen, true>(y, x, shortcut, gamma, beta, mean, spread, relu, running, eps, rows, c, tile_rows,
                                 width);
    } else if (runs) {
        normalize<T, kLen, false>(y, x, shortcut, gamma, beta, mean, spread, relu, running, eps, rows, c, tile_rows,
                                  width);
    } else if (shortcut != nullptr) {
        normalize<T, 1, true>(y, x, shortcut, gamma, beta, mean, spread, relu, running, eps, rows, c, tile_rows, width);
    } else {
        normalize<T, 1, false>(y, x, shortcut, gamma, beta, mean, spread, relu, running, eps, rows, c, tile_rows,
                               width);
    }
}

// With `running`, `spread` is a variance, else 1 / sqrt(variance + eps).
extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    batchnorm2d_normalize_f32(float* y, const float* x, const float* shortcut, const float* gamma, const float* beta,
                              const float* mean, const float* spread, int relu, int running, float eps,
                              const int32_t* num_images, int max_images, int pixels, int c, int tile_rows, int width,
                              int runs) {
    normalize(y, x, shortcut, gamma, beta, mean, spread, relu, running, eps, num_images, max_images, pixels, c,
              tile_rows, width, runs);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    batchnorm2d_normalize_bf16(__nv_bfloat16* y, const __nv_bfloat16* x, const __nv_bfloat16* shortcut,
                               const float* gamma, const float* beta, const float* mean, const float* spread, int relu,
                               int running, float eps, const int32_t* num_images, int max_images, int pixels, int c,
                               int tile_rows, int width, int runs) {
    normalize(y, x, shortcut, gamma, beta, mean, spread, relu, running, eps, num_images, max_images, pixels, c,
              tile_rows, width, runs);
}

// Where the gradient does not pass: nowhere, where the output computed from the input is not positive, where the output
// is not positive.
enum class Mask { kNone, kFromInput, kFromOutput };

// A channel's part in the mask by the input.
struct Affine {
    float mean;
    float scale;
    float beta;
};

// dy, or 0 where the ReLU cut. NaN outputs let it pass. The stored output is what counts: a positive value may round to
// 0.
template <Mask kMask, class T>
__device__ __forceinline__ float masked(float dy, float x, const Affine& channel, float y) {
    if (kMask == Mask::kFromInput) y = to_float(from_float<T>(affine(x, channel.mean, channel.scale, channel.beta)));
    return kMask != Mask::kNone && y <= 0.0f ? 0.0f : dy;
}

template <class T, int kLen, Mask kMask>
__device__ __forceinline__ void gradients(float* __restrict__ partials, T* __restrict__ dy, const T* __restrict__ x,
                                          const T* __restrict__ relu_y, const float* __restrict__ gamma,
                                          const float* __restrict__ beta, const float* __restrict__ mean,
                                          const float* __restrict__ inv_std, bool write_dy, int64_t rows, int c,
                                          int tile_rows, int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (tile.top >= tile.bottom) return;
    __shared__ Channels<kMask == Mask::kFromInput ? 3 : 1, kLen> channels;
    for_channels<kLen>(tile, c, width, [&](int i, int channel) {
        channels.of[0][i] = mean[channel];
        if constexpr (kMask == Mask::kFromInput) {
            channels.of[1][i] = __fmul_rn(inv_std[channel], gamma[channel]);
            channels.of[2][i] = beta[channel];
        }
    });
    __syncthreads();
    float means[kLen];
    float scales[kLen] = {};
    float betas[kLen] = {};
    read_channels(means, channels.of[0], tile.column - tile.block_column);
    if constexpr (kMask == Mask::kFromInput) {
        read_channels(scales, channels.of[1], tile.column - tile.block_column);
        read_channels(betas, channels.of[2], tile.column - tile.block_column);
    }
    float sums[2 * kLen] = {};
    for (int64_t first = tile.first; first < tile.end; first += tile.step * kGradientRowsAtOnce) {
        Run<T, kLen> xs[kGradientRowsAtOnce];
        Run<T, kLen> dys[kGradientRowsAtOnce];
        Run<T, kLen> ys[kMask == Mask::kFromOutput ? kGradientRowsAtOnce : 1];
#pragma unroll
        for (int j = 0; j < kGradientRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
            xs[j] = load_run<kLen>(x + row * c + tile.column);
            dys[j] = load_run<kLen>(dy + row * c + tile.column);
            if (kMask == Mask::kFromOutput) ys[j] = load_run<kLen>(relu_y + row * c + tile.column);
        }
#pragma unroll
        for (int j = 0; j < kGradientRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
#pragma unroll
            for (int i = 0; i < kLen; ++i) {
                const float value = to_float(xs[j].at[i]);
                const float y = kMask == Mask::kFromOutput ? to_float(ys[j].at[i]) : 0.0f;
                const Affine channel{means[i], scales[i], betas[i]};
                const float slope = masked<kMask, T>(to_float(dys[j].at[i]), value, channel, y);
                dys[j].at[i] = from_float<T>(slope);
                sums[i] += slope;
                sums[kLen + i] = fmaf(slope, value - means[i], sums[kLen + i]);
            }
            if (kMask != Mask::kNone && write_dy) store_run(dy + row * c + tile.column, dys[j]);
        }
    }
    sum_lanes<kTileThreads>(sums, tile.lane, tile.step, width);
    if (tile.lane > 0 || tile.column >= c) return;
    float* const totals = partials + 2 * static_cast<int64_t>(blockIdx.x) * c + tile.column;
#pragma unroll
    for (int i = 0; i < kLen; ++i) {
        totals[i] = sums[i];
        totals[c + i] = sums[kLen + i];
    }
}

template <class T, int kLen>
__device__ __forceinline__ void gradients(float* partials, T* dy, const T* x, const T* relu_y, const float* gamma,
                                          const float* beta, const float* mean, const float* inv_std, bool write_dy,
                                          int64_t rows, int c, int tile_rows, int width) {
    if (relu_y != nullptr) {
        gradients<T, kLen, Mask::kFromOutput>(partials, dy, x, relu_y, gamma, beta, mean, inv_std, write_dy, rows, c,
                                              tile_rows, width);
    } else if (beta != nullptr) {
        gradients<T, kLen, Mask::kFromInput>(partials, dy, x, relu_y, gamma, beta, mean, inv_std, write_dy, rows, c,
                                             tile_rows, width);
    } else {
        gradients<T, kLen, Mask::kNone>(partials, dy, x, relu_y, gamma, beta, mean, inv_std, write_dy, rows, c,
                                        tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kGradientBlocks)
    batchnorm2d_gradients_f32(float* partials, float* dy, const float* x, const float* relu_y, const float* gamma,
                              const float* beta, const float* mean, const float* inv_std, int write_dy,
                              const int32_t* num_images, int max_images, int pixels, int c, int tile_rows, int width,
                              int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        gradients<float, kRunLen>(partials, dy, x, relu_y, gamma, beta, mean, inv_std, write_dy, rows, c, tile_rows,
                                  width);
    } else {
        gradients<float, 1>(partials, dy, x, relu_y, gamma, beta, mean, inv_std, write_dy, rows, c, tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kGradientBlocks)
    batchnorm2d_gradients_bf16(float* partials, __nv_bfloat16* dy, const __nv_bfloat16* x, const __nv_bfloat16* relu_y,
                               const float* gamma, const float* beta, const float* mean, const float* inv_std,
                               int write_dy, const int32_t* num_images, int max_images, int pixels, int c,
                               int tile_rows, int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        gradients<__nv_bfloat16, kRunLen>(partials, dy, x, relu_y, gamma, beta, mean, inv_std, write_dy, rows, c,
                                          tile_rows, width);
    } else {
        gradients<__nv_bfloat16, 1>(partials, dy, x, relu_y, gamma, beta, mean, inv_std, write_dy, rows, c, tile_rows,
                                    width);
    }
}

extern "C" __global__ void __launch_bounds__(kFinishThreads)
    batchnorm2d_finish_gradients_f32(float* dgamma, float* dbeta, const float* __restrict__ partials,
                                     const float* __restrict__ inv_std, const int32_t* num_images, int max_images,
                                     int pixels, int c, int tile_rows, int width) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
    const int lane = static_cast<int>(threadIdx.x) / width;
    const int lanes = static_cast<int>(blockDim.x) / width;
    const int channel = static_cast<int>(blockIdx.x) * width + static_cast<int>(threadIdx.x) % width;
    double sums[2] = {};
    if (channel < c) {
#pragma unroll 4
        for (int64_t tile = lane; tile < tiles; tile += lanes) {
            sums[0] += partials[2 * tile * c + channel];
            sums[1] += partials[(2 * tile + 1) * c + channel];
        }
    }
    sum_lanes<kFinishThreads>(sums, lane, lanes, width);
    if (lane > 0 || channel >= c) return;
    dbeta[channel] = static_cast<float>(sums[0]);
    // Without rows there may be no statistics either.
    dgamma[channel] = rows == 0 ? 0.0f : static_cast<float>(sums[1] * inv_std[channel]);
}

template <class T, int kLen, Mask kMask>
__device__ __forceinline__ void input_gradient(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                                               const T* __restrict__ relu_y, const float* __restrict__ gamma,
                                               const float* __restrict__ beta, const float* __restrict__ mean,
                                               const float* __restrict__ inv_std, const float* __restrict__ dgamma,
                                               const float* __restrict__ dbeta, int64_t rows, int c, int tile_rows,
                                               int width) {
    const RowTile tile = row_tile<kLen>(rows, c, tile_rows, width);
    if (tile.top >= tile.bottom) return;
    __shared__ Channels<kMask == Mask::kFromInput ? 5 : 4, kLen> channels;
    const float per_row = 1.0f / static_cast<float>(rows);
    for_channels<kLen>(tile, c, width, [&](int i, int channel) {
        channels.of[0][i] = mean[channel];
        channels.of[1][i] = __fmul_rn(inv_std[channel], gamma[channel]);
        channels.of[2][i] = dbeta[channel] * per_row;
        channels.of[3][i] = dgamma[channel] * (inv_std[channel] * per_row);
        if constexpr (kMask == Mask::kFromInput) channels.of[4][i] = beta[channel];
    });
    __syncthreads();
    if (tile.first >= tile.end) return;
    float means[kLen];
    float scales[kLen];
    float offsets[kLen];
    float slopes[kLen];
    float betas[kLen] = {};
    read_channels(means, channels.of[0], tile.column - tile.block_column);
    read_channels(scales, channels.of[1], tile.column - tile.block_column);
    read_channels(offsets, channels.of[2], tile.column - tile.block_column);
    read_channels(slopes, channels.of[3], tile.column - tile.block_column);
    if constexpr (kMask == Mask::kFromInput) read_channels(betas, channels.of[4], tile.column - tile.block_column);
    for (int64_t first = tile.first; first < tile.end; first += tile.step * kGradientRowsAtOnce) {
        Run<T, kLen> xs[kGradientRowsAtOnce];
        Run<T, kLen> dys[kGradientRowsAtOnce];
        Run<T, kLen> ys[kMask == Mask::kFromOutput ? kGradientRowsAtOnce : 1];
#pragma unroll
        for (int j = 0; j < kGradientRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
            xs[j] = load_run<kLen>(x + row * c + tile.column);
            dys[j] = load_run<kLen>(dy + row * c + tile.column);
            if (kMask == Mask::kFromOutput) ys[j] = load_run<kLen>(relu_y + row * c + tile.column);
        }
#pragma unroll
        for (int j = 0; j < kGradientRowsAtOnce; ++j) {
            const int64_t row = first + j * tile.step;
            if (row >= tile.end) break;
#pragma unroll
            for (int i = 0; i < kLen; ++i) {
                const float value = to_float(xs[j].at[i]);
                const float y = kMask == Mask::kFromOutput ? to_float(ys[j].at[i]) : 0.0f;
                const Affine channel{means[i], scales[i], betas[i]};
                const float slope = masked<kMask, T>(to_float(dys[j].at[i]), value, channel, y);
                xs[j].at[i] = from_float<T>(scales[i] * ((slope - offsets[i]) - (value - means[i]) * slopes[i]));
            }
            store_run(dx + row * c + tile.column, xs[j]);
        }
    }
}

template <class T, int kLen>
__device__ __forceinline__ void input_gradient(T* dx, const T* dy, const T* x, const T* relu_y, const float* gamma,
                                               const float* beta, const float* mean, const float* inv_std,
                                               const float* dgamma, const float* dbeta, int64_t rows, int c,
                                               int tile_rows, int width) {
    if (relu_y != nullptr) {
        input_gradient<T, kLen, Mask::kFromOutput>(dx, dy, x, relu_y, gamma, beta, mean, inv_std, dgamma, dbeta, rows,
                                                   c, tile_rows, width);
    } else if (beta != nullptr) {
        input_gradient<T, kLen, Mask::kFromInput>(dx, dy, x, relu_y, gamma, beta, mean, inv_std, dgamma, dbeta, rows, c,
                                                  tile_rows, width);
    } else {
        input_gradient<T, kLen, Mask::kNone>(dx, dy, x, relu_y, gamma, beta, mean, inv_std, dgamma, dbeta, rows, c,
                                             tile_rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    batchnorm2d_dx_f32(float* dx, const float* dy, const float* x, const float* relu_y, const float* gamma,
                       const float* beta, const float* mean, const float* inv_std, const float* dgamma,
                       const float* dbeta, const int32_t* num_images, int max_images, int pixels, int c, int tile_rows,
                       int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        input_gradient<float, kRunLen>(dx, dy, x, relu_y, gamma, beta, mean, inv_std, dgamma, dbeta, rows, c, tile_rows,
                                       width);
    } else {
        input_gradient<float, 1>(dx, dy, x, relu_y, gamma, beta, mean, inv_std, dgamma, dbeta, rows, c, tile_rows,
                                 width);
    }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    batchnorm2d_dx_bf16(__nv_bfloat16* dx, const __nv_bfloat16* dy, const __nv_bfloat16* x, const __nv_bfloat16* relu_y,
                        const float* gamma, const float* beta, const float* mean, const float* inv_std,
                        const float* dgamma, const float* dbeta, const int32_t* num_images, int max_images, int pixels,
                        int c, int tile_rows, int width, int runs) {
    const int64_t rows = images_of(num_images, max_images) * pixels;
    if (runs) {
        input_gradient<__nv_bfloat16, kRunLen>(dx, dy, x, relu_y, gamma, beta, mean, inv_std, dgamma, dbeta, rows, c,
                                               tile_rows, width);
    } else {
        input_gradient<__nv_bfloat16, 1>(dx, dy, x, relu_y, gamma, beta, mean, inv_std, dgamma, dbeta, rows, c,
                                         tile_rows, width);
    }
}
