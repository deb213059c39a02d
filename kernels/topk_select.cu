// topk_select.cu: the exact key of the K-th largest magnitude of each group, what of each chunk is kept, and the norms
//
// Role       second half of the top-k selection, after topk_update_f32 and before topk_pack_f32
// Shapes     vector: [numel]; chunk_*, cut_*: [chunks]; sums: [2, tiles], squares of all and of kept elements; counts:
//            [tiles + 3]: kept elements, then the word of topk_update_f32 for what is not finite, the bits of the gradient
//            and of the vector there, and the groups whose bracket was of no use
// Types      f32 in; keys and counts are integers, squares f64 in a fixed order: the same bits on every run
// Launch     narrow: 3 times, for what topk_update_f32 left open, blocks of 256 threads over ranges of chunks, that return at
//            once where the key is known. small: a block of 512 threads for each small group. cut: a warp a chunk, blocks of
//            1024 threads; the last block of a group gives its ties out in the order of indices
// Cost       narrow and cut read the candidates, about 4 % of 4 * numel bytes; where the bracket was of no use, each reads
//            the group's 4 * numel bytes (at worst 16 * numel in all)
// See        src/compress/cuda/accumulate.rs, src/compress/topk.rs, tests/kernels/topk.rs

#include "topk.cuh"

constexpr int kCutThreads = 1024;
constexpr int kSmallThreads = 512;
constexpr int kLoadsAtOnce = 4;

// Calls visit(key) for the elements of a chunk that `threads` threads share, of which this is number `thread`.
template <class Visit>
__device__ __forceinline__ void visit_keys(const float* vector, int64_t start, int64_t end, int thread, int threads,
                                           Visit visit) {
    const int64_t from = start / 4 * 4;
    for (int64_t first = from + 4 * thread; first < end; first += 4 * threads * kLoadsAtOnce) {
        Pack<float> x[kLoadsAtOnce];
#pragma unroll
        for (int j = 0; j < kLoadsAtOnce; ++j) {
            const int64_t i = first + 4 * j * threads;
            if (i < end) x[j] = load_four(vector + i);  // the vector has room for whole packs
        }
#pragma unroll
        for (int j = 0; j < kLoadsAtOnce; ++j) {
            const int64_t i = first + 4 * j * threads;
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                if (i + e >= start && i + e < end) visit(key_of(x[j].at[e]));
            }
        }
    }
}

__device__ __forceinline__ uint32_t num_candidates(const unsigned int* chunk_counts, int64_t chunk) {
    return chunk_counts[4 * chunk + 2] - chunk_counts[4 * chunk + 1];
}

extern "C" __global__ void __launch_bounds__(kStripThreads)
    topk_select_narrow_f32(GroupState* states, unsigned int* histograms, const float* vector,
                           const unsigned int* candidates, const unsigned int* chunk_counts, const int64_t* chunk_start,
                           const int32_t* chunk_group, const int64_t* room_start, const int32_t* group_slot,
                           const int32_t* group_chunk, int chunks, int chunks_per_block) {
    __shared__ unsigned int bins[kBins];
    const int last = min(chunks, static_cast<int>(blockIdx.x + 1) * chunks_per_block);
    int stop;
    for (int first = static_cast<int>(blockIdx.x) * chunks_per_block; first < last; first = stop) {
        const int group = chunk_group[first];
        stop = min(last, group_chunk[group + 1]);
        GroupState* const state = states + group;
        if (group_slot[group] < 0 || state->bits == 0) continue;
        const uint32_t base = state->base;
        const uint32_t bits = state->bits;
        const uint32_t shift = bin_shift(bits);
        unsigned int* const histogram = histograms + static_cast<int64_t>(group_slot[group]) * kBins;
        if (state->in_vector) {
            for (int bin = threadIdx.x; bin < kBins; bin += kStripThreads) bins[bin] = 0;
            __syncthreads();
            for (int chunk = first; chunk < stop; ++chunk) {
                visit_keys(vector, chunk_start[chunk], chunk_start[chunk + 1], threadIdx.x, kStripThreads,
                           [&](uint32_t key) {
                               if ((key - base) >> bits == 0) atomicAdd(&bins[(key - base) >> shift], 1u);
                           });
            }
            __syncthreads();
            for (int bin = threadIdx.x; bin < kBins; bin += kStripThreads) {
                if (bins[bin] != 0) atomicAdd(histogram + bin, bins[bin]);
            }
        } else {
            const int warp = static_cast<int>(threadIdx.x) / 32;
            for (int chunk = first + warp; chunk < stop; chunk += kStripThreads / 32) {
                const uint32_t count = num_candidates(chunk_counts, chunk);
                for (uint32_t i = threadIdx.x % 32; i < count; i += 32) {
                    const uint32_t key = candidates[room_start[chunk] + i];
                    if ((key - base) >> bits == 0) atomicAdd(histogram + ((key - base) >> shift), 1u);
                }
            }
        }
        const unsigned int all = static_cast<unsigned int>(group_chunk[group + 1] - group_chunk[group]);
        if (block_is_last(&state->arrived, static_cast<unsigned int>(stop - first), all)) {
            narrow_search(state, histogram);
            if (threadIdx.x == 0) state->arrived = 0;
        }
        __syncthreads();
    }
}

