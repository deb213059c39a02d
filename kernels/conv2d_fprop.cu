// conv2d_fprop.cu: y[n,p,q,k] = sum over (r,s,c) of x[n, p*stride - pad + r*dilation, q*stride - pad + s*dilation, c] *
// filter[k,r,s,c]
//
// Role       forward pass of convolutions and linear layers, with bias, ReLU and the statistics that batch norm needs
// Shapes     x [images, H, W, C], filter [K, R, S, C], y [images, P, Q, K]; bias [K] or null; statistics [tiles, 2, K] or null;
//            partials [parts, part_len] or null; num_images [1], at most the images the grid was sized for
// Types      f32 (FMA, f32 sums) or bf16 (tensor cores, f32 sums, rounded once); bias, statistics and partials f32. y is
//            written (=); same bits in every run
// Launch     blockIdx.x is a tile of rows (n,p,q) and columns k, columns innermost; blockIdx.y is a part of the depth (r,s,c),
//            which writes its sums to partials[part] for the reduce kernel to add. Threads and dynamic shared memory as in
//            src/ops/conv2d/cuda/tiled.rs. Rows of other images than the first num_images are neither read nor written.
//            x, filter, y and partials start at multiples of 16 bytes. Without gather, C must fill 16-byte chunks.
// Cost       2*N*P*Q*K*R*S*C FLOP; x, filter and y once from memory, x up to R*S times from the L2 cache; parts 8 bytes each
// See        src/ops/conv2d/cuda/, conv2d_tile.cuh, conv2d_math.cuh, tests/kernels/conv2d_fprop.rs

#include "conv2d_math.cuh"

// Sum over the lanes that differ in the bits kLanes: list[0 .. kLen / 2^bits) then holds the sums of the entries from the
// index returned on. Each exchange halves the list: lanes that have the bit keep its upper half.
template <int kLanes, int kLen>
__device__ __forceinline__ int sum_over_lanes(float* list) {
    if constexpr (kLanes == 0) {
        return 0;
    } else {
        constexpr int kHalf = kLen / 2, kRest = kLanes & (kLanes - 1), kBit = kLanes ^ kRest;
        const bool upper = (threadIdx.x & kBit) != 0;
#pragma unroll
        for (int i = 0; i < kHalf; ++i) {
            const float kept = upper ? list[i + kHalf] : list[i];
            const float given = upper ? list[i] : list[i + kHalf];
            list[i] = kept + __shfl_xor_sync(0xffffffffu, given, kBit);
        }
        return (upper ? kHalf : 0) + sum_over_lanes<kRest, kHalf>(list);
    }
}

// Sums over the tile's first `rows` rows and squared deviations from the tile's mean, from registers: sums of a thread, of
// lanes by shuffles, of warps in shared memory in their order. Ends with a barrier.
template <class TileT, class Math>
__device__ __forceinline__ void tile_statistics(Math& math, float* statistics, float* shared, int rows, int column0,
                                                int columns) {
    constexpr int kLanes = Math::kSharedLanes;
    constexpr int kOwn = Math::kColumns >> ((kLanes >> 4 & 1) + (kLanes >> 3 & 1) + (kLanes >> 2 & 1) + (kLanes >> 1 & 1));
    float* const parts[2] = {shared, shared + Math::kWarpsM * TileT::kColumns};
    float mean[Math::kColumns];
#pragma unroll
    for (int which = 0; which < 2; ++which) {
        float list[Math::kColumns];
#pragma unroll
        for (int j = 0; j < Math::kColumns; ++j) {
            list[j] = 0.0f;
#pragma unroll
            for (int i = 0; i < Math::kRows; ++i) {
                const float deviation = which == 0 ? math.at(i, j) : math.at(i, j) - mean[j];
                if (math.row(i) < rows) list[j] += which == 0 ? deviation : deviation * deviation;
            }
        }
        const int begin = sum_over_lanes<Math::kSharedLanes, Math::kColumns>(list);
#pragma unroll
        for (int j = 0; j < kOwn; ++j) parts[which][math.warp_m() * TileT::kColumns + math.column(begin + j)] = list[j];
        __syncthreads();
        const auto sum = [&](int column) {
            float total = 0.0f;
            for (int warp = 0; warp < Math::kWarpsM; ++warp) total += parts[which][warp * TileT::kColumns + column];
            return total;
        };
        for (int column = threadIdx.x; column < TileT::kColumns; column += TileT::kThreads) {
            if (column0 + column < columns) statistics[static_cast<int64_t>(which) * columns + column0 + column] = sum(column);
        }
        if (which == 0) {
#pragma unroll
            for (int j = 0; j < Math::kColumns; ++j) mean[j] = sum(math.column(j)) / static_cast<float>(rows);
        }
    }
    __syncthreads();
}

