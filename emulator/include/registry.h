// registry.h: the kernels of the library by name, with what a launch must know of their arguments
#pragma once

#include <cstddef>
#include <utility>

namespace emulator {

struct Kernel {
    const char* name;
    const char* file;  // without folder and ending
    unsigned max_threads;
    const size_t* sizes;       // bytes of each argument
    const size_t* alignments;  // and what its address must be a multiple of
    unsigned num_arguments;
    void (*call)(void* const* arguments);  // what one thread does
};
bool add_kernel(const Kernel& kernel);

template <auto kernel>
struct Signature;
template <class... A, void (*kernel)(A...)>
struct Signature<kernel> {
    // One more, since there are no arrays of nothing.
    static constexpr size_t kSizes[] = {sizeof(A)..., 0};
    static constexpr size_t kAlignments[] = {alignof(A)..., 0};
    static constexpr unsigned kNumArguments = sizeof...(A);

    static void call(void* const* arguments) { spread(arguments, std::index_sequence_for<A...>{}); }
    template <size_t... I>
    static void spread([[maybe_unused]] void* const* arguments, std::index_sequence<I...>) {
        kernel(*static_cast<A*>(arguments[I])...);
    }
};

}  // namespace emulator

#define ADD_KERNEL(file, kernel, max_threads)                                                                         \
    static const bool added_##kernel = emulator::add_kernel(                                                          \
        {#kernel, file, max_threads, emulator::Signature<&kernel>::kSizes, emulator::Signature<&kernel>::kAlignments, \
         emulator::Signature<&kernel>::kNumArguments, &emulator::Signature<&kernel>::call});
