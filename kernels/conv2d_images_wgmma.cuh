// conv2d_images_wgmma.cuh: fprop and dgrad on Hopper, the passes whose rows are pixels of images
//
// Both compute out[row, column] = sum over taps, channel of image[row's pixel shifted by the tap, channel] *
// filter(tap)[channel, column]:
//   fprop: image x, rows the pixels of y, channels C, columns K; the filter's row k holds its channels (K-major operand)
//   dgrad: image dy, channels K, columns C; rows the pixels of dx whose h and w leave the same remainders by the stride,
//     as these are reached by the same taps: those r with (h + pad - dilation * r) a multiple of the stride. Pixel
//     `i * stride + first` is reached from p = i + (first + pad - dilation * r) / stride, so taps are taken from the last
//     to the first, and p grows. The filter's row k holds the columns (N-major operand)
// gemm_k runs over the taps and blocks of 64 channels; what a block has beyond the last channel is zeros in both operands.
//
// The image comes through an im2col tensor map: one copy of kTileM pixels x 64 channels, whose pixels follow each other
// in rows, columns and images of the output. Coordinates count in the image from its corner: pixel (i, j) of the output
// starts at (i * stride + lower_h, j * stride + lower_w), and the tap is the copy's offset.
//
// Blocks stay on their multiprocessor and take tiles by turns: the copies of the next tile run during the stores of
// this one. Neighbouring tiles differ in their columns, so that those running at once share image rows in L2.
#pragma once

#include "wgmma_pipeline.cuh"

// Rows that one entry of the statistics covers.
constexpr int kStatisticsRows = 128;
// What a warp stages at a time: 16 rows of 64 columns.
constexpr int kStagingBytes = 16 * kRowBytes;

struct ImageGemm {
    int rows;         // pixels of the output, of images that are there
    int columns;      // channels of the output
    int channels;     // channels of the image
    int out_pixels;   // pixels of an output image
    int out_width;    // width of an output image
    int stride;       // of the output's pixels in the image
    int lower_h;      // where the output's first pixel starts in the image
    int lower_w;
    int tap_offset;   // pixels of the image from one tap to the next
    int taps_h;
    int taps_w;
    int first_tap;    // in the filter, as r * S + s
    int next_tap_h;   // from a tap to the next, also in the filter
    int next_tap_w;
};

// Where rows lie in dx, if not in order: every `spread`-th pixel from (first_h, first_w) of an image of height x width.
struct Spread {
    int spread;
    int first_h;
    int first_w;
    int height;
    int width;
};

template <bool kDgrad, int kTileM, int kTileN, int kStages>
struct ImageTile {
    static constexpr int kStageBytes = (kTileM + kTileN) * kRowBytes;
    static constexpr int kSubtiles = kTileM / 64 / kConsumerGroups;  // of 64 rows, of a warpgroup
    static constexpr int kParts = kTileM / 16;                       // rows of a warp, for the statistics
    static constexpr int kStatisticsOffset = kStages * kStageBytes + kConsumerWarps * kStagingBytes;
    static constexpr int kBarrierOffset = kStatisticsOffset + kParts * 2 * kTileN * static_cast<int>(sizeof(float));
    using Stages = Ring<kStages, kStageBytes>;