template <class TileT, class Math>
__device__ __forceinline__ void fprop(typename TileT::Element* y, float* statistics, float* partials,
                                      const typename TileT::Element* x, const typename TileT::Element* filter,
                                      const float* bias, const int32_t* num_images, const Conv2d& conv, int relu,
                                      int64_t part_len) {
    using T = typename TileT::Element;
    DYNAMIC_SHARED(shared);
    const int tiles_k = ceil_div(conv.k, TileT::kColumns);
    const int tile = blockIdx.x / tiles_k;
    const int row0 = tile * TileT::kRows, column0 = (blockIdx.x - tile * tiles_k) * TileT::kColumns;
    const int rows = *num_images * conv.p * conv.q;
    if (row0 >= rows) return;

    const int depth = conv.r * conv.s * conv.c;
    const int steps = ceil_div(depth, TileT::kStep);
    const int steps_per_part = ceil_div(steps, gridDim.y);
    const int first = min(static_cast<int>(blockIdx.y) * steps_per_part, steps);
    const Window window = {conv.p, conv.q, conv.stride, -conv.pad, -conv.pad, conv.r, conv.s, conv.dilation,
                           conv.h, conv.w, conv.c};
    Pixels<TileT> pixels(x, window, row0, rows, first * TileT::kStep);
    FilterRows<TileT> filter_rows(filter, column0, conv.k, first * TileT::kStep, depth);
    Math math;
    multiply<TileT>(math, pixels, filter_rows, min(steps_per_part, steps - first), shared);

    float* const staged = reinterpret_cast<float*>(shared);
    if (partials != nullptr) {
        stage_sums<TileT>(math, staged);
        store_f32<TileT>(partials + blockIdx.y * part_len, staged, row0, rows, column0, conv.k);
        return;
    }
#pragma unroll
    for (int j = 0; j < Math::kColumns; ++j) {
        const int column = column0 + math.column(j);
        const float b = bias != nullptr && column < conv.k ? bias[column] : 0.0f;
#pragma unroll
        for (int i = 0; i < Math::kRows; ++i) {
            const float v = math.at(i, j) + b;
            // Rounded here, so that the statistics are of what is stored.
            math.at(i, j) = to_float(from_float<T>(relu ? fmaxf(v, 0.0f) : v));
        }
    }
    if (statistics != nullptr) {
        tile_statistics<TileT>(math, statistics + static_cast<int64_t>(tile) * 2 * conv.k, staged,
                               min(TileT::kRows, rows - row0), column0, conv.k);
    }
    stage_sums<TileT>(math, staged);
    constexpr int kLanes = TileT::kLanes;
    const bool aligned = conv.k % kLanes == 0;
    for_each_staged<TileT, kLanes>(staged, [&](int row, int column, const float(&values)[kLanes]) {
        const int valid = conv.k - column0 - column;
        if (row0 + row >= rows || valid <= 0) return;
        T* const to = y + (static_cast<int64_t>(row0 + row) * conv.k + column0 + column);
        store_chunk<T>(to, values, valid, aligned, false);
    });
}

