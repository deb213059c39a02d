// topk_pack.cu: the kept elements of a vector as positions and values
//
// Role       the sending half of error feedback; the vector stays whole until it is known that they are sent (coding_add_f32
//            subtracts them then, so that sent + residual == p, bit for bit)
// Shapes     vector: [numel]; positions, values: [kept], ascending; a position counts from the start of its payload block of
//            2^16 elements
// Types      f32 in; values f32 as the receiver decodes them (rounded to bf16 where `to_bf16`, at most the largest finite
//            one), positions u16
// Launch     one block of 256 threads a strip of 2^13 elements; 128 bytes in flight a thread; returns at once where nothing
//            is kept
// Cost       reads 4 * numel bytes, writes 6 * kept bytes
// See        src/compress/cuda/payload.rs, src/compress/pack.rs, tests/kernels/topk.rs

#include "topk.cuh"

constexpr int kBlockLen = 1 << 16;
constexpr int kWords = kStripLen / 32;
static_assert(kWords == kStripThreads, "each thread counts the bits of one word");

// One bit per element of a strip, and how many there are before each word of them.
struct StripBits {
    uint32_t words[kWords];
    uint32_t before[kWords];
};

// Fills it; `nibble(j)` are the bits of this thread's pack j. All threads call it.
template <class Nibble>
__device__ __forceinline__ void write_bits(StripBits* bits, Nibble nibble) {
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
    bits->before[threadIdx.x] = block_exclusive_sum(static_cast<uint32_t>(__popc(bits->words[threadIdx.x])), &all);
    __syncthreads();
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

// Bits of the elements whose key is at least `least`: bit 4 * j + e for element e of pack j.
__device__ __forceinline__ uint32_t bits_from(const Pack<float> (&x)[kPacks], uint32_t least) {
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) bits |= static_cast<uint32_t>(key_of(x[j].at[e]) >= least) << (4 * j + e);
    }
    return bits;
}

// Bits of the elements [begin, end) of the strip.
__device__ __forceinline__ uint32_t bits_of_range(int begin, int end) {
    uint32_t bits = 0;
#pragma unroll 1
    for (int j = 0; j < kPacks; ++j) {
        const int at = 4 * (j * kStripThreads + static_cast<int>(threadIdx.x));
        const int from = min(max(begin - at, 0), 4);
        const int to = min(max(end - at, 0), 4);
        bits |= ((1u << to) - (1u << min(from, to))) << (4 * j);
    }
    return bits;
}

// The first `count` of the bits of the strip that `bits` holds of this thread. All threads call it.
__device__ __forceinline__ uint32_t first_bits(StripBits* strip_bits, uint32_t bits, uint32_t count) {
    write_bits(strip_bits, [&](int j) { return bits >> (4 * j) & 0xf; });
    uint32_t first = 0;
#pragma unroll 1
    for (int j = 0; j < kPacks; ++j) {
        uint32_t rank = bits_before(*strip_bits, j);
        for (uint32_t left = bits >> (4 * j) & 0xf; left != 0 && rank < count; left &= left - 1, ++rank) {
            first |= (left & (~left + 1)) << (4 * j);
        }
    }
    return first;
}

extern "C" __global__ void __launch_bounds__(kStripThreads, 3)
    topk_pack_f32(uint16_t* positions, float* values, const float* vector, const unsigned int* cut_smallest,
                  const unsigned int* cut_ties, const int64_t* chunk_first, const int64_t* chunk_start,
                  const int32_t* strip_chunk, int64_t numel, int to_bf16) {
    __shared__ StripBits bits;
    const int64_t strip = static_cast<int64_t>(blockIdx.x) * kStripLen;
    const int chunk_begin = strip_chunk[blockIdx.x];
    const int chunk_end = strip_chunk[blockIdx.x + 1];
    const int64_t first = chunk_first[chunk_begin];
    if (chunk_first[chunk_end] == first) return;

    const float* const from = vector + strip;
    const int len = static_cast<int>(min(static_cast<int64_t>(kStripLen), numel - strip));
    Pack<float> x[kPacks];
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
        const int at = 4 * (j * kStripThreads + static_cast<int>(threadIdx.x));
        x[j] = Pack<float>{};
        if (at < len) x[j] = load_four(from + at);  // the vector has room for whole packs
    }
    uint32_t kept = 0;
    for (int chunk = chunk_begin; chunk < chunk_end; ++chunk) {
        if (chunk_first[chunk] == chunk_first[chunk + 1]) continue;
        const uint32_t smallest = cut_smallest[chunk];
        const uint32_t ties = cut_ties[chunk];
        const bool is_strip = chunk_end - chunk_begin == 1;
        const uint32_t here = is_strip && len == kStripLen ? 0xffffffffu
                                                           : bits_of_range(static_cast<int>(chunk_start[chunk] - strip),
                                                                           static_cast<int>(chunk_start[chunk + 1] - strip));
        // With some ties kept, `smallest` is the tied key itself.
        const uint32_t above = bits_from(x, smallest + (ties != 0)) & here;
        kept |= above;
        if (ties != 0) kept |= first_bits(&bits, bits_from(x, smallest) & here & ~above, ties);
    }
    write_bits(&bits, [&](int j) { return kept >> (4 * j) & 0xf; });
    uint16_t* const to_position = positions + first;
    float* const to_value = values + first;
    const int in_block = static_cast<int>(blockIdx.x) % (kBlockLen / kStripLen) * kStripLen;
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
        const int at = 4 * (j * kStripThreads + static_cast<int>(threadIdx.x));
        const uint32_t nibble = kept >> (4 * j) & 0xf;
        if (at >= len || nibble == 0) continue;
        uint32_t to = bits_before(bits, j);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            if (nibble >> e & 1) {
                to_position[to] = static_cast<uint16_t>(in_block + at + e);
                to_value[to] = to_bf16 ? round_to_bf16(x[j].at[e]) : x[j].at[e];
                ++to;
            }
        }
    }
}
