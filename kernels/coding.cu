// coding.cu: positions and values to the bytes of a payload (src/compress/coding/mod.rs), and back, and added to a vector
//
// Role       what a device sends and receives in a compressed step; payload blocks are independent of each other
// Shapes     positions, values: [kept]; first: kept elements before each payload block of 2^16 elements, or before each chunk
//            where block_chunk names the chunk a block begins with; heads: [blocks, 3]: kept, whether a bitmap, index bytes;
//            offsets: where each block begins in `bytes`
// Types      positions u16 inside the block, values f32; in the bytes f32 or, with `is_bf16`, bf16, which the values hold
//            exactly; sums f32, added to: every element is added to at most once
// Launch     one block of 256 threads a payload block; integer scans, no atomics in global memory but the error flag
// Cost       measure 2 * kept bytes, write and read twice the payload, add 14 * kept bytes, more where sectors hold one
// See        src/compress/cuda/payload.rs, src/compress/cuda/decode.rs, src/compress/coding/, tests/kernels/coding.rs

#include "block.cuh"
#include "common.cuh"

constexpr int kThreads = 256;
constexpr int kBlockLen = 1 << 16;
constexpr int kPerThread = 8;
constexpr int kAtOnce = kThreads * kPerThread;
constexpr int kBitmapWords = kBlockLen / 32;
constexpr int kVarintBytes = 3;
constexpr uint32_t kLargestFinite = 0x7f7fffffu;

__device__ __forceinline__ int64_t first_of_block(const int64_t* first, const int32_t* block_chunk, int64_t block) {
    return first[block_chunk == nullptr ? block : block_chunk[block]];
}

__device__ __forceinline__ int len_of_block(int64_t block, int64_t numel) {
    return static_cast<int>(min(static_cast<int64_t>(kBlockLen), numel - block * kBlockLen));
}

// Elements between the i-th position of a block and the one before.
__device__ __forceinline__ uint32_t gap_before(const uint16_t* positions, int i) {
    return i == 0 ? positions[0] : positions[i] - positions[i - 1] - 1;
}

__device__ __forceinline__ int varint_bytes(uint32_t value) { return 1 + (value >= 1u << 7) + (value >= 1u << 14); }

extern "C" __global__ void __launch_bounds__(kThreads)
    coding_measure(unsigned int* heads, const uint16_t* positions, const int64_t* first, const int32_t* block_chunk,
                   int64_t numel, int may_be_gaps, int may_be_bitmap) {
    const int64_t block = blockIdx.x;
    const int64_t begin = first_of_block(first, block_chunk, block);
    const int kept = static_cast<int>(first_of_block(first, block_chunk, block + 1) - begin);
    int bytes = 0;
    for (int i = threadIdx.x; i < kept; i += kThreads) bytes += varint_bytes(gap_before(positions + begin, i));
    bytes = block_sum(bytes);
    const int bitmap_bytes = (len_of_block(block, numel) + 7) / 8;
    const bool bitmap = kept > 0 && may_be_bitmap && (!may_be_gaps || bitmap_bytes < bytes);
    if (threadIdx.x == 0) {
        heads[3 * block] = kept;
        heads[3 * block + 1] = bitmap;
        heads[3 * block + 2] = bitmap ? bitmap_bytes : bytes;
    }
}

__device__ void write_bitmap(unsigned char* bytes, const uint16_t* positions, int kept, int index_bytes) {
    __shared__ unsigned int words[kBitmapWords];
    for (int word = threadIdx.x; word < kBitmapWords; word += kThreads) words[word] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < kept; i += kThreads) atomicOr(words + positions[i] / 32, 1u << (positions[i] % 32));
    __syncthreads();
    for (int i = threadIdx.x; i < index_bytes; i += kThreads) {
        bytes[i] = static_cast<unsigned char>(words[i / 4] >> (8 * (i % 4)));
    }
}

