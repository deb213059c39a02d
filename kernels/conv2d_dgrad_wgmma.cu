// conv2d_dgrad_wgmma.cu: dx from dy at stride 1, on Hopper's warpgroup matrix instructions
//
// Role       the input's gradient of large layers: a convolution of dy with the filter read from its end, as implicit GEMM
//            with gemm_m = N*H*W, gemm_n = C, gemm_k = R*S*K; bulk copies bring dy (im2col tensor map) and the filter
//            (tiled tensor map [K, R*S, C], whose C is gemm_n: the transposed operand)
// Shapes     dx [N, H, W, C]; dy [N, P, Q, K]; filter [K, R, S, C]; stride 1; C and K multiples of 8; N is the number in
//            num_images, tensors have room for the bucket's
// Types      bf16 in, f32 accumulation, one rounding to bf16; dx is written (=), or with accumulate added to (+=), the sum
//            being formed in f32; no atomics, the same bits whatever the block order
// Launch     entry _MxN computes tiles of M pixels and N channels; 1-D grid of at most one block a multiprocessor, 384
//            threads, sm_90a; dynamic shared memory: stages * (M + N) * 128 + 16384 + M * N / 2 + stages * 16 bytes
// Cost       2 * N*H*W * C * R*S*K FLOP; 2 bytes each of dy, filter and dx at least (4 of dx with accumulate): bound by
//            matrix instructions from about R*S*K = 600 up, by memory below
// See        src/ops/conv2d/cuda/wgmma.rs, kernels/conv2d_images_wgmma.cuh, tests/kernels/conv2d_dgrad_wgmma.rs

#include "conv2d_images_wgmma.cuh"

// The first pixel of dx starts in dy at pad - dilation * (R - 1), and so along the width.
template <int kTileM, int kTileN, int kStages>
__device__ __forceinline__ void dgrad(__nv_bfloat16* dx, const TensorMap* dy_map, const TensorMap* filter_map,
                                      const int32_t* num_images, int c, int k, int h, int w, int r, int s, int pad,
                                      int dilation, int accumulate) {
    const ImageGemm gemm = {*num_images * h * w, c, k, h * w, w, 1, pad - dilation * (r - 1), pad - dilation * (s - 1),
                            dilation, r, s};
    ImageTile<true, kTileM, kTileN, kStages>::run(dx, nullptr, dy_map, filter_map, nullptr, 0, accumulate, gemm);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_128x64_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int r, int s, int pad, int dilation, int accumulate) {
    dgrad<128, 64, 6>(dx, &dy_map, &filter_map, num_images, c, k, h, w, r, s, pad, dilation, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_256x64_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int r, int s, int pad, int dilation, int accumulate) {
    dgrad<256, 64, 4>(dx, &dy_map, &filter_map, num_images, c, k, h, w, r, s, pad, dilation, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_128x128_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int r, int s, int pad, int dilation, int accumulate) {
    dgrad<128, 128, 5>(dx, &dy_map, &filter_map, num_images, c, k, h, w, r, s, pad, dilation, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_256x128_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int r, int s, int pad, int dilation, int accumulate) {
    dgrad<256, 128, 4>(dx, &dy_map, &filter_map, num_images, c, k, h, w, r, s, pad, dilation, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_128x256_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int r, int s, int pad, int dilation, int accumulate) {
    dgrad<128, 256, 4>(dx, &dy_map, &filter_map, num_images, c, k, h, w, r, s, pad, dilation, accumulate);
}
