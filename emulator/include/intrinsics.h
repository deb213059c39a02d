// intrinsics.h: arithmetic, bits and conversions that CUDA names
//
// Compiled without contraction, so that each operator rounds once. The approximations (__expf, rsqrtf) are the exact
// functions here: a GPU differs in the last bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

using std::isfinite;
using std::isinf;
using std::isnan;

// ---- Arithmetic with one rounding ---------------------------------------------------------------------------------

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }

inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float __frsqrt_rn(float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }
inline float __expf(float a) { return std::exp(a); }
inline float __exp10f(float a) { return std::pow(10.0f, a); }
inline float __logf(float a) { return std::log(a); }
inline float __log2f(float a) { return std::log2(a); }
inline float __powf(float a, float b) { return std::pow(a, b); }
inline float __sinf(float a) { return std::sin(a); }
inline float __cosf(float a) { return std::cos(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
inline float cospif(float a) { return static_cast<float>(std::cos(M_PI * a)); }
inline float sinpif(float a) { return static_cast<float>(std::sin(M_PI * a)); }

// A NaN beside a number gives the number, as CUDA's do.
inline float min(float a, float b) { return a < b || b != b ? a : b; }
inline float max(float a, float b) { return a > b || b != b ? a : b; }
inline double min(double a, double b) { return a < b || b != b ? a : b; }
inline double max(double a, double b) { return a > b || b != b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
inline long min(long a, long b) { return a < b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
inline unsigned long min(unsigned long a, unsigned long b) { return a < b ? a : b; }
inline unsigned long max(unsigned long a, unsigned long b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }

// ---- Integers -----------------------------------------------------------------------------------------------------

inline int __popc(unsigned a) { return std::popcount(a); }
inline int __popcll(unsigned long long a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __clzll(long long a) { return std::countl_zero(static_cast<unsigned long long>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }

inline unsigned __brev(unsigned a) {
    a = (a >> 1 & 0x55555555u) | (a & 0x55555555u) << 1;
    a = (a >> 2 & 0x33333333u) | (a & 0x33333333u) << 2;
    a = (a >> 4 & 0x0f0f0f0fu) | (a & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(a);
}

inline unsigned long long __brevll(unsigned long long a) {
    return static_cast<unsigned long long>(__brev(static_cast<unsigned>(a))) << 32 | __brev(static_cast<unsigned>(a >> 32));
}

inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned select = selector >> 4 * i & 15;
        unsigned byte = static_cast<unsigned>(bytes >> 8 * (select & 7)) & 0xff;
        if (select & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    return result;
}

// ---- Conversions --------------------------------------------------------------------------------------------------

inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline long long __double_as_longlong(double a) { return std::bit_cast<long long>(a); }
inline double __longlong_as_double(long long a) { return std::bit_cast<double>(a); }

namespace emulator {
// To an integer of type T as a GPU converts: NaN to 0, the rest kept within the type.
template <class T>
inline T to_integer(double rounded) {
    constexpr double kLowest = static_cast<double>(std::is_signed_v<T> ? -1 : 0) * (1ull << (8 * sizeof(T) - 1));
    constexpr double kAbove = (std::is_signed_v<T> ? 1.0 : 2.0) * (1ull << (8 * sizeof(T) - 1));
    if (std::isnan(rounded)) return 0;
    if (rounded < kLowest) return static_cast<T>(kLowest);
    if (rounded >= kAbove) return static_cast<T>(~static_cast<T>(0) ^ (std::is_signed_v<T> ? T{1} << (8 * sizeof(T) - 1) : 0));
    return static_cast<T>(rounded);
}
}  // namespace emulator

inline int __float2int_rn(float a) { return emulator::to_integer<int>(std::nearbyint(a)); }
inline int __float2int_rz(float a) { return emulator::to_integer<int>(std::trunc(a)); }
inline int __float2int_rd(float a) { return emulator::to_integer<int>(std::floor(a)); }
inline int __float2int_ru(float a) { return emulator::to_integer<int>(std::ceil(a)); }
inline unsigned __float2uint_rn(float a) { return emulator::to_integer<unsigned>(std::nearbyint(a)); }
inline unsigned __float2uint_rz(float a) { return emulator::to_integer<unsigned>(std::trunc(a)); }
inline unsigned __float2uint_rd(float a) { return emulator::to_integer<unsigned>(std::floor(a)); }
inline long long __float2ll_rn(float a) { return emulator::to_integer<long long>(std::nearbyint(a)); }
inline int __double2int_rn(double a) { return emulator::to_integer<int>(std::nearbyint(a)); }
inline long long __double2ll_rn(double a) { return emulator::to_integer<long long>(std::nearbyint(a)); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
inline float __ull2float_rn(unsigned long long a) { return static_cast<float>(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }

// ---- Memory -------------------------------------------------------------------------------------------------------

template <class T>
inline T __ldg(const T* p) {
    return *p;
}
template <class T>
inline T __ldcg(const T* p) {
    return *p;
}
template <class T>
inline T __ldcs(const T* p) {
    return *p;
}
template <class T>
inline void __stcs(T* p, T value) {
    *p = value;
}
template <class T>
inline void __stcg(T* p, T value) {
    *p = value;
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __nanosleep(unsigned) { emulator::yield(); }
[[noreturn]] inline void __trap() { emulator::fail("__trap()"); }
