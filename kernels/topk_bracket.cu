// topk_bracket.cu: two keys between which the smallest kept one of each large group is expected, from a sample
//
// Role       first step of the top-k selection: a right guess saves passes over the vector; a wrong one costs only time
// Shapes     vector, grad: [numel]; states: [groups]; sample_keys: [samples]; histograms: [large groups, 2^11], zeros before
//            and after; tables with one entry per unit of 2048 samples of one group, or per large group
// Types      f32 in; keys u32 out; sampled are vector + weight * grad at the CPU's positions, with its roundings
// Launch     one block of 1024 threads a unit; the last block of a group selects two ranks among its keys, by radix
// Cost       64 bytes a sample, at most 2^15 samples a group: latency, about 10 us
// See        src/compress/cuda/accumulate.rs, src/compress/bracket.rs, tests/kernels/topk.rs

#include "topk.cuh"

constexpr int kThreads = 1024;
constexpr int kUnitSamples = 2048;
constexpr int kTopShift = 20;  // a key has 31 bits: 11, 10, 10
constexpr int kDigitBits = 10;
constexpr uint32_t kNoPrefix = 0xffffffffu;

// Position of the i-th sample among `len`: a golden-ratio sequence.
__device__ __forceinline__ int64_t sample_position(int i, int64_t len) {
    const unsigned long long fraction = (static_cast<unsigned long long>(i) + 1) * 0x9e3779b97f4a7c15ull;
    return static_cast<int64_t>(__umul64hi(fraction, static_cast<unsigned long long>(len)));
}

// ranks: per large group, the rank (from 1) of the low end and of the high end among its samples; 0 for an open end.
extern "C" __global__ void __launch_bounds__(kThreads)
    topk_bracket_f32(GroupState* states, unsigned int* sample_keys, unsigned int* histograms, const float* vector,
                     const float* grad, const int32_t* unit_slot, const int32_t* unit_first, const int32_t* slot_group,
                     const int32_t* slot_samples, const int32_t* slot_first_sample, const int32_t* ranks,
                     const int64_t* group_start, float weight) {
    __shared__ unsigned int bins[2][kBins];
    const int slot = unit_slot[blockIdx.x];
    const int first = unit_first[blockIdx.x];
    const int samples = slot_samples[slot];
    const int group = slot_group[slot];
    const int64_t start = group_start[group];
    const int64_t len = group_start[group + 1] - start;
    unsigned int* const keys = sample_keys + slot_first_sample[slot];
    unsigned int* const histogram = histograms + static_cast<int64_t>(slot) * kBins;

    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) bins[0][bin] = 0;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kUnitSamples / kThreads; ++j) {
        const int i = first + j * kThreads + static_cast<int>(threadIdx.x);
        if (i < samples) {
            const int64_t at = start + sample_position(i, len);
            const uint32_t key = key_of(multiply_add(weight, grad[at], vector[at]));
            keys[i] = key;
            atomicAdd(&bins[0][key >> kTopShift], 1u);
        }
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
        if (bins[0][bin] != 0) atomicAdd(histogram + bin, bins[0][bin]);
    }
    const unsigned int units = static_cast<unsigned int>((samples + kUnitSamples - 1) / kUnitSamples);
    if (!block_is_last(&states[group].arrived, 1, units)) return;

    uint32_t prefix[2] = {kNoPrefix, kNoPrefix};
    uint64_t rank[2] = {0, 0};
    for (int end = 0; end < 2; ++end) {
        const int wanted = ranks[2 * slot + end];
        if (wanted == 0) continue;
        const Place place =
            find_bin([&](int bin) { return __ldcg(histogram + bin); }, static_cast<uint64_t>(wanted));
        prefix[end] = place.bin;
        rank[end] = place.rank;
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) histogram[bin] = 0;
    for (int shift = kTopShift - kDigitBits; shift >= 0; shift -= kDigitBits) {
        for (int bin = threadIdx.x; bin < kBins; bin += kThreads) bins[0][bin] = bins[1][bin] = 0;
        __syncthreads();
#pragma unroll 4
        for (int i = threadIdx.x; i < samples; i += kThreads) {
            const uint32_t key = __ldcg(keys + i);
            const uint32_t digit = (key >> shift) & ((1u << kDigitBits) - 1);
            if (key >> (shift + kDigitBits) == prefix[0]) atomicAdd(&bins[0][digit], 1u);
            if (key >> (shift + kDigitBits) == prefix[1]) atomicAdd(&bins[1][digit], 1u);
        }
        __syncthreads();
        for (int end = 0; end < 2; ++end) {
            if (prefix[end] == kNoPrefix) continue;
            const Place place = find_bin([&](int bin) { return bins[end][bin]; }, rank[end]);
            prefix[end] = prefix[end] << kDigitBits | place.bin;
            rank[end] = place.rank;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        GroupState* const state = states + group;
        // A sample that is not finite must not hide numbers that are: the next pass reports it.
        state->low = prefix[0] == kNoPrefix ? 0 : min(prefix[0], kLargestFinite);
        state->high = prefix[1] == kNoPrefix ? kLargestFinite : min(prefix[1], kLargestFinite);
        state->arrived = 0;
    }
}