__device__ void write_gaps(unsigned char* bytes, const uint16_t* positions, int kept) {
    __shared__ unsigned char staged[kAtOnce * kVarintBytes];
    for (int done = 0; done < kept; done += kAtOnce) {
        const int begin = done + static_cast<int>(threadIdx.x) * kPerThread;
        const int end = min(kept, begin + kPerThread);
        int own = 0;
        for (int i = begin; i < end; ++i) own += varint_bytes(gap_before(positions, i));
        int all;
        int to = block_exclusive_sum(own, &all);
        for (int i = begin; i < end; ++i) {
            uint32_t gap = gap_before(positions, i);
            for (; gap >= 0x80; gap >>= 7) staged[to++] = static_cast<unsigned char>(gap | 0x80);
            staged[to++] = static_cast<unsigned char>(gap);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < all; i += kThreads) bytes[i] = staged[i];
        __syncthreads();
        bytes += all;
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    coding_write(unsigned char* bytes, const int64_t* offsets, const unsigned int* heads, const uint16_t* positions,
                 const float* values, const int64_t* first, const int32_t* block_chunk, int is_bf16) {
    const int64_t block = blockIdx.x;
    const int kept = static_cast<int>(heads[3 * block]);
    const int index_bytes = static_cast<int>(heads[3 * block + 2]);
    if (kept == 0) return;
    const int64_t begin = first_of_block(first, block_chunk, block);
    unsigned char* const to = bytes + offsets[block];
    if (heads[3 * block + 1] != 0) {
        write_bitmap(to, positions + begin, kept, index_bytes);
    } else {
        write_gaps(to, positions + begin, kept);
    }
    const int width = is_bf16 ? 2 : 4;
    for (int i = threadIdx.x; i < kept * width; i += kThreads) {
        const uint32_t value = __float_as_uint(values[begin + i / width]) >> (is_bf16 ? 16 : 0);
        to[index_bytes + i] = static_cast<unsigned char>(value >> (8 * (i % width)));
    }
}

// False if the bitmap has another number of bits or one outside the block.
__device__ bool read_bitmap(uint16_t* positions, const unsigned char* bytes, int kept, int index_bytes, int len) {
    __shared__ unsigned char copy[kBlockLen / 8];
    for (int i = threadIdx.x; i < kBlockLen / 8; i += kThreads) copy[i] = i < index_bytes ? bytes[i] : 0;
    __syncthreads();
    constexpr int kOwn = kBlockLen / 8 / kThreads;
    const int begin = static_cast<int>(threadIdx.x) * kOwn;
    int own = 0;
    int largest = -1;
    for (int i = begin; i < begin + kOwn; ++i) {
        own += __popc(copy[i]);
        if (copy[i] != 0) largest = 8 * i + 31 - __clz(copy[i]);
    }
    int all;
    int to = block_exclusive_sum(own, &all);
    if (__syncthreads_or(largest >= len) || all != kept) return false;
    for (int i = begin; i < begin + kOwn; ++i) {
        for (unsigned int left = copy[i]; left != 0; left &= left - 1) {
            positions[to++] = static_cast<uint16_t>(8 * i + __ffs(static_cast<int>(left)) - 1);
        }
    }
    return true;
}

// False if the bytes are not `kept` varints in their shortest form that stay inside the block.
__device__ bool read_gaps(uint16_t* positions, const unsigned char* bytes, int kept, int index_bytes, int len) {
    // With the end of what came before, so that each varint is seen whole where it ends.
    __shared__ unsigned char staged[kVarintBytes + kAtOnce];
    constexpr int kSumBits = 40;  // 2^11 gaps below 2^21
    constexpr unsigned long long kSumMask = (1ull << kSumBits) - 1;
    int64_t num = 0;   // varints before
    int64_t next = 0;  // the smallest position that the next one can have
    bool valid = true;
    for (int done = 0; done < index_bytes; done += kAtOnce) {
        for (int i = threadIdx.x; i < kVarintBytes + kAtOnce; i += kThreads) {
            const int at = done - kVarintBytes + i;
            staged[i] = at >= 0 && at < index_bytes ? bytes[at] : 0;
        }
        __syncthreads();
        const int begin = static_cast<int>(threadIdx.x) * kPerThread;
        const int end = min(kPerThread, index_bytes - done - begin);
        uint32_t gaps[kPerThread];
        uint32_t ends = 0;  // bit i: a varint ends in byte i
        unsigned long long own = 0;
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            if (i >= end) continue;
            const unsigned char* const byte = staged + kVarintBytes + begin + i;
            const bool one_before = byte[-1] >= 0x80;
            const bool two_before = one_before && byte[-2] >= 0x80;
            if (byte[0] >= 0x80) {
                valid = valid && !two_before && done + begin + i + 1 < index_bytes;
                continue;
            }
            uint32_t gap = byte[0];
            if (one_before) gap = gap << 7 | (byte[-1] & 0x7f);
            if (two_before) gap = gap << 7 | (byte[-2] & 0x7f);
            valid = valid && !(one_before && byte[0] == 0);
            gaps[i] = gap;
            ends |= 1u << i;
            own += (1ull << kSumBits) + gap + 1;
        }
        unsigned long long all;
        const unsigned long long before = block_exclusive_sum(own, &all);
        int64_t rank = num + static_cast<int64_t>(before >> kSumBits);
        int64_t position = next + static_cast<int64_t>(before & kSumMask) - 1;
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            if ((ends >> i & 1) == 0) continue;
            position += gaps[i] + 1;
            valid = valid && rank < kept && position < len;
            if (valid) positions[rank] = static_cast<uint16_t>(position);
            ++rank;
        }
        num += static_cast<int64_t>(all >> kSumBits);
        next += static_cast<int64_t>(all & kSumMask);
        __syncthreads();
    }
    return !__syncthreads_or(!valid) && num == kept;
}

