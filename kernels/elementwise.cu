// elementwise.cu: sum += term; and the segments of a flat vector, rounded, to aligned places
//
// Role       add: joins the gradients of branches. pack: the filters as the convolutions read them, from the parameters
// Shapes     sum, term: [images, per_image]; from, to: flat; segments: [num_segments, 3], each its start in `from`, its
//            start in `to` and its length, in elements, not meeting in `to`; contiguous, not overlapping
// Types      f32 or bf16, added in f32; pack from f32
// Launch     add: 1-D grid-stride loop, any block size, in packs of 16 bytes if `packs`. pack: 256 threads, as many
//            blocks as fit on the device, which share all segments in chunks; static shared memory 8 KiB; barriers, no
//            atomics
// Cost       add: 3 elements of memory an element, 1 FLOP. pack: 4 bytes read and an element written. Bound by memory
//            bandwidth
// See        src/ops/elementwise/, tests/kernels/elementwise.rs

#include "common.cuh"

template <class T>
__device__ __forceinline__ void add(T* __restrict__ sum, const T* __restrict__ term, const int32_t* num_images,
                                    int max_images, int64_t per_image, int packs) {
    const int64_t numel = images_of(num_images, max_images) * per_image;
    const int64_t num_packs = packs ? numel / Pack<T>::kLen : 0;
#pragma unroll 2
    for (int64_t i = global_thread_index(); i < num_packs; i += grid_stride()) {
        Pack<T> a = load_pack(sum + i * Pack<T>::kLen);
        const Pack<T> b = load_pack(term + i * Pack<T>::kLen);
#pragma unroll
        for (int j = 0; j < Pack<T>::kLen; ++j) a.at[j] = from_float<T>(to_float(a.at[j]) + to_float(b.at[j]));
        store_pack(sum + i * Pack<T>::kLen, a);
    }
    for (int64_t i = num_packs * Pack<T>::kLen + global_thread_index(); i < numel; i += grid_stride()) {
        sum[i] = from_float<T>(to_float(sum[i]) + to_float(term[i]));
    }
}

extern "C" __global__ void elementwise_add_f32(float* sum, const float* term, const int32_t* num_images, int max_images,
                                               int64_t per_image, int packs) {
    add(sum, term, num_images, max_images, per_image, packs);
}

extern "C" __global__ void elementwise_add_bf16(__nv_bfloat16* sum, const __nv_bfloat16* term,
                                                const int32_t* num_images, int max_images, int64_t per_image,
                                                int packs) {
    add(sum, term, num_images, max_images, per_image, packs);
}

constexpr int kPackThreads = 256;

// Elements of a thread that are loaded together.
constexpr int kAtOnce = 8;

// Elements that a block copies before it looks for its next ones. src/ops/elementwise/cuda.rs has the same number.
constexpr int kChunkLen = kPackThreads * kAtOnce;

// Segments that a block looks at together.
constexpr int kSegmentsAtOnce = 1024;

// Chunks of all segments are numbered through, so that blocks get equal shares however long the segments are.
template <class T>
__device__ __forceinline__ void pack(T* __restrict__ to, const float* __restrict__ from,
                                     const int64_t* __restrict__ segments, int64_t num_segments, int64_t from_len,
                                     int64_t to_len) {
    __shared__ int64_t ends[kSegmentsAtOnce];  // chunks of the segments up to this one
    const int thread = static_cast<int>(threadIdx.x);
    int64_t turn = blockIdx.x;  // this block's next chunk, counted from the first of these segments
    for (int64_t first = 0; first < num_segments; first += kSegmentsAtOnce) {
        const int num = static_cast<int>(min(num_segments - first, static_cast<int64_t>(kSegmentsAtOnce)));
        for (int i = thread; i < num; i += kPackThreads) {
            const int64_t* const segment = segments + 3 * (first + i);
            const int64_t source = segment[0];
            const int64_t target = segment[1];
            const int64_t len = segment[2];
            const bool inside = source >= 0 && target >= 0 && len >= 0 && len <= from_len && len <= to_len &&
                                source <= from_len - len && target <= to_len - len;
            ends[i] = inside ? (len + kChunkLen - 1) / kChunkLen : 0;
        }
        __syncthreads();
        // An inclusive sum in place: each step adds what lies `step` before.
        for (int step = 1; step < num; step *= 2) {
            int64_t before[kSegmentsAtOnce / kPackThreads];
#pragma unroll
            for (int j = 0; j < kSegmentsAtOnce / kPackThreads; ++j) {
                const int i = thread + j * kPackThreads;
                before[j] = i < num && i >= step ? ends[i - step] : 0;
            }
            __syncthreads();
#pragma unroll
            for (int j = 0; j < kSegmentsAtOnce / kPackThreads; ++j) {
                const int i = thread + j * kPackThreads;
                if (i < num) ends[i] += before[j];
            }
            __syncthreads();
        }
        const int64_t chunks = ends[num - 1];
        for (; turn < chunks; turn += gridDim.x) {
            int low = 0;  // the first segment that ends beyond `turn`
            for (int high = num - 1; low < high;) {
                const int middle = (low + high) / 2;
                if (ends[middle] > turn) {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
            const int64_t* const segment = segments + 3 * (first + low);
            const int64_t start = (turn - (low > 0 ? ends[low - 1] : 0)) * kChunkLen;
            const int len = static_cast<int>(min(segment[2] - start, static_cast<int64_t>(kChunkLen)));
            const float* const source = from + segment[0] + start;
            T* const target = to + segment[1] + start;
            float values[kAtOnce];
#pragma unroll
            for (int j = 0; j < kAtOnce; ++j) {
                const int i = thread + j * kPackThreads;
                values[j] = i < len ? source[i] : 0.0f;
            }
#pragma unroll
            for (int j = 0; j < kAtOnce; ++j) {
                const int i = thread + j * kPackThreads;
                if (i < len) target[i] = from_float<T>(values[j]);
            }
        }
        turn -= chunks;
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(kPackThreads)
    elementwise_pack_f32(float* to, const float* from, const int64_t* segments, int64_t num_segments, int64_t from_len,
                         int64_t to_len) {
    pack(to, from, segments, num_segments, from_len, to_len);
}

extern "C" __global__ void __launch_bounds__(kPackThreads)
    elementwise_pack_bf16(__nv_bfloat16* to, const float* from, const int64_t* segments, int64_t num_segments,
                          int64_t from_len, int64_t to_len) {
    pack(to, from, segments, num_segments, from_len, to_len);
}
