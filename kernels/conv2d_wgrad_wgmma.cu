// conv2d_wgrad_wgmma.cu: dfilter from x and dy on Hopper's warpgroup matrix instructions
//
// Role       the filter's gradient of large layers: implicit GEMM with gemm_m = K, gemm_n = R*S*C, gemm_k = N*P*Q pixels,
//            which are split among blocks; conv2d_wgrad_wgmma_sum_f32 then adds the splits' sums in their order
// Shapes     dfilter [K, R, S, C]; x [N, H, W, C]; dy [N, P, Q, K]; partial [splits, K, R, S, C], or dfilter itself where
//            there is one split; C and K multiples of 8; N is the number in num_images, tensors have room for the bucket's
// Types      bf16 in, f32 accumulation and out; written (=); no atomics, the same bits whatever the block order
// Launch     entry _MxN computes tiles of M output channels and N / 64 blocks of 64 input channels, each of some (r, s);
//            1-D grid of splits * tiles blocks, neighbours sharing their pixels, 384 threads, sm_90a; dynamic shared
//            memory: stages * (M + N) * 128 + stages * 16 bytes. The sum: 1-D grid-stride loop, any block size
// Cost       2 * N*P*Q * K * R*S*C FLOP; 2 bytes each of x and dy at least, and 8 * splits * K*R*S*C bytes for the partial
//            sums; each tile reads (M + N) * 128 bytes of L2 for M * N * 128 FLOP
// See        src/ops/conv2d/cuda/wgmma/, kernels/wgmma_pipeline.cuh, tests/kernels/conv2d_wgrad_wgmma.rs

#include "wgmma_pipeline.cuh"

// Both operands have gemm_k, the pixels, as rows, and 64 of M or N inside a row: both are transposed, in panels of 64
// pixels x 64 channels. dy comes through a tiled map [N*P*Q, K], x through an im2col map whose copies take 64 pixels at
// one filter place.
//
// Pixels of images that are not there may be anything, even NaN, which a zero in the other operand would not take away:
// the last step of all fills the rows beyond the last pixel with zeros, in both operands.
struct FilterGemm {
    int pixels;        // of images that are there
    int k;
    int c;
    int taps;          // R * S
    int out_pixels;    // P * Q
    int out_width;     // Q
    int filter_width;  // S
    int stride;
    int pad;
    int dilation;
    int splits;
};

template <int kPanelsM, int kPanelsN, int kStages>
struct FilterTile {
    static constexpr int kTileN = kPanelsN * 64;
    static constexpr int kPanels = kPanelsM + kPanelsN;
    static constexpr int kStageBytes = kPanels * kPanelBytes;
    static constexpr int kBarrierOffset = kStages * kStageBytes;
    // With one panel of M, the consumer warpgroups share the steps of 16 pixels instead of the rows.
    static constexpr bool kShareSteps = kPanelsM == 1;
    static_assert(!kShareSteps || kTileN / 2 * kWarpgroup * 4 <= kStages * kStageBytes, "the exchange fits into the stages");
    using Stages = Ring<kStages, kStageBytes>;

    // Channel block of a column panel; panels beyond the last repeat it, and their products are not stored.
    struct Panel {
        int channel;
        int tap;

        __device__ __forceinline__ Panel(int index, const FilterGemm& gemm) {
            const int blocks = (gemm.c + kRowLen - 1) / kRowLen;
            const int at = min(index, gemm.taps * blocks - 1);
            channel = at % blocks * kRowLen;
            tap = at / blocks;
        }
    };

