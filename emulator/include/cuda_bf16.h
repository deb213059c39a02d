// cuda_bf16.h: the part of CUDA's header of this name that kernels use
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "vectors.h"

// The upper half of an f32.
struct __nv_bfloat16 {
    uint16_t bits;

    __nv_bfloat16() = default;
    __nv_bfloat16(float x);
    operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
    __nv_bfloat16 result;
    result.bits = bits;
    return result;
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __short_as_bfloat16(short bits) { return __ushort_as_bfloat16(static_cast<unsigned short>(bits)); }
inline short __bfloat16_as_short(__nv_bfloat16 x) { return static_cast<short>(x.bits); }

// Nearest even; a NaN becomes the one with all bits set but the sign, as on a GPU.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    if (x != x) return __ushort_as_bfloat16(0x7fff);
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return __ushort_as_bfloat16(static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
}
inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }
inline __nv_bfloat16::__nv_bfloat16(float x) : bits(__float2bfloat16_rn(x).bits) {}
inline __nv_bfloat16 __float2bfloat16_rz(float x) {
    if (x != x) return __ushort_as_bfloat16(0x7fff);
    return __ushort_as_bfloat16(static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16));
}
inline float __bfloat162float(__nv_bfloat16 x) { return x; }

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 a) { return __floats2bfloat162_rn(a.x, a.y); }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __float2bfloat162_rn(float x) { return __floats2bfloat162_rn(x, x); }
inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {__bfloat162float(a.x), __bfloat162float(a.y)}; }
inline float __low2float(__nv_bfloat162 a) { return __bfloat162float(a.x); }
inline float __high2float(__nv_bfloat162 a) { return __bfloat162float(a.y); }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 a) { return a.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 a) { return a.y; }
