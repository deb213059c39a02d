// conv2d_dgrad_wgmma.cu: dx from dy on Hopper's warpgroup matrix instructions
//
// Role       the input's gradient of large layers: for each class of pixels, whose h and w leave the same remainders by the
//            stride, a convolution of dy with the taps that reach them, from the last to the first, as implicit GEMM with
//            gemm_m = N*h*w, gemm_n = C, gemm_k = taps * K; bulk copies bring dy (im2col tensor map) and the filter (tiled
//            tensor map [K, R*S, C], whose C is gemm_n: the transposed operand)
// Shapes     dx [N, H, W, C], of which this class has h x w pixels an image, every stride-th from (first_h, first_w); dy [N,
//            P, Q, K]; filter [K, R, S, C]; dilation 1 unless the stride is; C and K multiples of 8; N is the number in
//            num_images, tensors have room for the bucket's
// Types      bf16 in, f32 accumulation, one rounding to bf16; dx is written (=), or with accumulate added to (+=), the sum
//            being formed in f32; no atomics, the same bits whatever the block order
// Launch     one launch a class; a class without taps gets zeros. Entry _MxN computes tiles of M pixels and N channels; 1-D
//            grid of at most one block a multiprocessor, 384 threads, sm_90a; dynamic shared memory: stages * (M + N) * 128
//            + 16384 + M * N / 2 + stages * 16 bytes
// Cost       2 * N*h*w * C * taps * K FLOP a class, over all classes of a stride 2 as much as fprop; 2 bytes each of dy,
//            filter and dx at least (4 of dx with accumulate): bound by matrix instructions from taps * K = 600 up, by
//            memory below
// See        src/ops/conv2d/cuda/wgmma/, kernels/conv2d_images_wgmma.cuh, tests/kernels/conv2d_dgrad_wgmma.rs

#include "conv2d_images_wgmma.cuh"

// (lower_h, lower_w) is where the class's first pixel starts in dy; taps_h x taps_w taps follow each other in steps of
// tap_offset pixels of dy, from first_tap backwards in steps of the stride in the filter.
template <int kTileM, int kTileN, int kStages>
__device__ __forceinline__ void dgrad(__nv_bfloat16* dx, const TensorMap* dy_map, const TensorMap* filter_map,
                                      const int32_t* num_images, int c, int k, int h, int w, int lower_h, int lower_w,
                                      int tap_offset, int taps_h, int taps_w, int first_tap, int filter_width,
                                      const Spread& spread, int accumulate) {
    const int rows = *num_images * h * w;
    const ImageGemm gemm = {rows, c, k, h * w, w, 1, lower_h, lower_w, tap_offset, taps_h, taps_w, first_tap,
                            -spread.spread * filter_width, -spread.spread};
    ImageTile<true, kTileM, kTileN, kStages>::run(dx, nullptr, dy_map, filter_map, nullptr, 0, accumulate, gemm, spread);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_128x64_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int lower_h, int lower_w, int tap_offset, int taps_h, int taps_w,
                                   int first_tap, int filter_width, int stride, int first_h, int first_w, int height,
                                   int width, int accumulate) {
    dgrad<128, 64, 6>(dx, &dy_map, &filter_map, num_images, c, k, h, w, lower_h, lower_w, tap_offset, taps_h, taps_w,
                       first_tap, filter_width, {stride, first_h, first_w, height, width}, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_256x64_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int lower_h, int lower_w, int tap_offset, int taps_h, int taps_w,
                                   int first_tap, int filter_width, int stride, int first_h, int first_w, int height,
                                   int width, int accumulate) {
    dgrad<256, 64, 4>(dx, &dy_map, &filter_map, num_images, c, k, h, w, lower_h, lower_w, tap_offset, taps_h, taps_w,
                       first_tap, filter_width, {stride, first_h, first_w, height, width}, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_128x128_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int lower_h, int lower_w, int tap_offset, int taps_h, int taps_w,
                                   int first_tap, int filter_width, int stride, int first_h, int first_w, int height,
                                   int width, int accumulate) {
    dgrad<128, 128, 5>(dx, &dy_map, &filter_map, num_images, c, k, h, w, lower_h, lower_w, tap_offset, taps_h, taps_w,
                       first_tap, filter_width, {stride, first_h, first_w, height, width}, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_256x128_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int lower_h, int lower_w, int tap_offset, int taps_h, int taps_w,
                                   int first_tap, int filter_width, int stride, int first_h, int first_w, int height,
                                   int width, int accumulate) {
    dgrad<256, 128, 4>(dx, &dy_map, &filter_map, num_images, c, k, h, w, lower_h, lower_w, tap_offset, taps_h, taps_w,
                       first_tap, filter_width, {stride, first_h, first_w, height, width}, accumulate);
}

extern "C" __global__ void __launch_bounds__(kBlockSize, 1)
    conv2d_dgrad_wgmma_128x256_bf16(__nv_bfloat16* dx, const __grid_constant__ TensorMap dy_map,
                                   const __grid_constant__ TensorMap filter_map, const int32_t* num_images, int c, int k,
                                   int h, int w, int lower_h, int lower_w, int tap_offset, int taps_h, int taps_w,
                                   int first_tap, int filter_width, int stride, int first_h, int first_w, int height,
                                   int width, int accumulate) {
    dgrad<128, 256, 4>(dx, &dy_map, &filter_map, num_images, c, k, h, w, lower_h, lower_w, tap_offset, taps_h, taps_w,
                       first_tap, filter_width, {stride, first_h, first_w, height, width}, accumulate);
}
