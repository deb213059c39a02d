// topk.cuh: what the passes of the top-k selection share
//
// The vector is cut into strips of kStripLen elements and the strips, where tiles (src/compress/plan.rs) meet, into
// chunks: a chunk is part of one tile, so of one group, which is the range of one selection. A key is the bit pattern of
// |x|, which orders like |x|; the selection of a group is the search for the key of its K-th largest element. Groups of up
// to 2^14 elements are small: they are selected without a guess (topk_small_f32).
#pragma once

#include <cstdint>

#include "block.cuh"
#include "common.cuh"

constexpr int kStripLen = 8192;
constexpr int kStripThreads = 256;
// Packs of four elements that each of these threads has of a strip: pack j of thread t is number 256 * j + t.
constexpr int kPacks = kStripLen / 4 / kStripThreads;
// Candidates that a chunk may leave, see topk_update_f32.
constexpr int kMaxCandidates = 1024;
constexpr int kBinBits = 11;
constexpr int kBins = 1 << kBinBits;
constexpr uint32_t kLargestFinite = 0x7f7fffffu;

// The search in one group: between launches, and for the blocks of one launch to meet.
struct GroupState {
    uint64_t rank;      // the key wanted is the rank-th largest (from 1) of those ...
    uint32_t base;      // ... from `base` on, below base + 2^bits; it is `base` itself once `bits` is 0
    uint32_t bits;
    uint32_t low;       // bracket in which the key is expected, ends included
    uint32_t high;
    uint32_t in_vector;  // whether the keys to search are those of the vector, because the candidates are not enough
    uint32_t overflow;   // a chunk had no room for its candidates; 0 between launches
    uint32_t arrived;    // 0 between launches
    uint32_t unused;
    unsigned long long at_least[4];  // elements above high, from high on, above low, from low on; 0 between launches
};

static_assert(sizeof(GroupState) == 72, "src/compress/cuda/accumulate.rs allocates 9 words of 8 bytes a group");

__device__ __forceinline__ uint32_t key_of(float x) { return __float_as_uint(x) & 0x7fffffffu; }

__device__ __forceinline__ double square_of_key(uint32_t key) {
    const double x = static_cast<double>(__uint_as_float(key));
    return x * x;
}

// Bits of a number: 0 for 0.
__device__ __forceinline__ uint32_t bit_length(uint32_t x) { return 32 - __clz(static_cast<int>(x)); }

// The bin of a key in a search that has `bits` open; keys outside are not asked for.
__device__ __forceinline__ uint32_t bin_shift(uint32_t bits) { return bits > kBinBits ? bits - kBinBits : 0; }

// Where the rank-th largest (from 1) of what `count` counts per bin lies; the same answer in every thread.
struct Place {
    uint32_t bin;
    uint64_t rank;  // inside the bin
};

template <class Count>
__device__ __forceinline__ Place find_bin(Count count, uint64_t rank) {
    __shared__ Place place;
    const int per_thread = kBins / static_cast<int>(blockDim.x);
    const int top = kBins - 1 - static_cast<int>(threadIdx.x) * per_thread;
    if (threadIdx.x == 0) place = Place{0, 1};  // what stays if numbers that are not finite hide the rank
    unsigned long long own = 0;
    for (int i = 0; i < per_thread; ++i) own += count(top - i);
    unsigned long long all;
    unsigned long long before = block_exclusive_sum(own, &all);
    if (before < rank && rank <= before + own) {
        int bin = top;
        for (unsigned long long here = count(bin); before + here < rank; here = count(bin)) {
            before += here;
            --bin;
        }
        place = Place{static_cast<uint32_t>(bin), rank - before};
    }
    __syncthreads();
    const Place found = place;
    __syncthreads();
    return found;
}

// Narrows the search of a group to one bin of `histogram`, which holds zeros afterwards. All threads of a block call it.
__device__ __forceinline__ void narrow_search(GroupState* state, unsigned int* histogram) {
    const uint32_t shift = bin_shift(state->bits);
    const Place place = find_bin([&](int bin) { return __ldcg(histogram + bin); }, state->rank);
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x) histogram[bin] = 0;
    if (threadIdx.x == 0) {
        state->base += place.bin << shift;
        state->rank = place.rank;
        state->bits = shift;
    }
    __syncthreads();
}

// Four elements at once, where they are aligned.
__device__ __forceinline__ Pack<float> load_four(const float* from) { return *reinterpret_cast<const Pack<float>*>(from); }

__device__ __forceinline__ void store_four(float* to, const Pack<float>& pack) {
    *reinterpret_cast<Pack<float>*>(to) = pack;
}