    static __device__ __forceinline__ void copy(const Stages& ring, const TensorMap* x_map, const TensorMap* dy_map,
                                                const FilterGemm& gemm, int row, int panel, int first_step, int steps) {
        prefetch_tensor_map(x_map);
        prefetch_tensor_map(dy_map);
        int channel[kPanelsN];
        uint16_t offset_h[kPanelsN];
        uint16_t offset_w[kPanelsN];
#pragma unroll
        for (int j = 0; j < kPanelsN; ++j) {
            const Panel at(panel + j, gemm);
            channel[j] = at.channel;
            offset_h[j] = static_cast<uint16_t>(at.tap / gemm.filter_width * gemm.dilation);
            offset_w[j] = static_cast<uint16_t>(at.tap % gemm.filter_width * gemm.dilation);
        }
        Position<kStages> position;
        for (int step = first_step; step < first_step + steps; ++step) {
            const int first = step * kRowLen;
            const int image = first / gemm.out_pixels;
            const int pixel = first % gemm.out_pixels;
            const int h = pixel / gemm.out_width * gemm.stride - gemm.pad;
            const int w = pixel % gemm.out_width * gemm.stride - gemm.pad;
            ring.acquire(position);
            uint64_t* const full = &ring.full[position.stage];
            unsigned char* const a = ring.at(position.stage);
            unsigned char* const b = a + kPanelsM * kPanelBytes;
#pragma unroll
            for (int j = 0; j < kPanelsM; ++j) bulk_copy_2d(a + j * kPanelBytes, dy_map, full, row + 64 * j, first);
#pragma unroll
            for (int j = 0; j < kPanelsN; ++j) {
                bulk_copy_im2col(b + j * kPanelBytes, x_map, full, channel[j], w, h, image, offset_w[j], offset_h[j]);
            }
            position.advance();
        }
    }

    // Zeros from row `valid` of every panel of a stage.
    static __device__ __forceinline__ void clear_rows(unsigned char* stage, int valid, int thread) {
        const int pieces = (kRowLen - valid) * kRowBytes / 16;
        for (int i = thread; i < kPanels * pieces; i += kConsumers) {
            const int at = i / pieces * kPanelBytes + valid * kRowBytes + i % pieces * 16;
            *reinterpret_cast<uint4*>(stage + at) = uint4{0, 0, 0, 0};
        }
        // Both warpgroups read what either has cleared.
        fence_proxy_async();
        named_barrier(kConsumerBarrier, kConsumers);
    }

