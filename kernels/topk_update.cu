// topk_update.cu: vector += weight * grad, and in the same pass what a selection and its gate need of the sum
//
// Role       the pass of error feedback over the whole gradient: residual becomes the compensated gradient p
// Shapes     vector, grad: [numel]; chunk_*: [chunks]; chunk_counts: [chunks, 4]; candidates: room_start[chunks] keys;
//            histograms: [large groups, 2^11], zeros before and after a selection
// Types      f32 in and out, product and sum rounded apart as on the CPU; squares and their sums f64, in a fixed order
// Launch     one block of 256 threads a chunk, 128 bytes in flight a thread
// Cost       12 * numel bytes, about 20 instructions an element, 3 of them f64: bound by memory bandwidth. Only keys strictly
//            inside the bracket (about 1 %) are written again and counted in global memory, so that a plateau on one of
//            its ends costs nothing.
// See        src/compress/cuda/accumulate.rs, src/compress/scan.rs, tests/kernels/topk.rs

#include "topk.cuh"

// What a thread finds in its part of a strip.
struct Tally {
    double sq[2];
    double above_sq;
    // Two counts to a word, no more than 2^13 each in a strip: elements above, and from an end of the bracket on.
    uint32_t high_counts;
    uint32_t low_counts;
    uint32_t inside;  // bit 4 * j + e: element e of pack j lies strictly inside
    int largest;
};

// Updates the elements [begin, end) of a strip; with kWhole that is all of it, and aligned.
template <bool kWhole>
__device__ __forceinline__ void update_strip(Tally& tally, float* to, const float* from, int begin, int end, float weight,
                                             int low, int high, bool is_aligned) {
    constexpr int kAtOnce = kWhole ? 4 : 2;
#pragma unroll 1
    for (int first = 0; first < kPacks; first += kAtOnce) {
        Pack<float> x[kAtOnce];
        Pack<float> g[kAtOnce];
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
            const int i = 4 * ((first + j) * kStripThreads + static_cast<int>(threadIdx.x));
            const bool whole = kWhole || (i >= begin && i + 4 <= end);
            if (whole) x[j] = load_four(to + i);
            if (whole && is_aligned) g[j] = load_four(from + i);
            if constexpr (!kWhole) {
                if (whole && is_aligned) continue;
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const bool valid = i + e >= begin && i + e < end;
                    if (!whole) x[j].at[e] = valid ? to[i + e] : 0.0f;
                    g[j].at[e] = valid ? from[i + e] : 0.0f;
                }
            }
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
            const int i = 4 * ((first + j) * kStripThreads + static_cast<int>(threadIdx.x));
            const bool whole = kWhole || (i >= begin && i + 4 <= end);
#pragma unroll
            for (int e = 0; e < 4; ++e) x[j].at[e] = multiply_add(weight, g[j].at[e], x[j].at[e]);
            if (whole) store_four(to + i, x[j]);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const bool valid = kWhole || (i + e >= begin && i + e < end);
                if (!whole && valid) to[i + e] = x[j].at[e];
                // Below every bracket where there is no element.
                const int key = valid ? static_cast<int>(key_of(x[j].at[e])) : -1;
                const double value = valid ? static_cast<double>(x[j].at[e]) : 0.0;
                tally.sq[e % 2] += value * value;
                if (key > high) tally.above_sq += value * value;
                tally.high_counts += (key > high) + (key >= high ? 0x10000u : 0u);
                tally.low_counts += (key > low) + (key >= low ? 0x10000u : 0u);
                tally.inside |= static_cast<uint32_t>(key > low && key < high) << (4 * (first + j) + e);
                tally.largest = max(tally.largest, key);
            }
        }
    }
}

// Decides, from the counts of all its chunks, where in the group the search goes on.
__device__ void start_search(GroupState* state, unsigned int* histogram, unsigned long long kept) {
    const uint32_t low = __ldcg(&state->low);
    const uint32_t high = __ldcg(&state->high);
    const unsigned long long above = __ldcg(&state->at_least[0]);
    const unsigned long long from_high = __ldcg(&state->at_least[1]);
    const unsigned long long above_low = __ldcg(&state->at_least[2]);
    const unsigned long long from_low = __ldcg(&state->at_least[3]);
    const bool overflow = __ldcg(&state->overflow) != 0;
    const bool missed = above > kept || from_low < kept;
    const bool inside = !missed && from_high < kept && kept <= above_low;
    const bool at_low = !missed && above_low < kept;
    __syncthreads();
    if (threadIdx.x == 0) {
        state->rank = missed || overflow ? kept : kept - from_high;
        state->base = low;
        state->bits = bit_length(high - low);
        // The key lies on an end of the bracket. The low end needs the candidates too, for their squares.
        if (!missed && !inside) {
            state->base = at_low ? low : high;
            state->bits = 0;
        }
        state->in_vector = missed || (overflow && (inside || at_low));
        if (missed || (overflow && inside)) {
            state->base = 0;
            state->bits = 31;
        }
        for (int i = 0; i < 4; ++i) state->at_least[i] = 0;
        state->overflow = 0;
        state->arrived = 0;
    }
    __syncthreads();
    if (inside && !overflow) {
        narrow_search(state, histogram);
    } else {
        for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x) histogram[bin] = 0;
    }
}

