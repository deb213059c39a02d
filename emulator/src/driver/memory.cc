// memory.cc: device memory, which is the host's, pinned memory, copies and fills
//
// New memory is NaN. Behind and before every allocation lie guards, also NaN, that no kernel may change.

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>

#include "../faults.h"
#include "../settings.h"
#include "driver.h"
#include "emulator.h"

namespace emulator {
namespace {

constexpr size_t kAlignment = 256;
#ifdef EMULATOR_ADDRESS_SANITIZER
constexpr size_t kGuardBytes = 0;  // there are redzones
#else
constexpr size_t kGuardBytes = 1024;
#endif
constexpr auto kGuard = [] {
    std::array<unsigned char, kGuardBytes + 1> guard{};
    guard.fill(0xff);
    return guard;
}();
// Allocations up to which all are looked at after every launch.
constexpr size_t kFewAllocations = 64;
constexpr uint64_t kDefaultTotalBytes = uint64_t{4} << 30;

struct Memory {
    std::mutex lock;
    std::map<Pointer, size_t> device;
    std::map<Pointer, size_t> pinned;
    size_t used_bytes = 0;
};

// Never destroyed: programs free memory while they end.
Memory& memory() {
    static Memory& memory = *new Memory;
    return memory;
}

size_t total_bytes() {
    static const size_t bytes = setting("SCADLES_EMULATOR_MEMORY_BYTES", kDefaultTotalBytes);
    return bytes;
}

bool holds(const std::map<Pointer, size_t>& blocks, Pointer start, size_t bytes) {
    auto after = blocks.upper_bound(start);
    if (after == blocks.begin()) return false;
    const auto& [first, len] = *std::prev(after);
    return start - first <= len && bytes <= len - (start - first);
}

bool is_pinned(const void* start, size_t bytes) {
    std::lock_guard guard(memory().lock);
    return holds(memory().pinned, reinterpret_cast<Pointer>(start), bytes);
}

void* as_pointer(Pointer address) { return reinterpret_cast<void*>(address); }

void check_guard(Pointer start, size_t bytes, const char* after) {
    const auto* first = static_cast<const unsigned char*>(as_pointer(start));
    if (memcmp(first - kGuardBytes, kGuard.data(), kGuardBytes) != 0 || memcmp(first + bytes, kGuard.data(), kGuardBytes) != 0) {
        fprintf(stderr, "emulator: something was written beside an allocation of %zu bytes, found after %s\n", bytes, after);
        abort();
    }
}

int allocate(Pointer* pointer, size_t bytes) {
    if (bytes == 0) return kInvalidValue;
    if (const int fault = fault_of_allocation(); fault != kSuccess) return fault;
    std::lock_guard guard(memory().lock);
    if (bytes > total_bytes() - memory().used_bytes) return kOutOfMemory;
    void* start = nullptr;
    if (posix_memalign(&start, kAlignment, bytes + 2 * kGuardBytes) != 0) return kOutOfMemory;
    memset(start, 0xff, bytes + 2 * kGuardBytes);
    *pointer = reinterpret_cast<Pointer>(static_cast<unsigned char*>(start) + kGuardBytes);
    memory().device[*pointer] = bytes;
    memory().used_bytes += bytes;
    return kSuccess;
}

int release(Pointer pointer) {
    std::lock_guard guard(memory().lock);
    const auto found = memory().device.find(pointer);
    if (found == memory().device.end()) return kInvalidValue;
    check_guard(pointer, found->second, "all launches");
    memory().used_bytes -= found->second;
    memory().device.erase(found);
    free(static_cast<unsigned char*>(as_pointer(pointer)) - kGuardBytes);
    return kSuccess;
}

bool is_capturing(void* handle) {
    const auto stream = find_stream(handle);
    if (stream == nullptr) return false;
    std::lock_guard guard(stream->lock);
    return stream->capture != nullptr;
}

// Before a copy: the device's side must be allocated.
int check(Pointer pointer, size_t bytes) {
    if (const int lost = device_state(); lost != kSuccess) return lost;
    return is_allocated(pointer, bytes) ? kSuccess : kInvalidValue;
}

}  // namespace

bool is_allocated(Pointer start, size_t bytes) {
    std::lock_guard guard(memory().lock);
    return holds(memory().device, start, bytes);
}

void check_guards(const char* after) {
    std::lock_guard guard(memory().lock);
    if (memory().device.size() > kFewAllocations) return;
    for (const auto& [start, bytes] : memory().device) check_guard(start, bytes, after);
}

DRIVER_API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = total_bytes(), kSuccess; }
DRIVER_API cuMemGetInfo_v2(size_t* free_bytes, size_t* all_bytes) {
    std::lock_guard guard(memory().lock);
    *all_bytes = total_bytes();
    *free_bytes = total_bytes() - memory().used_bytes;
    return kSuccess;
}

