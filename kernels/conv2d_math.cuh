// conv2d_math.cuh: a block's product of two tiles in shared memory, sums in registers
//
// Both classes give: multiply() adds a step; at(i, j) is the sum of row(i) and column(j) of the tile, for kRows x kColumns of
// them a thread. Lanes that share their columns differ in the bits kSharedLanes of their number.
#pragma once

#include "conv2d_tile.cuh"

// bf16 on the tensor cores of sm_80 and later, f32 sums: kWarpsM x kWarpsN warps.
template <class TileT, int kWarpsM_, int kWarpsN, bool kDeepA, bool kDeepB>
struct Mma {
    static constexpr int kWarpsM = kWarpsM_;
    static constexpr int kBlocksM = TileT::kRows / kWarpsM / 16, kBlocksN = TileT::kColumns / kWarpsN / 8;
    static constexpr int kRows = 2 * kBlocksM, kColumns = 2 * kBlocksN;
    static constexpr int kSharedLanes = 16 | 8 | 4;
    static_assert(kWarpsM * kWarpsN * 32 == TileT::kThreads && kBlocksN % 2 == 0, "whole warps");

    float sums[kBlocksM][kBlocksN][4];
    int lane, warp_row, warp_column;
    // Where this lane's row of an 8x8 matrix lies: for each 16 depths of a deep tile, for each 16 rows of a wide one. The
    // others follow at constant distances.
    static constexpr int kDepths = TileT::kStep / 16;
    static constexpr int kPlacesA = kDeepA ? kDepths : kBlocksM, kPlacesB = kDeepB ? kDepths : kBlocksN / 2;
    int places_a[kPlacesA], places_b[kPlacesB];

