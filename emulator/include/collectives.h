// collectives.h: barriers, shuffles and votes
//
// A lane brings its operand, and the last to come computes what all get. A value taken from a lane that does not take part
// is undefined on a GPU; here all its bits are ones, which is NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "thread.h"

#define __syncthreads() (void)::emulator::block_barrier(0, 0, false, "__syncthreads", __LINE__)
#define __syncthreads_count(predicate) \
    static_cast<int>(::emulator::block_barrier(0, 0, (predicate) != 0, "__syncthreads_count", __LINE__))
#define __syncthreads_or(predicate) \
    static_cast<int>(::emulator::block_barrier(0, 0, (predicate) != 0, "__syncthreads_or", __LINE__) != 0)
#define __syncthreads_and(predicate) \
    static_cast<int>(::emulator::block_barrier(0, 0, (predicate) == 0, "__syncthreads_and", __LINE__) == 0)

namespace emulator {

struct Shuffle {
    uint64_t value;
    unsigned source;
    uint64_t result;
};
void shuffle_lanes(void* const* operands, uint32_t lanes);

// `value` of the lane `source` of the warp.
template <class T>
inline T shuffle(uint32_t mask, T value, unsigned source, const char* name) {
    static_assert(sizeof(T) <= 8);
    Shuffle operand{0, source, 0};
    memcpy(&operand.value, &value, sizeof(T));
    warp_collective(mask, shuffle_lanes, &operand, name);
    memcpy(&value, &operand.result, sizeof(T));
    return value;
}

struct Vote {
    uint64_t value;
    uint32_t result;
};
void vote_ballot(void* const* operands, uint32_t lanes);
void vote_match(void* const* operands, uint32_t lanes);
void do_nothing(void* const* operands, uint32_t lanes);

inline uint32_t vote(uint32_t mask, uint64_t value, WarpFunction function, const char* name) {
    Vote operand{value, 0};
    warp_collective(mask, function, &operand, name);
    return operand.result;
}

// One reduction of 32-bit integers over the lanes of a mask.
template <class T, class Combine>
inline T reduce(uint32_t mask, T value, Combine, const char* name) {
    warp_collective(
        mask,
        [](void* const* operands, uint32_t lanes) {
            T result = *static_cast<T*>(operands[__builtin_ctz(lanes)]);
            for (uint32_t rest = lanes & (lanes - 1); rest != 0; rest &= rest - 1) {
                result = Combine{}(result, *static_cast<T*>(operands[__builtin_ctz(rest)]));
            }
            for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) *static_cast<T*>(operands[__builtin_ctz(rest)]) = result;
        },
        &value, name);
    return value;
}

}  // namespace emulator

inline void __syncwarp(uint32_t mask = 0xffffffffu) {
    emulator::warp_collective(mask, emulator::do_nothing, nullptr, "__syncwarp");
}
inline uint32_t __activemask() { return emulator::lanes_alive(); }

template <class T>
inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
    const unsigned first = emulator::lane() & ~(static_cast<unsigned>(width) - 1);
    return emulator::shuffle(mask, value, first + (static_cast<unsigned>(source) & (width - 1)), "__shfl_sync");
}
template <class T>
inline T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = emulator::lane();
    const bool inside = (lane & (width - 1)) >= delta;
    return emulator::shuffle(mask, value, inside ? lane - delta : lane, "__shfl_up_sync");
}
template <class T>
inline T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = emulator::lane();
    const bool inside = (lane & (width - 1)) + delta < static_cast<unsigned>(width);
    return emulator::shuffle(mask, value, inside ? lane + delta : lane, "__shfl_down_sync");
}
template <class T>
inline T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32) {
    const unsigned lane = emulator::lane(), source = lane ^ static_cast<unsigned>(lanes);
    // A lane may read from a segment before its own, not from one behind it.
    const bool inside = source / static_cast<unsigned>(width) <= lane / static_cast<unsigned>(width);
    return emulator::shuffle(mask, value, inside ? source : lane, "__shfl_xor_sync");
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
    return emulator::vote(mask, predicate != 0, emulator::vote_ballot, "__ballot_sync");
}
inline int __any_sync(uint32_t mask, int predicate) {
    return emulator::vote(mask, predicate != 0, emulator::vote_ballot, "__any_sync") != 0;
}
inline int __all_sync(uint32_t mask, int predicate) {
    return emulator::vote(mask, predicate == 0, emulator::vote_ballot, "__all_sync") == 0;
}
template <class T>
inline uint32_t __match_any_sync(uint32_t mask, T value) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    return emulator::vote(mask, bits, emulator::vote_match, "__match_any_sync");
}

#define EMULATOR_REDUCE(operation, type, expression)                                        \
    inline type __reduce_##operation##_sync(uint32_t mask, type value) {                    \
        struct Combine {                                                                    \
            type operator()(type a, type b) const { return expression; }                    \
        };                                                                                  \
        return emulator::reduce(mask, value, Combine{}, "__reduce_" #operation "_sync");    \
    }
EMULATOR_REDUCE(add, unsigned, a + b)
EMULATOR_REDUCE(add, int, static_cast<int>(static_cast<unsigned>(a) + static_cast<unsigned>(b)))
EMULATOR_REDUCE(min, unsigned, a < b ? a : b)
EMULATOR_REDUCE(min, int, a < b ? a : b)
EMULATOR_REDUCE(max, unsigned, a > b ? a : b)
EMULATOR_REDUCE(max, int, a > b ? a : b)
EMULATOR_REDUCE(and, unsigned, a& b)
EMULATOR_REDUCE(or, unsigned, a | b)
EMULATOR_REDUCE(xor, unsigned, a ^ b)
#undef EMULATOR_REDUCE
