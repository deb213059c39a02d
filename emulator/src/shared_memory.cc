// shared_memory.cc: the block's shared memory: exactly what was asked for, NaN at first, with guards beside it
//
// What kernels declare as `__shared__` is memory of the system's thread that the loader set up for this library. It holds
// `core` besides, and nothing else. AddressSanitizer's build watches the ends of variables itself.

#include "shared_memory.h"

#include <link.h>

#include <cstdlib>

#include "block.h"

namespace emulator {
namespace {

constexpr size_t kAlignment = 1024;
constexpr size_t kMaxBytes = 227 << 10;
constexpr unsigned char kNan = 0xff;

// Address of the dynamic shared memory as instructions see it: behind what the system reserves on a GPU.
constexpr uint32_t kDynamicAddress = 1024;
// What kernels declare has addresses that matrix descriptors cannot hold.
constexpr uint32_t kStaticAddress = 1 << 24;

#ifdef EMULATOR_ADDRESS_SANITIZER
struct Range {
    unsigned char* start = nullptr;
    size_t bytes = 0;
};
Range dynamic;
#else
constexpr size_t kGuardBytes = 1024;

struct Range {
    unsigned char* start;
    size_t bytes;
};

// The block of thread-local memory that holds `core`.
Range find_static() {
    Range range{nullptr, 0};
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* data) {
            auto* start = static_cast<unsigned char*>(info->dlpi_tls_data);
            auto* inside = reinterpret_cast<unsigned char*>(&core);
            for (int i = 0; start != nullptr && i < info->dlpi_phnum; ++i) {
                if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
                const size_t bytes = info->dlpi_phdr[i].p_memsz;
                if (inside >= start && inside < start + bytes) *static_cast<Range*>(data) = {start, bytes};
            }
            return 0;
        },
        &range);
    return range;
}
#endif

}  // namespace

#ifdef EMULATOR_ADDRESS_SANITIZER

void reserve_dynamic_shared(size_t bytes) {
    // Anew for each launch, so that its redzone begins right behind.
    free(dynamic.start);
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes > 0 ? bytes : 1) != 0) abort();
    dynamic = {static_cast<unsigned char*>(memory), bytes};
    core.dynamic_shared = dynamic.start;
}

void poison_shared(bool) { memset(dynamic.start, kNan, dynamic.bytes); }

void check_dynamic_shared() {}

bool is_shared(const void*, size_t) { return true; }

size_t dynamic_shared_bytes() { return dynamic.bytes; }

#else

struct SharedMemory {
    Range fixed = find_static();
    unsigned char* memory = nullptr;
    size_t bytes = 0;
};

namespace {

// The worker's: thread-local variables would be overwritten with NaN.
SharedMemory& shared_memory() { return *core.shared; }

}  // namespace

void reserve_dynamic_shared(size_t bytes) {
    if (core.shared == nullptr) {
        core.shared = new SharedMemory;  // as long as the system's thread
        void* memory = nullptr;
        if (posix_memalign(&memory, kAlignment, kMaxBytes + 2 * kGuardBytes) != 0) abort();
        memset(memory, kNan, kMaxBytes + 2 * kGuardBytes);
        shared_memory().memory = static_cast<unsigned char*>(memory);
    }
    memset(shared_memory().memory, kNan, shared_memory().bytes + kGuardBytes);
    shared_memory().bytes = bytes;
    core.dynamic_shared = shared_memory().memory + kGuardBytes;
}

void poison_shared(bool static_too) {
    memset(core.dynamic_shared, kNan, shared_memory().bytes);
    if (!static_too) return;
    const Range fixed = shared_memory().fixed;
    auto* inside = reinterpret_cast<unsigned char*>(&core);
    memset(fixed.start, kNan, static_cast<size_t>(inside - fixed.start));
    memset(inside + sizeof core, kNan, static_cast<size_t>(fixed.start + fixed.bytes - (inside + sizeof core)));
}

void check_dynamic_shared() {
    const unsigned char* before = core.dynamic_shared - kGuardBytes;
    const unsigned char* behind = core.dynamic_shared + shared_memory().bytes;
    for (size_t i = 0; i < kGuardBytes; ++i) {
        if (before[i] != kNan || behind[i] != kNan) {
            fail("something was written beside the %zu bytes of dynamic shared memory", shared_memory().bytes);
        }
    }
}

bool is_shared(const void* pointer, size_t bytes) {
    const auto* start = static_cast<const unsigned char*>(pointer);
    const auto within = [&](const unsigned char* first, size_t len) {
        return start >= first && start + bytes <= first + len;
    };
    const Range fixed = shared_memory().fixed;
    return within(core.dynamic_shared, shared_memory().bytes) || within(fixed.start, fixed.bytes);
}

size_t dynamic_shared_bytes() { return shared_memory().bytes; }

#endif

uint32_t shared_address(const void* pointer) {
    const auto offset = reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(core.dynamic_shared);
    if (offset <= kMaxBytes) return kDynamicAddress + static_cast<uint32_t>(offset);
    if (!is_shared(pointer, 1)) fail("%p is not in shared memory", pointer);
    return kStaticAddress | static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pointer) & (kStaticAddress - 1));
}

unsigned char* at_shared_address(uint32_t address, size_t bytes) {
    const size_t offset = address - size_t{kDynamicAddress};
    if (address < kDynamicAddress || offset + bytes > dynamic_shared_bytes()) {
        fail("%zu bytes at %#x are not in dynamic shared memory", bytes, address);
    }
    return core.dynamic_shared + offset;
}

}  // namespace emulator
