// softmax_xent.cu: loss = ln(sum(exp(logits))) - logits[label] a row, rank of the label, gradient of the mean loss
//
// Role       loss, top-1 and top-5 accuracy and gradient of a batch in one pass, added to the sums of an epoch
// Shapes     logits, dlogits: [images, classes]; labels: [images]; rows: [images, 3], loss, top1, top5 of each; stats:
//            [3], added to (+=). dlogits may be null, else it is written (=)
// Types      f32 or bf16 logits; exponentials in f32, added up to f64 across threads; loss and its sums f64 in a fixed
//            order
// Launch     rows: 256 threads, a row to a warp or, with `block_rows` 1, to the block; sum: one block of 256 threads;
//            barriers, warp shuffles, no atomics
// Cost       2 elements of memory a logit (1 without gradient; a row is read three times, from the cache), about 25
//            FLOP: bound by memory bandwidth, or by the launch
// See        src/ops/softmax_xent/, tests/kernels/softmax_xent.rs

#include <cmath>

#include "common.cuh"

constexpr int kThreads = 256;
constexpr int kWarpThreads = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Add {
    template <class A>
    __device__ __forceinline__ A operator()(A a, A b) const {
        return a + b;
    }
};

// The greater one that is not NaN; `a` is none.
struct Greater {
    __device__ __forceinline__ float operator()(float a, float b) const { return b > a ? b : a; }
};

// Combines the values of all threads of a group, a warp or the block, in a fixed order; all get the result.
template <int kGroup, class A, class F>
__device__ __forceinline__ A combine(A value, const F& function) {
#pragma unroll
    for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
        value = function(value, __shfl_xor_sync(kAllLanes, value, offset));
    }
    if constexpr (kGroup > kWarpThreads) {
        __shared__ A warps[kGroup / kWarpThreads];
        __syncthreads();  // what an earlier call left has been read
        if (threadIdx.x % kWarpThreads == 0) warps[threadIdx.x / kWarpThreads] = value;
        __syncthreads();
        value = warps[0];
        for (int i = 1; i < kGroup / kWarpThreads; ++i) value = function(value, warps[i]);
    }
    return value;
}

// `lane` counts the threads of the group that has this row.
template <class T, int kGroup>
__device__ __forceinline__ void row(T* __restrict__ dlogits, double* __restrict__ stats, const T* __restrict__ logits,
                                    uint32_t label, float scale, int classes, int lane) {
    // A label that is no class: NaN, so that it cannot go unnoticed, and nothing read outside the row.
    const bool known = label < static_cast<uint32_t>(classes);
    const int own_class = known ? static_cast<int>(label) : 0;
    const float own = known ? to_float(logits[own_class]) : NAN;
    float max = -INFINITY;
    for (int i = lane; i < classes; i += kGroup) max = Greater()(max, to_float(logits[i]));
    max = combine<kGroup>(max, Greater());
    float part = 0.0f;
    int before = 0;  // logits that rank before the label's
    for (int i = lane; i < classes; i += kGroup) {
        const float logit = to_float(logits[i]);
        part += expf(logit - max);
        const bool other = i != own_class;
        before += other && (logit > own || logit != logit || (i < own_class && logit == own));
    }
    const double sum = combine<kGroup>(static_cast<double>(part), Add());
    before = combine<kGroup>(before, Add());
    if (dlogits != nullptr) {
        const float factor = known ? static_cast<float>(scale / sum) : NAN;
        for (int i = lane; i < classes; i += kGroup) {
            const float share = __fmul_rn(expf(to_float(logits[i]) - max), factor);
            dlogits[i] = from_float<T>(i == own_class ? __fadd_rn(share, -scale) : share);
        }
    }
    if (lane == 0) {
        const bool counts = known && own == own;
        stats[0] = known ? log(sum) - (static_cast<double>(own) - static_cast<double>(max)) : NAN;
        stats[1] = counts && before < 1 ? 1.0 : 0.0;
        stats[2] = counts && before < 5 ? 1.0 : 0.0;
    }
}

template <class T>
__device__ __forceinline__ void rows(T* dlogits, double* stats, const T* logits, const uint32_t* labels,
                                     const int32_t* num_images, int max_images, int classes, int block_rows) {
    const int64_t images = images_of(num_images, max_images);
    const float scale = 1.0f / static_cast<float>(images);
    const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
    const int64_t image = static_cast<int64_t>(blockIdx.x) * block_rows + (block_rows > 1 ? warp : 0);
    if (image >= images) return;
    const int64_t first = image * classes;
    T* const slopes = dlogits == nullptr ? nullptr : dlogits + first;
    if (block_rows > 1) {
        const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
        row<T, kWarpThreads>(slopes, stats + 3 * image, logits + first, labels[image], scale, classes, lane);
    } else {
        const int lane = static_cast<int>(threadIdx.x);
        row<T, kThreads>(slopes, stats + 3 * image, logits + first, labels[image], scale, classes, lane);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    softmax_xent_rows_f32(float* dlogits, double* rows_stats, const float* logits, const uint32_t* labels,
                          const int32_t* num_images, int max_images, int classes, int block_rows) {
    rows(dlogits, rows_stats, logits, labels, num_images, max_images, classes, block_rows);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    softmax_xent_rows_bf16(__nv_bfloat16* dlogits, double* rows_stats, const __nv_bfloat16* logits,
                           const uint32_t* labels, const int32_t* num_images, int max_images, int classes,
                           int block_rows) {
    rows(dlogits, rows_stats, logits, labels, num_images, max_images, classes, block_rows);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    softmax_xent_sum_f64(double* stats, const double* __restrict__ rows_stats, const int32_t* num_images,
                         int max_images) {
    const int64_t images = images_of(num_images, max_images);
    double sums[3] = {};
    for (int64_t image = threadIdx.x; image < images; image += kThreads) {
#pragma unroll
        for (int i = 0; i < 3; ++i) sums[i] += rows_stats[3 * image + i];
    }
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const double sum = combine<kThreads>(sums[i], Add());
        if (threadIdx.x == 0 && images > 0) stats[i] += sum;
    }
}