    // One thread: keeps the stages full.
    static __device__ __forceinline__ void copy(const Stages& ring, const TensorMap* image_map, const TensorMap* filter_map,
                                                const ImageGemm& gemm, int tiles_n, int tiles) {
        prefetch_tensor_map(image_map);
        prefetch_tensor_map(filter_map);
        Position<kStages> position;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            const int row = tile / tiles_n * kTileM;
            const int column = tile % tiles_n * kTileN;
            const int image = row / gemm.out_pixels;
            const int pixel = row % gemm.out_pixels;
            const int h = pixel / gemm.out_width * gemm.stride + gemm.lower_h;
            const int w = pixel % gemm.out_width * gemm.stride + gemm.lower_w;
            for (int i = 0; i < gemm.taps_h * gemm.taps_w; ++i) {
                const int r = i / gemm.taps_w;
                const int s = i % gemm.taps_w;
                const uint16_t offset_h = static_cast<uint16_t>(r * gemm.tap_offset);
                const uint16_t offset_w = static_cast<uint16_t>(s * gemm.tap_offset);
                const int tap = gemm.first_tap + r * gemm.next_tap_h + s * gemm.next_tap_w;
                for (int channel = 0; channel < gemm.channels; channel += kRowLen) {
                    ring.acquire(position);
                    uint64_t* const full = &ring.full[position.stage];
                    unsigned char* const a = ring.at(position.stage);
                    unsigned char* const b = a + kTileM * kRowBytes;
                    bulk_copy_im2col(a, image_map, full, channel, w, h, image, offset_w, offset_h);
                    if constexpr (kDgrad) {
#pragma unroll
                        for (int panel = 0; panel < kTileN / 64; ++panel) {
                            bulk_copy_3d(b + panel * kPanelBytes, filter_map, full, column + 64 * panel, tap, channel);
                        }
                    } else {
                        bulk_copy_3d(b, filter_map, full, channel, tap, column);
                    }
                    position.advance();
                }
            }
        }
    }

    // A consumer warpgroup's rows of one tile.
    static __device__ __forceinline__ void compute(float (&d)[kSubtiles][kTileN / 2], const Stages& ring,
                                                   Position<kStages>& position, int group, int steps) {
#pragma unroll
        for (int sub = 0; sub < kSubtiles; ++sub) {
#pragma unroll
            for (int i = 0; i < kTileN / 2; ++i) d[sub][i] = 0.0f;
        }
        int previous = 0;
        for (int step = 0; step < steps; ++step) {
            mbarrier_wait(&ring.full[position.stage], position.parity);
            const unsigned char* const stage = ring.at(position.stage);
            const uint64_t a = matrix_descriptor(stage + group * kSubtiles * kPanelBytes, 0);
            const uint64_t b = matrix_descriptor(stage + kTileM * kRowBytes, kDgrad ? kPanelBytes : 0);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kStepsPerRow; ++k) {
                constexpr int kBytesB = kDgrad ? kStepK * kRowBytes : kStepK * 2;
#pragma unroll
                for (int sub = 0; sub < kSubtiles; ++sub) {
                    multiply<kTileN, 0, kDgrad>(d[sub], advanced(a, sub * kPanelBytes + k * kStepK * 2),
                                                advanced(b, k * kBytesB));
                }
            }
            wgmma_commit();
            // This step's products may go on; those of the step before are done, and so is its stage.
            wgmma_wait<1>();
            if (step > 0) ring.release(previous);
            previous = position.stage;
            position.advance();
        }
        wgmma_wait<0>();
        if (steps > 0) ring.release(previous);