    static __device__ __forceinline__ void compute(float (&d)[kTileN / 2], const Stages& ring, const FilterGemm& gemm,
                                                   int thread, int first_step, int steps) {
        const int group = thread / kWarpgroup;
#pragma unroll
        for (int i = 0; i < kTileN / 2; ++i) d[i] = 0.0f;
        Position<kStages> position;
        int previous = 0;
        for (int step = 0; step < steps; ++step) {
            mbarrier_wait(&ring.full[position.stage], position.parity);
            unsigned char* const stage = ring.at(position.stage);
            const int valid = gemm.pixels - (first_step + step) * kRowLen;
            if (valid < kRowLen) clear_rows(stage, valid, thread);
            const uint64_t a = matrix_descriptor(stage + (kShareSteps ? 0 : group * kPanelBytes), kPanelBytes);
            const uint64_t b = matrix_descriptor(stage + kPanelsM * kPanelBytes, kPanelBytes);
            constexpr int kShare = kShareSteps ? kStepsPerRow / kConsumerGroups : kStepsPerRow;
            const int first = kShareSteps ? group * kShare : 0;
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kShare; ++k) {
                const int bytes = (first + k) * kStepK * kRowBytes;
                multiply<kTileN, 1, 1>(d, advanced(a, bytes), advanced(b, bytes));
            }
            wgmma_commit();
            // This step's products may go on; those of the step before are done, and so is its stage.
            wgmma_wait<1>();
            if (step > 0) ring.release(previous);
            previous = position.stage;
            position.advance();
        }
        wgmma_wait<0>();
        keep_registers(d);
    }

    // The second warpgroup's sums go to the first through the stages, which nobody needs any more.
    static __device__ __forceinline__ void join(float (&d)[kTileN / 2], float* exchange, int thread) {
        named_barrier(kConsumerBarrier, kConsumers);
        if (thread >= kWarpgroup) {
#pragma unroll
            for (int i = 0; i < kTileN / 2; ++i) exchange[i * kWarpgroup + thread - kWarpgroup] = d[i];
        }
        named_barrier(kConsumerBarrier, kConsumers);
        if (thread < kWarpgroup) {
#pragma unroll
            for (int i = 0; i < kTileN / 2; ++i) d[i] += exchange[i * kWarpgroup + thread];
        }
    }

    // Four lanes write 32 bytes of a row. Gradients may start at any float, partial sums do not.
    static __device__ __forceinline__ void store(const float (&d)[kTileN / 2], float* out, const FilterGemm& gemm, int row,
                                                 int panel, int thread) {
        const int lane = thread % 32;
        const int first = row + thread / 32 * 16 + lane / 4;
        const int blocks = (gemm.c + kRowLen - 1) / kRowLen;
        const bool pairs = reinterpret_cast<uintptr_t>(out) % sizeof(float2) == 0;
#pragma unroll
        for (int j = 0; j < kPanelsN; ++j) {
            if (panel + j >= gemm.taps * blocks) break;
            const Panel at(panel + j, gemm);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int channel = at.channel + 8 * i + lane % 4 * 2;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int k = first + 8 * half;
                    const float low = d[(j * 8 + i) * 4 + half * 2];
                    const float high = d[(j * 8 + i) * 4 + half * 2 + 1];
                    if (k >= gemm.k || channel >= gemm.c) continue;
                    float* const to = out + (static_cast<int64_t>(k) * gemm.taps + at.tap) * gemm.c + channel;
                    if (pairs) {
                        *reinterpret_cast<float2*>(to) = float2{low, high};
                    } else {
                        to[0] = low;
                        to[1] = high;
                    }
                }
            }
        }
    }

    static __device__ __forceinline__ void run(float* partial, const TensorMap* x_map, const TensorMap* dy_map,
                                               const FilterGemm& gemm) {
        DYNAMIC_SHARED(shared);
        Stages ring(shared, shared + kBarrierOffset);
        ring.initialise();
        const int panels = gemm.taps * ((gemm.c + kRowLen - 1) / kRowLen);
        const int tiles_n = (panels + kPanelsN - 1) / kPanelsN;
        const int tiles = (gemm.k + 64 * kPanelsM - 1) / (64 * kPanelsM) * tiles_n;
        const int split = blockIdx.x / tiles;
        const int tile = blockIdx.x % tiles;
        const int row = tile / tiles_n * 64 * kPanelsM;
        const int panel = tile % tiles_n * kPanelsN;
        // The pixels there are go to the splits in equal steps, whatever the bucket.
        const int all_steps = (gemm.pixels + kRowLen - 1) / kRowLen;
        const int share = (all_steps + gemm.splits - 1) / gemm.splits;
        const int first_step = min(split * share, all_steps);
        const int steps = min(share, all_steps - first_step);
        if (threadIdx.x < kWarpgroup) {
            registers_decrease<kProducerRegisters>();
            if (threadIdx.x == 0) copy(ring, x_map, dy_map, gemm, row, panel, first_step, steps);
        } else {
            registers_increase<kConsumerRegisters>();
            const int thread = threadIdx.x - kWarpgroup;
            float d[kTileN / 2];
            compute(d, ring, gemm, thread, first_step, steps);
            if constexpr (kShareSteps) join(d, reinterpret_cast<float*>(shared), thread);
            if (!kShareSteps || thread < kWarpgroup) {
                float* const out = partial + static_cast<int64_t>(split) * gemm.k * gemm.taps * gemm.c;
                store(d, out, gemm, row, panel, thread);
            }
        }
    }
};

// dfilter[i] = sum over splits of partial[split, i], in their order.
extern "C" __global__ void conv2d_wgrad_wgmma_sum_f32(float* __restrict__ dfilter, const float* __restrict__ partial,
                                                      int splits, int64_t numel) {
    for (int64_t i = global_thread_index(); i < numel; i += grid_stride()) {
        float sum = 0.0f;
#pragma unroll 8
        for (int split = 0; split < splits; ++split) sum += partial[split * numel + i];
        dfilter[i] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_64x64_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<1, 1, 6>::run(partial, &x_map, &dy_map, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_64x128_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<1, 2, 6>::run(partial, &x_map, &dy_map, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_64x192_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<1, 3, 5>::run(partial, &x_map, &dy_map, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_64x256_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<1, 4, 4>::run(partial, &x_map, &dy_map, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_128x64_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<2, 1, 6>::run(partial, &x_map, &dy_map, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_128x128_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<2, 2, 5>::run(partial, &x_map, &dy_map, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_128x192_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<2, 3, 4>::run(partial, &x_map, &dy_map, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_wgrad_wgmma_128x256_bf16(float* partial, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap dy_map, const int32_t* num_images, int c, int k, int p,
                                   int q, int r, int s, int stride, int pad, int dilation, int splits) {
    const FilterGemm gemm = {*num_images * p * q, k, c, r * s, p * q, q, s, stride, pad, dilation, splits};
    FilterTile<2, 4, 4>::run(partial, &x_map, &dy_map, gemm);
}
