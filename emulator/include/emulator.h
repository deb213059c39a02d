// emulator.h: what nvcc gives every kernel without an include, for a C++ compiler; put before the source with -include
//
// A kernel becomes an ordinary function that a thread of the emulator calls. Shared memory is a variable of the operating
// system's thread, since all threads of a block run on one. AddressSanitizer cannot see the ends of such variables: its
// build has ordinary ones, and one operating system's thread.
#pragma once

#ifndef SCADLES_EMULATOR
#define SCADLES_EMULATOR 1
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATOR_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATOR_ADDRESS_SANITIZER 1
#endif
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
#ifdef EMULATOR_ADDRESS_SANITIZER
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#include "thread.h"
#include "vectors.h"

#define threadIdx (::emulator::core.thread->index)
#define blockIdx (::emulator::core.block_index)
#define blockDim (::emulator::core.block_dim)
#define gridDim (::emulator::core.grid_dim)
#define warpSize 32

inline unsigned char* emulator_dynamic_shared() { return emulator::core.dynamic_shared; }

#include "atomics.h"
#include "collectives.h"
#include "intrinsics.h"
#include "registry.h"