DRIVER_API cuMemAlloc_v2(Pointer* pointer, size_t bytes) {
    if (core.capture != nullptr) return forbidden_in_capture();
    return allocate(pointer, bytes);
}
DRIVER_API cuMemFree_v2(Pointer pointer) {
    if (core.capture != nullptr) return forbidden_in_capture();
    if (pointer == 0) return kSuccess;
    finish_all();
    return release(pointer);
}
DRIVER_API cuMemAllocAsync(Pointer* pointer, size_t bytes, void* stream) {
    if (is_capturing(stream)) return kNotSupported;
    return allocate(pointer, bytes);
}
DRIVER_API cuMemFreeAsync(Pointer pointer, void* stream) {
    if (is_capturing(stream)) return kNotSupported;
    if (!is_allocated(pointer, 0)) return kInvalidValue;
    return enqueue(stream, [pointer] { release(pointer); });
}
DRIVER_API cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = &memory(), kSuccess; }
DRIVER_API cuMemPoolSetAttribute(void*, int, void*) { return kSuccess; }

DRIVER_API cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    if (core.capture != nullptr) return forbidden_in_capture();
    if (const int lost = device_state(); lost != kSuccess) return lost;
    if (bytes == 0 || posix_memalign(pointer, 4096, bytes) != 0) return bytes == 0 ? kInvalidValue : kOutOfMemory;
    std::lock_guard guard(memory().lock);
    memory().pinned[reinterpret_cast<Pointer>(*pointer)] = bytes;
    return kSuccess;
}
DRIVER_API cuMemFreeHost(void* pointer) {
    if (core.capture != nullptr) return forbidden_in_capture();
    finish_all();
    std::lock_guard guard(memory().lock);
    if (memory().pinned.erase(reinterpret_cast<Pointer>(pointer)) == 0) return kInvalidValue;
    free(pointer);
    return kSuccess;
}

// CU_POINTER_ATTRIBUTE_MEMORY_TYPE only: 1 is the host's, 2 the device's.
DRIVER_API cuPointerGetAttribute(void* value, int attribute, Pointer pointer) {
    if (attribute != 2) return kNotSupported;
    const bool device = is_allocated(pointer, 0);
    if (!device && !is_pinned(as_pointer(pointer), 0)) return kInvalidValue;
    const unsigned type = device ? 2 : 1;
    return memcpy(value, &type, sizeof type), kSuccess;
}

DRIVER_API cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* stream) {
    if (const int wrong = check(to, bytes); wrong != kSuccess) return wrong;
    if (is_pinned(from, bytes) || is_capturing(stream)) {
        return enqueue(stream, [=] { memcpy(as_pointer(to), from, bytes); });
    }
    // Pageable memory is read before the call returns.
    const auto* start = static_cast<const unsigned char*>(from);
    return enqueue(stream, [to, staged = std::vector<unsigned char>(start, start + bytes)] {
        memcpy(as_pointer(to), staged.data(), staged.size());
    });
}
DRIVER_API cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* stream) {
    if (const int wrong = check(from, bytes); wrong != kSuccess) return wrong;
    const int status = enqueue(stream, [=] { memcpy(to, as_pointer(from), bytes); });
    // Pageable memory is written before the call returns.
    if (status == kSuccess && !is_pinned(to, bytes) && !is_capturing(stream)) finish(*find_stream(stream));
    return status != kSuccess ? status : device_state();
}
DRIVER_API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void* stream) {
    if (const int wrong = check(to, bytes); wrong != kSuccess) return wrong;
    if (const int wrong = check(from, bytes); wrong != kSuccess) return wrong;
    return enqueue(stream, [=] { memmove(as_pointer(to), as_pointer(from), bytes); });
}
DRIVER_API cuMemcpyHtoD_v2(Pointer to, const void* from, size_t bytes) {
    return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
}
DRIVER_API cuMemcpyDtoH_v2(void* to, Pointer from, size_t bytes) { return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr); }
DRIVER_API cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t bytes) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}

DRIVER_API cuMemsetD8Async(Pointer to, unsigned char value, size_t count, void* stream) {
    if (const int wrong = check(to, count); wrong != kSuccess) return wrong;
    return enqueue(stream, [=] { memset(as_pointer(to), value, count); });
}
DRIVER_API cuMemsetD8_v2(Pointer to, unsigned char value, size_t count) {
    return cuMemsetD8Async(to, value, count, nullptr);
}
DRIVER_API cuMemsetD32Async(Pointer to, unsigned value, size_t count, void* stream) {
    if (to % 4 != 0) return kInvalidValue;
    if (const int wrong = check(to, count * 4); wrong != kSuccess) return wrong;
    return enqueue(stream, [=] {
        auto* words = static_cast<unsigned*>(as_pointer(to));
        for (size_t i = 0; i < count; ++i) words[i] = value;
    });
}
DRIVER_API cuMemsetD32_v2(Pointer to, unsigned value, size_t count) { return cuMemsetD32Async(to, value, count, nullptr); }

}  // namespace emulator