// One block a small group.
extern "C" __global__ void __launch_bounds__(kSmallThreads)
    topk_select_small_f32(GroupState* states, const float* vector, const int32_t* small_group, const int64_t* group_start,
                          const int64_t* group_kept) {
    __shared__ unsigned int bins[kBins];
    const int group = small_group[blockIdx.x];
    uint32_t base = 0;
    uint64_t rank = static_cast<uint64_t>(group_kept[group]);
    for (uint32_t bits = 31; bits != 0; bits = bin_shift(bits)) {
        const uint32_t shift = bin_shift(bits);
        for (int bin = threadIdx.x; bin < kBins; bin += kSmallThreads) bins[bin] = 0;
        __syncthreads();
        visit_keys(vector, group_start[group], group_start[group + 1], threadIdx.x, kSmallThreads, [&](uint32_t key) {
            if ((key - base) >> bits == 0) atomicAdd(&bins[(key - base) >> shift], 1u);
        });
        __syncthreads();
        const Place place = find_bin([&](int bin) { return bins[bin]; }, rank);
        base += place.bin << shift;
        rank = place.rank;
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        states[group].base = base;
        states[group].in_vector = 1;
    }
}

// What the last block of a group does: its ties go to the lowest indices, and every chunk learns its cut. `larger` and
// `ties` are [chunks]; `ties` becomes those that are kept.
__device__ void give_out_ties(unsigned int* cut_smallest, unsigned int* cut_ties, int64_t* chunk_first, double* sums,
                              unsigned long long* counts, const unsigned int* larger, unsigned int* ties,
                              const double* chunk_sq, const double* chunk_kept_sq, const int32_t* tile_chunk,
                              uint32_t key, unsigned long long kept, int64_t first_value, int chunk_begin, int chunk_end,
                              int tile_begin, int tile_end, int tiles) {
    const int per_thread = (chunk_end - chunk_begin + kCutThreads - 1) / kCutThreads;
    const int begin = min(chunk_end, chunk_begin + static_cast<int>(threadIdx.x) * per_thread);
    const int end = min(chunk_end, begin + per_thread);
    unsigned long long own_larger = 0;
    unsigned long long own_ties = 0;
    for (int chunk = begin; chunk < end; ++chunk) {
        own_larger += __ldcg(larger + chunk);
        own_ties += __ldcg(ties + chunk);
    }
    unsigned long long all_larger;
    unsigned long long all_ties;
    unsigned long long larger_before = block_exclusive_sum(own_larger, &all_larger);
    unsigned long long ties_before = block_exclusive_sum(own_ties, &all_ties);
    const unsigned long long free = all_larger < kept ? kept - all_larger : 0;
    for (int chunk = begin; chunk < end; ++chunk) {
        const unsigned int here = __ldcg(ties + chunk);
        const unsigned long long given = min(ties_before, free);
        const unsigned int kept_ties =
            static_cast<unsigned int>(min(static_cast<unsigned long long>(here), free - given));
        cut_smallest[chunk] = key + (kept_ties == 0);
        cut_ties[chunk] = kept_ties < here ? kept_ties : 0;
        chunk_first[chunk] = first_value + static_cast<int64_t>(larger_before + given);
        ties[chunk] = kept_ties;
        larger_before += __ldcg(larger + chunk);
        ties_before += here;
    }
    __syncthreads();
    for (int tile = tile_begin + static_cast<int>(threadIdx.x); tile < tile_end; tile += kCutThreads) {
        double sq = 0.0;
        double kept_sq = 0.0;
        unsigned long long kept_here = 0;
        for (int chunk = tile_chunk[tile]; chunk < tile_chunk[tile + 1]; ++chunk) {
            const unsigned int kept_ties = __ldcg(ties + chunk);
            sq += chunk_sq[chunk];
            kept_sq += __ldcg(chunk_kept_sq + chunk) + static_cast<double>(kept_ties) * square_of_key(key);
            kept_here += __ldcg(larger + chunk) + kept_ties;
        }
        sums[tile] = sq;
        sums[tiles + tile] = kept_sq;
        counts[tile] = kept_here;
    }
    __syncthreads();
}