#pragma unroll
        for (int sub = 0; sub < kSubtiles; ++sub) keep_registers(d[sub]);
    }

    // 16 bytes of a warp's staging memory; the swizzle keeps both its writers and its readers off each other's banks.
    static __device__ __forceinline__ unsigned char* staged(unsigned char* staging, int row, int piece) {
        return staging + row * kRowBytes + ((piece ^ (row & 7)) << 4);
    }

    // Sum and squared deviations of a warp's rows, at most 16, two columns a lane, of the values as stored.
    static __device__ __forceinline__ void warp_statistics(float* part, unsigned char* staging, int rows, int lane) {
        float sum[2] = {0.0f, 0.0f};
        float squares[2] = {0.0f, 0.0f};
        float value[16][2];
#pragma unroll
        for (int row = 0; row < 16; ++row) {
            const uint32_t pair = *reinterpret_cast<uint32_t*>(staged(staging, row, lane / 4) + lane % 4 * 4);
            value[row][0] = __uint_as_float(pair << 16);
            value[row][1] = __uint_as_float(pair & 0xffff0000u);
            if (row < rows) {
                sum[0] += value[row][0];
                sum[1] += value[row][1];
            }
        }
        const float scale = 1.0f / static_cast<float>(max(rows, 1));
        const float mean[2] = {sum[0] * scale, sum[1] * scale};
#pragma unroll
        for (int row = 0; row < 16; ++row) {
            if (row < rows) {
                squares[0] = fmaf(value[row][0] - mean[0], value[row][0] - mean[0], squares[0]);
                squares[1] = fmaf(value[row][1] - mean[1], value[row][1] - mean[1], squares[1]);
            }
        }
        part[2 * lane] = sum[0];
        part[2 * lane + 1] = sum[1];
        part[kTileN + 2 * lane] = squares[0];
        part[kTileN + 2 * lane + 1] = squares[1];
    }

    // Joins the warps' statistics, in the order of their rows, by the formula of two sets' joint deviation.
    static __device__ __forceinline__ void join_statistics(float* statistics, const float* parts, const ImageGemm& gemm,
                                                           int row0, int column0, int thread) {
        constexpr int kJoined = kStatisticsRows / 16;
        for (int i = thread; i < kTileM / kStatisticsRows * kTileN; i += kConsumers) {
            const int entry = i / kTileN;
            const int column = column0 + i % kTileN;
            const int first = row0 + entry * kStatisticsRows;
            if (column >= gemm.columns || first >= gemm.rows) continue;
            const float* part = parts + entry * kJoined * 2 * kTileN + i % kTileN;
            float sum = part[0];
            float squares = part[kTileN];
            float count = static_cast<float>(min(16, gemm.rows - first));
            for (int j = 1; j < kJoined; ++j) {
                const int rows = gemm.rows - first - 16 * j;
                if (rows <= 0) break;
                part += 2 * kTileN;
                const float more = static_cast<float>(min(16, rows));
                const float gap = part[0] / more - sum / count;
                squares += part[kTileN] + gap * gap * (count * more / (count + more));
                sum += part[0];
                count += more;
            }
            float* const out = statistics + static_cast<int64_t>(first / kStatisticsRows) * 2 * gemm.columns + column;
            out[0] = sum;
            out[gemm.columns] = squares;
        }
    }

    // Which pixel of the output tensor a row is.
    static __device__ __forceinline__ int64_t pixel_of(int row, const ImageGemm& gemm, const Spread& spread) {
        if (!kDgrad || spread.spread == 1) return row;
        const int h = row % gemm.out_pixels / gemm.out_width * spread.spread + spread.first_h;
        const int w = row % gemm.out_pixels % gemm.out_width * spread.spread + spread.first_w;
        return (static_cast<int64_t>(row / gemm.out_pixels) * spread.height + h) * spread.width + w;
    }

    // Stores a consumer warpgroup's rows: through its warps' staging memory, so that 8 lanes write 128 bytes of a row.
    static __device__ __forceinline__ void store(float (&d)[kSubtiles][kTileN / 2], __nv_bfloat16* out, const float* bias,
                                                 int relu, int accumulate, float* parts, unsigned char* staging,
                                                 const ImageGemm& gemm, const Spread& spread, int group, int row0,
                                                 int column0) {
        const int lane = threadIdx.x % 32;
        const int warp = threadIdx.x / 32 % 4;
#pragma unroll
        for (int sub = 0; sub < kSubtiles; ++sub) {
            const int part = (group * kSubtiles + sub) * 4 + warp;
            const int first = row0 + part * 16;
            // Of the four rows that this lane reads and writes pieces of.
            int64_t pixel[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) pixel[i] = pixel_of(first + i * 4 + lane / 8, gemm, spread);
#pragma unroll
            for (int panel = 0; panel < kTileN / 64; ++panel) {
                const int column = column0 + panel * 64;
                const bool reads = column + lane % 8 * 8 < gemm.columns;
                __nv_bfloat16* const piece = out + column + lane % 8 * 8;
                if (accumulate) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int row = i * 4 + lane / 8;
                        if (reads && first + row < gemm.rows) {
                            *reinterpret_cast<Pack<__nv_bfloat16>*>(staged(staging, row, lane % 8)) =
                                *reinterpret_cast<const Pack<__nv_bfloat16>*>(piece + pixel[i] * gemm.columns);
                        }
                    }
                    __syncwarp();
                }
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const int at = column + 8 * j + lane % 4 * 2;
                    float more[2] = {0.0f, 0.0f};
                    if (bias != nullptr && at < gemm.columns) {
                        more[0] = bias[at];
                        more[1] = bias[at + 1];
                    }
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int row = lane / 4 + 8 * half;
                        uint32_t* const pair = reinterpret_cast<uint32_t*>(staged(staging, row, j) + lane % 4 * 4);
                        float low = d[sub][(panel * 8 + j) * 4 + half * 2] + more[0];
                        float high = d[sub][(panel * 8 + j) * 4 + half * 2 + 1] + more[1];
                        if (relu) {
                            low = fmaxf(low, 0.0f);
                            high = fmaxf(high, 0.0f);
                        }
                        if (accumulate) {
                            low += __uint_as_float(*pair << 16);
                            high += __uint_as_float(*pair & 0xffff0000u);
                        }
                        *pair = pack_bf16(low, high);
                    }
                }
                __syncwarp();
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = i * 4 + lane / 8;
                    if (reads && first + row < gemm.rows) {
                        *reinterpret_cast<Pack<__nv_bfloat16>*>(piece + pixel[i] * gemm.columns) =
                            *reinterpret_cast<const Pack<__nv_bfloat16>*>(staged(staging, row, lane % 8));
                    }
                }
                if (parts != nullptr) {
                    warp_statistics(parts + part * 2 * kTileN + panel * 64, staging, min(16, gemm.rows - first), lane);
                }
                __syncwarp();
            }
        }
    }

    static __device__ __forceinline__ void run(__nv_bfloat16* out, float* statistics, const TensorMap* image_map,
                                               const TensorMap* filter_map, const float* bias, int relu, int accumulate,
                                               const ImageGemm& gemm, const Spread& spread) {
        DYNAMIC_SHARED(shared);
        Stages ring(shared, shared + kBarrierOffset);
        ring.initialise();
        const int tiles_n = (gemm.columns + kTileN - 1) / kTileN;
        const int tiles = (gemm.rows + kTileM - 1) / kTileM * tiles_n;
        if (threadIdx.x < kWarpgroup) {
            registers_decrease<kProducerRegisters>();
            if (threadIdx.x == 0) copy(ring, image_map, filter_map, gemm, tiles_n, tiles);
        } else {
            registers_increase<kConsumerRegisters>();
            const int thread = threadIdx.x - kWarpgroup;
            const int group = thread / kWarpgroup;
            const int steps = gemm.taps_h * gemm.taps_w * ((gemm.channels + kRowLen - 1) / kRowLen);
            unsigned char* const staging = shared + kStages * kStageBytes + thread / 32 * kStagingBytes;
            float* const parts =
                statistics == nullptr ? nullptr : reinterpret_cast<float*>(shared + kStatisticsOffset);
            Position<kStages> position;
            for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
                const int row = tile / tiles_n * kTileM;
                const int column = tile % tiles_n * kTileN;
                float d[kSubtiles][kTileN / 2];
                compute(d, ring, position, group, steps);
                // Before the parts are written again, everyone has joined those of the tile before.
                if (parts != nullptr) named_barrier(kConsumerBarrier, kConsumers);
                store(d, out, bias, relu, accumulate, parts, staging, gemm, spread, group, row, column);
                if (parts != nullptr) {
                    named_barrier(kConsumerBarrier, kConsumers);
                    join_statistics(statistics, parts, gemm, row, column, thread);
                }
            }
        }
    }
};