// Sets *invalid if anything in a block is not as it must be; positions and values are of no use then.
extern "C" __global__ void __launch_bounds__(kThreads)
    coding_read(uint16_t* positions, float* values, unsigned int* invalid, const unsigned char* bytes,
                const int64_t* offsets, const unsigned int* heads, const int64_t* first, int64_t numel, int is_bf16) {
    const int64_t block = blockIdx.x;
    const int kept = static_cast<int>(heads[3 * block]);
    const int index_bytes = static_cast<int>(heads[3 * block + 2]);
    if (kept == 0) return;
    const unsigned char* const from = bytes + offsets[block];
    const int len = len_of_block(block, numel);
    uint16_t* const to = positions + first[block];
    bool valid = heads[3 * block + 1] != 0 ? read_bitmap(to, from, kept, index_bytes, len)
                                           : read_gaps(to, from, kept, index_bytes, len);
    const int width = is_bf16 ? 2 : 4;
    for (int i = threadIdx.x; i < kept; i += kThreads) {
        const unsigned char* const byte = from + index_bytes + static_cast<int64_t>(i) * width;
        uint32_t value = 0;
        for (int j = width - 1; j >= 0; --j) value = value << 8 | byte[j];
        if (is_bf16) value <<= 16;
        valid = valid && (value & 0x7fffffffu) <= kLargestFinite;
        values[first[block] + i] = __uint_as_float(value);
    }
    if (__syncthreads_or(!valid) && threadIdx.x == 0) atomicOr(invalid, 1u);
}

// sum[block * 2^16 + positions[i]] += values[i], or -= with `subtract`, unless `invalid` is there and set.
extern "C" __global__ void __launch_bounds__(kThreads)
    coding_add_f32(float* sum, const uint16_t* positions, const float* values, const int64_t* first,
                   const int32_t* block_chunk, const unsigned int* invalid, int subtract) {
    if (invalid != nullptr && *invalid != 0) return;
    const int64_t block = blockIdx.x;
    const int64_t begin = first_of_block(first, block_chunk, block);
    const int64_t end = first_of_block(first, block_chunk, block + 1);
    float* const to = sum + block * kBlockLen;
#pragma unroll 4
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
        const int at = positions[i];
        to[at] = __fadd_rn(to[at], subtract ? -values[i] : values[i]);
    }
}