    __device__ __forceinline__ Mma() {
        const int warp = threadIdx.x / 32;
        lane = threadIdx.x % 32;
        warp_row = warp / kWarpsN * (kBlocksM * 16);
        warp_column = warp % kWarpsN * (kBlocksN * 8);
        // Each lane names a row of one of four 8x8 matrices: `upper` and `right` say which.
        const int line = lane % 8, upper = lane / 8 % 2, right = lane / 16;
#pragma unroll
        for (int i = 0; i < kPlacesA; ++i) {
            places_a[i] = kDeepA ? Deep<TileT, TileT::kRows>::at(warp_row + line + 8 * upper, 2 * i + right)
                                 : Wide<TileT, TileT::kRows>::at(line + 8 * right, warp_row / 8 + 2 * i + upper);
        }
#pragma unroll
        for (int j = 0; j < kPlacesB; ++j) {
            places_b[j] = kDeepB ? Deep<TileT, TileT::kColumns>::at(warp_column + line + 8 * right, 2 * j + upper)
                                 : Wide<TileT, TileT::kColumns>::at(line + 8 * upper, warp_column / 8 + 2 * j + right);
        }
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
            for (int j = 0; j < kColumns; ++j) at(i, j) = 0.0f;
        }
    }
    __device__ __forceinline__ float& at(int i, int j) { return sums[i / 2][j / 2][i % 2 * 2 + j % 2]; }
    __device__ __forceinline__ int row(int i) const { return warp_row + i / 2 * 16 + i % 2 * 8 + lane / 4; }
    __device__ __forceinline__ int column(int j) const { return warp_column + j / 2 * 8 + lane % 4 * 2 + j % 2; }
    __device__ __forceinline__ int warp_m() const { return warp_row / (kBlocksM * 16); }

    __device__ __forceinline__ void multiply(const __nv_bfloat16* tile_a, const __nv_bfloat16* tile_b) {
#pragma unroll
        for (int k = 0; k < kDepths; ++k) {
            uint32_t a[kBlocksM][4], b[kBlocksN / 2][4];
#pragma unroll
            for (int i = 0; i < kBlocksM; ++i) {
                if constexpr (kDeepA) {
                    ldmatrix_x4(a[i], tile_a + places_a[k] + i * 16 * TileT::kStep);
                } else {
                    ldmatrix_x4_trans(a[i], tile_a + places_a[i] + k * 16 * TileT::kRows);
                }
            }
#pragma unroll
            for (int j = 0; j < kBlocksN / 2; ++j) {
                if constexpr (kDeepB) {
                    ldmatrix_x4(b[j], tile_b + places_b[k] + j * 16 * TileT::kStep);
                } else {
                    ldmatrix_x4_trans(b[j], tile_b + places_b[j] + k * 16 * TileT::kColumns);
                }
            }
#pragma unroll
            for (int i = 0; i < kBlocksM; ++i) {
#pragma unroll
                for (int j = 0; j < kBlocksN; ++j) {
                    mma_m16n8k16_bf16(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }
};

// f32 on the FMA units: a warp computes 32 x 64, a thread 8 x 8. Terms are added one by one in the order of the depth.
template <class TileT, int kWarpsM_, int kWarpsN, bool kDeepA, bool kDeepB>
struct Simt {
    static constexpr int kWarpsM = kWarpsM_;
    static constexpr int kRows = 8, kColumns = 8;
    static constexpr int kSharedLanes = 16 | 2;
    static_assert(kWarpsM * kWarpsN * 32 == TileT::kThreads && kWarpsM * 32 == TileT::kRows &&
                      kWarpsN * 64 == TileT::kColumns && (kDeepA || !kDeepB),
                  "whole warps");

    float sums[kRows][kColumns];
    int lane_row, lane_column, warp_row, warp_column;

    __device__ __forceinline__ Simt() {
        const int warp = threadIdx.x / 32;
        // A 16-byte load is one access for two groups of eight lanes if lanes that differ in bit 0, or in bit 1, agree on the
        // address: rows do not depend on bit 0, columns not on bit 1.
        const int lane = threadIdx.x % 32;
        lane_row = lane / 2 % 2 + lane / 16 * 2;
        lane_column = lane % 2 + lane / 4 % 4 * 2;
        warp_row = warp / kWarpsN * 32;
        warp_column = warp % kWarpsN * 64;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
            for (int j = 0; j < kColumns; ++j) sums[i][j] = 0.0f;
        }
    }
    __device__ __forceinline__ float& at(int i, int j) { return sums[i][j]; }
    __device__ __forceinline__ int row(int i) const {
        return warp_row + (kDeepA ? lane_row + 4 * i : 4 * lane_row + i % 4 + i / 4 * 16);
    }
    __device__ __forceinline__ int column(int j) const {
        return warp_column + (kDeepB ? lane_column + 8 * j : 4 * lane_column + j % 4 + j / 4 * 32);
    }
    __device__ __forceinline__ int warp_m() const { return warp_row / 32; }

    // The thread's values with index 4 * half and the three after it, at one depth of a wide operand.
    template <int kExtent>
    static __device__ __forceinline__ void wide(float (&values)[8], const float* tile, int depth, int index0, int index4) {
        const float4 low = *reinterpret_cast<const float4*>(tile + Wide<TileT, kExtent>::at(depth, index0 / 4));
        const float4 high = *reinterpret_cast<const float4*>(tile + Wide<TileT, kExtent>::at(depth, index4 / 4));
        values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
        values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
    }

    __device__ __forceinline__ void multiply(const float* tile_a, const float* tile_b) {
        // Not unrolled: with several chunks in flight there are registers for fewer warps.
#pragma unroll 1
        for (int chunk = 0; chunk < TileT::kStep / 4; ++chunk) {
            if constexpr (kDeepA) {
                // The columns' values at four depths, then row by row.
                float b[4][8];
                if constexpr (kDeepB) {
#pragma unroll
                    for (int j = 0; j < kColumns; ++j) {
                        const float4 v =
                            *reinterpret_cast<const float4*>(tile_b + Deep<TileT, TileT::kColumns>::at(column(j), chunk));
                        b[0][j] = v.x, b[1][j] = v.y, b[2][j] = v.z, b[3][j] = v.w;
                    }
                } else {
#pragma unroll
                    for (int d = 0; d < 4; ++d) wide<TileT::kColumns>(b[d], tile_b, 4 * chunk + d, column(0), column(4));
                }
#pragma unroll
                for (int i = 0; i < kRows; ++i) {
                    const float4 a = *reinterpret_cast<const float4*>(tile_a + Deep<TileT, TileT::kRows>::at(row(i), chunk));
#pragma unroll
                    for (int j = 0; j < kColumns; ++j) {
                        sums[i][j] = fmaf(a.x, b[0][j], sums[i][j]);
                        sums[i][j] = fmaf(a.y, b[1][j], sums[i][j]);
                        sums[i][j] = fmaf(a.z, b[2][j], sums[i][j]);
                        sums[i][j] = fmaf(a.w, b[3][j], sums[i][j]);
                    }
                }
            } else {
#pragma unroll
                for (int d = 0; d < 4; ++d) {
                    float a[8], b[8];
                    wide<TileT::kRows>(a, tile_a, 4 * chunk + d, row(0), row(4));
                    wide<TileT::kColumns>(b, tile_b, 4 * chunk + d, column(0), column(4));
#pragma unroll
                    for (int i = 0; i < kRows; ++i) {
#pragma unroll
                        for (int j = 0; j < kColumns; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
                    }
                }
            }
        }
    }
};

// Rows of the tile on their way out keep this distance in floats: the rows of a warp's accesses lie in other banks.
template <class TileT>
constexpr int kRowPitch = TileT::kColumns + 8;

// Lays the sums out row by row in shared memory. Ends with a barrier.
template <class TileT, class Math>
__device__ __forceinline__ void stage_sums(Math& math, float* staged) {
#pragma unroll
    for (int i = 0; i < Math::kRows; ++i) {
#pragma unroll
        for (int j = 0; j < Math::kColumns; ++j) staged[math.row(i) * kRowPitch<TileT> + math.column(j)] = math.at(i, j);
    }
    __syncthreads();
}

// Calls visit(row, column, values) for kWidth neighbours of a row at a time, neighbouring threads side by side.
template <class TileT, int kWidth, class Visit>
__device__ __forceinline__ void for_each_staged(const float* staged, Visit visit) {
    constexpr int kPerRow = TileT::kColumns / kWidth;
    for (int at = threadIdx.x; at < TileT::kRows * kPerRow; at += TileT::kThreads) {
        const int row = at / kPerRow, column = at % kPerRow * kWidth;
        float values[kWidth];
        const float* from = staged + row * kRowPitch<TileT> + column;
        if constexpr (kWidth % 4 == 0) {
#pragma unroll
            for (int i = 0; i < kWidth; i += 4) {
                const float4 v = *reinterpret_cast<const float4*>(from + i);
                values[i] = v.x;
                values[i + 1] = v.y;
                values[i + 2] = v.z;
                values[i + 3] = v.w;
            }
        } else {
#pragma unroll
            for (int i = 0; i < kWidth; ++i) values[i] = from[i];
        }
        visit(row, column, values);
    }
}

// Stores the `valid` first of a chunk of elements to `to`, added to what is there if `accumulate`; at once if `whole`.
template <class T>
__device__ __forceinline__ void store_chunk(T* to, const float (&values)[Pack<T>::kLen], int valid, bool whole,
                                            bool accumulate) {
    if (whole) {
        Pack<T> out;
        if (accumulate) out = *reinterpret_cast<const Pack<T>*>(to);
#pragma unroll
        for (int i = 0; i < Pack<T>::kLen; ++i) {
            out.at[i] = from_float<T>(accumulate ? to_float(out.at[i]) + values[i] : values[i]);
        }
        *reinterpret_cast<Pack<T>*>(to) = out;
    } else {
#pragma unroll
        for (int i = 0; i < Pack<T>::kLen; ++i) {
            if (i < valid) to[i] = from_float<T>(accumulate ? to_float(to[i]) + values[i] : values[i]);
        }
    }
}

// Stores staged sums as f32 rows of `columns` elements from element (row0, column0) on: parts and filter gradients.
template <class TileT>
__device__ __forceinline__ void store_f32(float* out, const float* staged, int row0, int rows, int column0, int columns) {
    for_each_staged<TileT, 1>(staged, [&](int row, int column, const float(&values)[1]) {
        if (row0 + row < rows && column0 + column < columns) {
            out[static_cast<int64_t>(row0 + row) * columns + column0 + column] = values[0];
        }
    });
}

// The tiles that are compiled.
using Bf16 = __nv_bfloat16;
using MmaTile128x128 = Tile<Bf16, 128, 128, 128, false>;
using MmaTile128x64 = Tile<Bf16, 128, 64, 128, false>;
using MmaTile64x64 = Tile<Bf16, 64, 64, 128, false>;
using MmaTileGather = Tile<Bf16, 64, 64, 128, true>;
using SimtTile128x128 = Tile<float, 128, 128, 256, false>;
using SimtTile128x64 = Tile<float, 128, 64, 128, false>;
using SimtTile64x64 = Tile<float, 64, 64, 64, false>;
using SimtTileGather = Tile<float, 64, 64, 64, true>;