// Adds the parts in their order, then does what fprop does with its sums. A block takes 32 rows and 32 columns.
template <class T>
__device__ __forceinline__ void fprop_reduce(T* y, float* statistics, const float* partials, const float* bias,
                                             const int32_t* num_images, int pixels, int k, int relu, int parts,
                                             int64_t part_len) {
    constexpr int kTile = 32, kGroups = 8, kRows = kTile / kGroups;
    __shared__ float sums[2][kGroups][kTile];
    const int tiles_k = ceil_div(k, kTile);
    const int tile = blockIdx.x / tiles_k;
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    const int row0 = tile * kTile, column = (blockIdx.x - tile * tiles_k) * kTile + lane;
    const int rows = *num_images * pixels;
    if (row0 >= rows) return;

    float values[kRows];
    const float b = bias != nullptr && column < k ? bias[column] : 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
        const int row = row0 + group + i * kGroups;
        values[i] = 0.0f;
        if (row >= rows || column >= k) continue;
        const int64_t at = static_cast<int64_t>(row) * k + column;
        float v = 0.0f;
#pragma unroll 8
        for (int part = 0; part < parts; ++part) v += partials[part * part_len + at];
        v += b;
        const T rounded = from_float<T>(relu ? fmaxf(v, 0.0f) : v);
        y[at] = rounded;
        values[i] = to_float(rounded);
    }
    if (statistics == nullptr) return;
    float mean = 0.0f;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
        float own = 0.0f;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
            const float deviation = values[i] - mean;
            if (row0 + group + i * kGroups < rows) own += which == 0 ? values[i] : deviation * deviation;
        }
        sums[which][group][lane] = own;
        __syncthreads();
        float total = 0.0f;
        for (int from = 0; from < kGroups; ++from) total += sums[which][from][lane];
        if (group == 0 && column < k) statistics[(static_cast<int64_t>(tile) * 2 + which) * k + column] = total;
        mean = total / static_cast<float>(min(kTile, rows - row0));
    }
}

extern "C" __global__ void __launch_bounds__(128, 2)
    conv2d_fprop_mma_128x128_bf16(Bf16* y, float* statistics, float* partials, const Bf16* x, const Bf16* filter,
                                  const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r,
                                  int s, int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<MmaTile128x128, Mma<MmaTile128x128, 2, 2, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_fprop_mma_128x64_bf16(Bf16* y, float* statistics, float* partials, const Bf16* x, const Bf16* filter,
                                 const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r, int s,
                                 int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<MmaTile128x64, Mma<MmaTile128x64, 2, 2, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_fprop_mma_64x64_bf16(Bf16* y, float* statistics, float* partials, const Bf16* x, const Bf16* filter,
                                const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r, int s,
                                int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<MmaTile64x64, Mma<MmaTile64x64, 2, 2, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_fprop_mma_gather_bf16(Bf16* y, float* statistics, float* partials, const Bf16* x, const Bf16* filter,
                                 const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r, int s,
                                 int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<MmaTileGather, Mma<MmaTileGather, 2, 2, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    conv2d_fprop_simt_128x128_f32(float* y, float* statistics, float* partials, const float* x, const float* filter,
                                  const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r,
                                  int s, int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<SimtTile128x128, Simt<SimtTile128x128, 4, 2, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_fprop_simt_128x64_f32(float* y, float* statistics, float* partials, const float* x, const float* filter,
                                 const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r, int s,
                                 int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<SimtTile128x64, Simt<SimtTile128x64, 4, 1, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(64, 6)
    conv2d_fprop_simt_64x64_f32(float* y, float* statistics, float* partials, const float* x, const float* filter,
                                const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r, int s,
                                int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<SimtTile64x64, Simt<SimtTile64x64, 2, 1, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv2d_fprop_simt_gather_f32(float* y, float* statistics, float* partials, const float* x, const float* filter,
                                 const float* bias, const int32_t* num_images, int c, int h, int w, int k, int r, int s,
                                 int p, int q, int stride, int pad, int dilation, int relu, int64_t part_len) {
    fprop<SimtTileGather, Simt<SimtTileGather, 2, 1, true, true>>(
        y, statistics, partials, x, filter, bias, num_images, {c, h, w, k, r, s, p, q, stride, pad, dilation}, relu,
        part_len);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_fprop_reduce_f32(float* y, float* statistics, const float* partials, const float* bias, const int32_t* num_images,
                            int pixels, int k, int relu, int parts, int64_t part_len) {
    fprop_reduce<float>(y, statistics, partials, bias, num_images, pixels, k, relu, parts, part_len);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_fprop_reduce_bf16(Bf16* y, float* statistics, const float* partials, const float* bias, const int32_t* num_images,
                             int pixels, int k, int relu, int parts, int64_t part_len) {
    fprop_reduce<Bf16>(y, statistics, partials, bias, num_images, pixels, k, relu, parts, part_len);
}