// bad: the largest of ~index over all elements that are not finite, 0 if all are.
extern "C" __global__ void __launch_bounds__(kStripThreads, 4)
    topk_update_f32(float* vector, double* chunk_sq, double* chunk_above_sq, unsigned int* chunk_counts,
                    unsigned int* candidates, GroupState* states, unsigned int* histograms, unsigned long long* bad,
                    const float* grad, const int64_t* chunk_start, const int32_t* chunk_group, const int64_t* room_start,
                    const int32_t* group_slot, const int32_t* group_chunk, const int64_t* group_kept, float weight,
                    int grad_is_aligned) {
    const int chunk = blockIdx.x;
    const int64_t strip = chunk_start[chunk] / kStripLen * kStripLen;
    const int begin = static_cast<int>(chunk_start[chunk] - strip);
    const int end = static_cast<int>(chunk_start[chunk + 1] - strip);
    float* const to = vector + strip;
    const float* const from = grad + strip;
    const int group = chunk_group[chunk];
    const int slot = group_slot[group];
    GroupState* const state = states + group;
    // In a small group nothing is a candidate.
    const int low = slot < 0 ? static_cast<int>(kLargestFinite) : static_cast<int>(state->low);
    const int high = slot < 0 ? static_cast<int>(kLargestFinite) : static_cast<int>(state->high);

    Tally tally = {};
    if (begin == 0 && end == kStripLen && grad_is_aligned) {
        update_strip<true>(tally, to, from, begin, end, weight, low, high, true);
    } else {
        update_strip<false>(tally, to, from, begin, end, weight, low, high, grad_is_aligned != 0);
    }
    const bool not_finite = tally.largest > static_cast<int>(kLargestFinite);
    if (__syncthreads_or(not_finite)) {
        if (not_finite) {
#pragma unroll 1
            for (int at = 0; at < 4 * kPacks; ++at) {
                const int i = 4 * (at / 4 * kStripThreads + static_cast<int>(threadIdx.x)) + at % 4;
                if (i < begin || i >= end || key_of(to[i]) <= kLargestFinite) continue;
                atomicMax(bad, ~static_cast<unsigned long long>(strip + i));
            }
        }
    }
    const double all_sq = block_sum(tally.sq[0] + tally.sq[1]);
    if (slot < 0) {
        if (threadIdx.x == 0) chunk_sq[chunk] = all_sq;
        return;
    }
    const double all_above_sq = block_sum(tally.above_sq);
    const uint32_t high_counts = block_sum(tally.high_counts);
    const uint32_t low_counts = block_sum(tally.low_counts);
    if (threadIdx.x == 0) {
        const uint32_t counts[4] = {high_counts & 0xffff, high_counts >> 16, low_counts & 0xffff, low_counts >> 16};
        chunk_sq[chunk] = all_sq;
        chunk_above_sq[chunk] = all_above_sq;
        for (int i = 0; i < 4; ++i) {
            chunk_counts[4 * static_cast<int64_t>(chunk) + i] = counts[i];
            if (counts[i] != 0) atomicAdd(&state->at_least[i], static_cast<unsigned long long>(counts[i]));
        }
    }

    const int64_t room = room_start[chunk];
    const uint32_t count = low < high ? (low_counts & 0xffff) - (high_counts >> 16) : 0;
    unsigned int* const histogram = histograms + static_cast<int64_t>(slot) * kBins;
    if (count > room_start[chunk + 1] - room) {
        if (threadIdx.x == 0) atomicOr(&state->overflow, 1u);
    } else if (count > 0) {
        const uint32_t shift = bin_shift(bit_length(static_cast<uint32_t>(high - low)));
        uint32_t all;
        unsigned int* place = candidates + room + block_exclusive_sum(static_cast<uint32_t>(__popc(tally.inside)), &all);
        for (uint32_t inside = tally.inside; inside != 0; inside &= inside - 1) {
            const int bit = __ffs(static_cast<int>(inside)) - 1;
            const int pack = bit / 4 * kStripThreads + static_cast<int>(threadIdx.x);
            const uint32_t key = key_of(to[4 * pack + bit % 4]);
            *place++ = key;
            atomicAdd(histogram + ((key - static_cast<uint32_t>(low)) >> shift), 1u);
        }
    }
    const unsigned int chunks = static_cast<unsigned int>(group_chunk[group + 1] - group_chunk[group]);
    if (block_is_last(&state->arrived, 1, chunks)) {
        start_search(state, histogram, static_cast<unsigned long long>(group_kept[group]));
    }
}
