// topk_pack.cu: the kept elements of a vector as positions and values, and in the vector what was not sent
//
// Role       the sending half of error feedback: sent + residual == p, bit for bit
// Shapes     vector: [numel]; positions, values: [kept], ascending; a position counts from the start of its payload block of
//            2^16 elements
// Types      f32 in; values f32 as the receiver decodes them (rounded to bf16 where `to_bf16`, at most the largest finite
//            one), positions u16; the vector keeps p minus the value, exactly, or 0 everywhere with `drop_remainder`
// Launch     one block of 256 threads a strip of 2^13 elements; 128 bytes in flight a thread; returns at once where nothing
//            is kept
// Cost       reads 4 * numel bytes, writes the sectors of kept elements (57 % of them at density 0.1) and 6 * kept bytes
// See        src/compress/cuda/payload.rs, src/compress/pack.rs, tests/kernels/topk.rs

#include "topk.cuh"

constexpr int kBlockLen = 1 << 16;
constexpr int kWords = kStripLen / 32;
static_assert(kWords == kStripThreads, "each thread counts the bits of one word");

// One bit per element of a strip, and in `before` how many there are before each word of them. `nibble(j)` are the bits of
// this thread's pack j. All threads call it; returns the number of bits.
struct StripBits {
    uint32_t words[kWords];
    uint32_t before[kWords];
};

template <class Nibble>
__device__ __forceinline__ uint32_t write_bits(StripBits* bits, Nibble nibble) {
    unsigned char* const bytes = reinterpret_cast<unsigned char*>(bits->words);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
        const uint32_t next = __shfl_down_sync(0xffffffffu, nibble(j), 1);
        if (threadIdx.x % 2 == 0) {
            bytes[(j * kStripThreads + threadIdx.x) / 2] = static_cast<unsigned char>(nibble(j) | next << 4);
        }
    }
    __syncthreads();
    uint32_t all;
    const uint32_t before = block_exclusive_sum(static_cast<uint32_t>(__popc(bits->words[threadIdx.x])), &all);
    bits->before[threadIdx.x] = before;
    __syncthreads();
    return all;
}

// Bits before pack j of this thread.
__device__ __forceinline__ uint32_t bits_before(const StripBits& bits, int j) {
    const int word = (j * kStripThreads + static_cast<int>(threadIdx.x)) / 8;
    const uint32_t below = (1u << (4 * (threadIdx.x % 8))) - 1;
    return bits.before[word] + __popc(bits.words[word] & below);
}

__device__ __forceinline__ float round_to_bf16(float x) {
    const float rounded = to_float(from_float<__nv_bfloat16>(x));
    const bool overflow = key_of(rounded) > kLargestFinite;
    return overflow ? __uint_as_float(0x7f7f0000u | (__float_as_uint(x) & 0x80000000u)) : rounded;
}

extern "C" __global__ void __launch_bounds__(kStripThreads, 3)
    topk_pack_f32(float* vector, uint16_t* positions, float* values, const unsigned int* cut_smallest,
                  const unsigned int* cut_ties, const int64_t* chunk_first, const int64_t* chunk_start,
                  const int32_t* strip_chunk, int64_t numel, int to_bf16, int drop_remainder) {
    __shared__ StripBits bits;
    const int64_t strip = static_cast<int64_t>(blockIdx.x) * kStripLen;
    const int chunk_begin = strip_chunk[blockIdx.x];
    const int chunk_end = strip_chunk[blockIdx.x + 1];
    const int64_t first = chunk_first[chunk_begin];
    if (chunk_first[chunk_end] == first && !drop_remainder) return;

    float* const from = vector + strip;
    const int len = static_cast<int>(min(static_cast<int64_t>(kStripLen), numel - strip));
    Pack<float> x[kPacks];
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
        const int at = 4 * (j * kStripThreads + static_cast<int>(threadIdx.x));
        x[j] = Pack<float>{};
        if (at < len) x[j] = load_four(from + at);  // the vector has room for whole packs
    }
    uint32_t kept = 0;  // bit 4 * j + e: element e of pack j
    for (int chunk = chunk_begin; chunk < chunk_end; ++chunk) {
        const int begin = static_cast<int>(chunk_start[chunk] - strip);
        const int end = static_cast<int>(chunk_start[chunk + 1] - strip);
        const uint32_t smallest = cut_smallest[chunk];
        const uint32_t some_ties = cut_ties[chunk];
        uint32_t above = 0;
        uint32_t equal = 0;
#pragma unroll
        for (int j = 0; j < kPacks; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int at = 4 * (j * kStripThreads + static_cast<int>(threadIdx.x)) + e;
                const uint32_t here = at >= begin && at < end;
                // With some ties kept, `smallest` is the tied key itself.
                const uint32_t key = key_of(x[j].at[e]);
                above |= (here & (some_ties ? key > smallest : key >= smallest)) << (4 * j + e);
                equal |= (here & (key == smallest)) << (4 * j + e);
            }
        }
        if (some_ties != 0) {
            write_bits(&bits, [&](int j) { return equal >> (4 * j) & 0xf; });
#pragma unroll
            for (int j = 0; j < kPacks; ++j) {
                uint32_t rank = bits_before(bits, j);
                for (uint32_t left = equal >> (4 * j) & 0xf; left != 0 && rank < some_ties; left &= left - 1, ++rank) {
                    above |= (left & (~left + 1)) << (4 * j);
                }
            }
        }
        kept |= above;
    }
    write_bits(&bits, [&](int j) { return kept >> (4 * j) & 0xf; });
    const int in_block = static_cast<int>(strip % kBlockLen);
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
        const int at = 4 * (j * kStripThreads + static_cast<int>(threadIdx.x));
        if (at >= len) continue;
        int64_t to = first + bits_before(bits, j);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const bool is_kept = kept >> (4 * j + e) & 1;
            if (is_kept) {
                const float sent = to_bf16 ? round_to_bf16(x[j].at[e]) : x[j].at[e];
                positions[to] = static_cast<uint16_t>(in_block + at + e);
                values[to++] = sent;
                x[j].at[e] = __fsub_rn(x[j].at[e], sent);
            }
            if (drop_remainder) x[j].at[e] = 0.0f;
        }
        if (drop_remainder || (kept >> (4 * j) & 0xf) != 0) store_four(from + at, x[j]);
    }
}
