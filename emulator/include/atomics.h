// atomics.h: read-modify-write on memory that blocks share; true atomics, since blocks run on several operating system's
// threads
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace emulator {

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Replaces *p by `change` of it and returns what was there.
template <class T, class Change>
inline T update(T* p, Change change) {
    auto* bits = reinterpret_cast<Bits<T>*>(p);
    Bits<T> found = __atomic_load_n(bits, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(bits, &found, std::bit_cast<Bits<T>>(change(std::bit_cast<T>(found))), true,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    }
    return std::bit_cast<T>(found);
}

template <class T>
concept Word = std::integral<T> && (sizeof(T) == 4 || sizeof(T) == 8);
template <class T>
concept Number = Word<T> || std::same_as<T, float> || std::same_as<T, double>;

}  // namespace emulator

template <emulator::Number T>
inline T atomicAdd(T* p, std::type_identity_t<T> value) {
    return emulator::update(p, [=](T old) {
        if constexpr (std::integral<T>) {
            using U = std::make_unsigned_t<T>;
            return static_cast<T>(static_cast<U>(old) + static_cast<U>(value));
        } else {
            return old + value;
        }
    });
}
template <emulator::Word T>
inline T atomicSub(T* p, std::type_identity_t<T> value) {
    return atomicAdd(p, static_cast<T>(std::make_unsigned_t<T>{0} - static_cast<std::make_unsigned_t<T>>(value)));
}
template <emulator::Word T>
inline T atomicMin(T* p, std::type_identity_t<T> value) {
    return emulator::update(p, [=](T old) { return old < value ? old : value; });
}
template <emulator::Word T>
inline T atomicMax(T* p, std::type_identity_t<T> value) {
    return emulator::update(p, [=](T old) { return old > value ? old : value; });
}
template <emulator::Word T>
inline T atomicAnd(T* p, std::type_identity_t<T> value) {
    return __atomic_fetch_and(p, value, __ATOMIC_ACQ_REL);
}
template <emulator::Word T>
inline T atomicOr(T* p, std::type_identity_t<T> value) {
    return __atomic_fetch_or(p, value, __ATOMIC_ACQ_REL);
}
template <emulator::Word T>
inline T atomicXor(T* p, std::type_identity_t<T> value) {
    return __atomic_fetch_xor(p, value, __ATOMIC_ACQ_REL);
}
template <emulator::Number T>
inline T atomicExch(T* p, std::type_identity_t<T> value) {
    return emulator::update(p, [=](T) { return value; });
}
template <emulator::Word T>
inline T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return expected;
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
    return emulator::update(p, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* p, unsigned limit) {
    return emulator::update(p, [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}