// cut_smallest: the smallest key of a chunk that is kept whatever its index; cut_ties: of the keys just below, how many are
// kept, if some but not all are. chunk_first: kept elements before the chunk.
extern "C" __global__ void __launch_bounds__(kCutThreads, 1)
    topk_select_cut_f32(unsigned int* cut_smallest, unsigned int* cut_ties, int64_t* chunk_first, double* sums,
                        unsigned long long* counts, GroupState* states, unsigned int* larger, unsigned int* ties,
                        double* chunk_kept_sq, const float* vector, const float* grad, const unsigned int* candidates,
                        const unsigned int* chunk_counts, const double* chunk_sq, const double* chunk_above_sq,
                        const int64_t* chunk_start, const int32_t* chunk_group, const int64_t* room_start,
                        const int32_t* group_slot, const int32_t* group_chunk, const int64_t* group_kept,
                        const int64_t* group_first, const int32_t* group_tile, const int32_t* tile_chunk, int tiles,
                        int chunks, int chunks_per_block) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (blockIdx.x == 0 && threadIdx.x == 0 && counts[tiles] != 0) {
        const int64_t i = static_cast<int64_t>(~counts[tiles]);
        counts[tiles + 1] = __float_as_uint(grad[i]) | static_cast<uint64_t>(__float_as_uint(vector[i])) << 32;
    }
    const int last = min(chunks, static_cast<int>(blockIdx.x + 1) * chunks_per_block);
    int stop;
    for (int first = static_cast<int>(blockIdx.x) * chunks_per_block; first < last; first = stop) {
        const int group = chunk_group[first];
        stop = min(last, group_chunk[group + 1]);
        GroupState* const state = states + group;
        const uint32_t key = state->base;
        const bool in_vector = state->in_vector != 0;
        for (int chunk = first + warp; chunk < stop; chunk += kCutThreads / 32) {
            uint32_t above = 0;
            uint32_t equal = 0;
            double sq = 0.0;
            auto visit = [&](uint32_t found) {
                above += found > key;
                equal += found == key;
                if (found > key) sq += square_of_key(found);
            };
            if (in_vector) {
                visit_keys(vector, chunk_start[chunk], chunk_start[chunk + 1], lane, 32, visit);
            } else if (key < state->high) {
                const uint32_t count = num_candidates(chunk_counts, chunk);
                for (uint32_t i = lane; i < count; i += 32) visit(candidates[room_start[chunk] + i]);
            }
            above = warp_sum(above);
            equal = warp_sum(equal);
            sq = warp_sum(sq);
            if (lane != 0) continue;
            if (!in_vector) {
                // The candidates lie strictly inside the bracket; its ends and what is above were counted.
                const unsigned int* const at_least = chunk_counts + 4 * static_cast<int64_t>(chunk);
                const uint32_t at_high = at_least[1] - at_least[0];
                sq += chunk_above_sq[chunk];
                above += at_least[0];
                if (key == state->high) {
                    equal = at_high;
                } else {
                    above += at_high;
                    sq += static_cast<double>(at_high) * square_of_key(state->high);
                    if (key == state->low) equal = at_least[3] - at_least[2];
                }
            }
            larger[chunk] = above;
            ties[chunk] = equal;
            chunk_kept_sq[chunk] = sq;
        }
        const int begin = group_chunk[group];
        const int end = group_chunk[group + 1];
        if (block_is_last(&state->arrived, static_cast<unsigned int>(stop - first),
                          static_cast<unsigned int>(end - begin))) {
            give_out_ties(cut_smallest, cut_ties, chunk_first, sums, counts, larger, ties, chunk_sq, chunk_kept_sq,
                          tile_chunk, key, static_cast<unsigned long long>(group_kept[group]), group_first[group], begin,
                          end, group_tile[group], group_tile[group + 1], tiles);
            if (threadIdx.x == 0) {
                state->arrived = 0;
                if (in_vector && group_slot[group] >= 0) atomicAdd(counts + tiles + 2, 1ull);
            }
        }
        __syncthreads();
    }
}
