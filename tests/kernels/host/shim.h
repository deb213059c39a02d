// Lets the host's C++ compiler compile kernels without barriers: a thread is a call, its indices are variables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

struct Dim3 {
    unsigned x, y, z;
};
extern thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __forceinline__ inline

// One rounding each, as on the GPU, as long as the compiler is told not to contract.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

// Calls a kernel for one thread with the arguments of a launch.
using ThreadCall = void (*)(void** arguments);
bool add_kernel(const char* name, ThreadCall call);

template <auto kernel>
struct Call;
template <class... A, void (*kernel)(A...)>
struct Call<kernel> {
    static void thread(void** arguments) { spread(arguments, std::index_sequence_for<A...>{}); }
    template <std::size_t... I>
    static void spread(void** arguments, std::index_sequence<I...>) {
        kernel(*static_cast<A*>(arguments[I])...);
    }
};

#define ADD_KERNEL(kernel) static const bool added_##kernel = add_kernel(#kernel, &Call<kernel>::thread);
