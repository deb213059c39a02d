// conv2d_fprop_wgmma.cu: y = conv(x, filter) on Hopper's warpgroup matrix instructions
//
// Role       the forward convolution of large layers: implicit GEMM, gemm_m = N*P*Q, gemm_n = K, gemm_k = R*S*C, whose
//            operands bulk copies bring from x (im2col tensor map) and the filter (tiled tensor map [K, R*S, C])
// Shapes     y [N, P, Q, K]; x [N, H, W, C]; filter [K, R, S, C]; bias [K]; statistics [ceil(N*P*Q / 128), 2, K]; C and K
//            multiples of 8; N is the number in num_images, tensors have room for the bucket's
// Types      bf16 in, f32 accumulation, bias, ReLU, then one rounding to bf16; statistics f32, of the rounded y: sum, and
//            squared deviations from the mean of each 128 rows; no atomics, the same bits whatever the block order
// Launch     entry _MxN computes tiles of M pixels and N channels; 1-D grid of at most one block a multiprocessor, 384
//            threads, sm_90a; dynamic shared memory: stages * (M + N) * 128 + 16384 + M * N / 2 + stages * 16 bytes
// Cost       2 * N*P*Q * K * R*S*C FLOP; 2 bytes each of x, filter and y at least: bound by matrix instructions from about
//            R*S*C = 600 up, by memory below; each tile reads (M + N) * 128 bytes of L2 for M * N * 128 FLOP
// See        src/ops/conv2d/cuda/wgmma/, kernels/conv2d_images_wgmma.cuh, tests/kernels/conv2d_fprop_wgmma.rs

#include "conv2d_images_wgmma.cuh"

template <int kTileM, int kTileN, int kStages>
__device__ __forceinline__ void fprop(__nv_bfloat16* y, float* statistics, const TensorMap* x_map,
                                      const TensorMap* filter_map, const float* bias, const int32_t* num_images, int c,
                                      int k, int p, int q, int r, int s, int stride, int pad, int dilation, int relu) {
    const ImageGemm gemm = {*num_images * p * q, k, c, p * q, q, stride, -pad, -pad, dilation, r, s, 0, s, 1};
    const Spread in_order = {1, 0, 0, 0, 0};
    ImageTile<false, kTileM, kTileN, kStages>::run(y, statistics, x_map, filter_map, bias, relu, 0, gemm, in_order);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_fprop_wgmma_128x64_bf16(__nv_bfloat16* y, float* statistics, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap filter_map, const float* bias,
                                   const int32_t* num_images, int c, int k, int p, int q, int r, int s, int stride, int pad,
                                   int dilation, int relu) {
    fprop<128, 64, 6>(y, statistics, &x_map, &filter_map, bias, num_images, c, k, p, q, r, s, stride, pad, dilation,
                       relu);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_fprop_wgmma_256x64_bf16(__nv_bfloat16* y, float* statistics, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap filter_map, const float* bias,
                                   const int32_t* num_images, int c, int k, int p, int q, int r, int s, int stride, int pad,
                                   int dilation, int relu) {
    fprop<256, 64, 4>(y, statistics, &x_map, &filter_map, bias, num_images, c, k, p, q, r, s, stride, pad, dilation,
                       relu);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_fprop_wgmma_128x128_bf16(__nv_bfloat16* y, float* statistics, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap filter_map, const float* bias,
                                   const int32_t* num_images, int c, int k, int p, int q, int r, int s, int stride, int pad,
                                   int dilation, int relu) {
    fprop<128, 128, 5>(y, statistics, &x_map, &filter_map, bias, num_images, c, k, p, q, r, s, stride, pad, dilation,
                       relu);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_fprop_wgmma_256x128_bf16(__nv_bfloat16* y, float* statistics, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap filter_map, const float* bias,
                                   const int32_t* num_images, int c, int k, int p, int q, int r, int s, int stride, int pad,
                                   int dilation, int relu) {
    fprop<256, 128, 4>(y, statistics, &x_map, &filter_map, bias, num_images, c, k, p, q, r, s, stride, pad, dilation,
                       relu);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_fprop_wgmma_128x256_bf16(__nv_bfloat16* y, float* statistics, const __grid_constant__ TensorMap x_map,
                                   const __grid_constant__ TensorMap filter_map, const float* bias,
                                   const int32_t* num_images, int c, int k, int p, int q, int r, int s, int stride, int pad,
                                   int dilation, int relu) {
    fprop<128, 256, 4>(y, statistics, &x_map, &filter_map, bias, num_images, c, k, p, q, r, s, stride, pad, dilation,
                       relu);
}
