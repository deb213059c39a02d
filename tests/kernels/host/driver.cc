// The part of the CUDA driver API that scadles calls, for one device that is the host: memory is the host's, streams
// run at once, a launch runs its threads one after another in a shuffled order. Stricter than a GPU about memory: new
// memory is NaN, and a write next to an allocation ends the program.
//
// HOST_DRIVER_FAIL_LAUNCH=1 refuses every launch.

#include "shim.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {
enum Status { kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kInvalidDevice = 101, kNotFound = 500, kLaunchFailed = 719 };
using Pointer = unsigned long long;

std::map<std::string, ThreadCall>& kernels() {
    static std::map<std::string, ThreadCall> all;
    return all;
}

constexpr size_t kGuardBytes = 256;
std::mutex memory_lock;
std::map<Pointer, size_t> allocations;

void check_guards(Pointer pointer, size_t bytes) {
    const auto* start = reinterpret_cast<const unsigned char*>(pointer);
    for (size_t i = 0; i < kGuardBytes; ++i) {
        if (start[-1 - static_cast<ptrdiff_t>(i)] != 0xff || start[bytes + i] != 0xff) {
            fprintf(stderr, "host driver: a kernel wrote beside an allocation of %zu bytes\n", bytes);
            abort();
        }
    }
}

int object;
}  // namespace

bool add_kernel(const char* name, ThreadCall call) { return kernels().emplace(name, call).second; }

extern "C" {
int cuInit(unsigned) { return kSuccess; }
int cuDriverGetVersion(int* version) { return *version = 13000, kSuccess; }
int cuDeviceGetCount(int* count) { return *count = 1, kSuccess; }
int cuDeviceGet(int* device, int ordinal) { return *device = 0, ordinal == 0 ? kSuccess : kInvalidDevice; }
int cuDeviceGetName(char* name, int len, int) { return snprintf(name, len, "host compiler"), kSuccess; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t{1} << 30, kSuccess; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: *value = 2; break;  // multiprocessors
        case 75: *value = 9; break;  // compute capability, major
        case 76: *value = 0; break;  // minor
        default: *value = 0;
    }
    return kSuccess;
}
int cuGetErrorName(int status, const char** name) {
    return *name = status == kLaunchFailed ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_OF_THE_HOST_DRIVER", kSuccess;
}
int cuGetErrorString(int status, const char** text) {
    return *text = status == kLaunchFailed ? "unspecified launch failure" : "see driver.cc", kSuccess;
}

int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &object, kSuccess; }
int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
int cuCtxSetCurrent(void*) { return kSuccess; }
int cuCtxGetCurrent(void** context) { return *context = &object, kSuccess; }
int cuCtxSynchronize() { return kSuccess; }

int cuStreamCreate(void** stream, unsigned) { return *stream = &object, kSuccess; }
int cuStreamDestroy_v2(void*) { return kSuccess; }
int cuStreamSynchronize(void*) { return kSuccess; }
int cuStreamWaitEvent(void*, void*, unsigned) { return kSuccess; }
int cuEventCreate(void** event, unsigned) { return *event = &object, kSuccess; }
int cuEventDestroy_v2(void*) { return kSuccess; }
int cuEventRecord(void*, void*) { return kSuccess; }
int cuEventSynchronize(void*) { return kSuccess; }

int cuMemAlloc_v2(Pointer* pointer, size_t bytes) {
    if (bytes == 0) return kInvalidValue;
    auto* start = static_cast<unsigned char*>(malloc(bytes + 2 * kGuardBytes));
    if (start == nullptr) return kOutOfMemory;
    memset(start, 0xff, bytes + 2 * kGuardBytes);
    *pointer = reinterpret_cast<Pointer>(start + kGuardBytes);
    std::lock_guard<std::mutex> lock(memory_lock);
    allocations[*pointer] = bytes;
    return kSuccess;
}
int cuMemFree_v2(Pointer pointer) {
    std::lock_guard<std::mutex> lock(memory_lock);
    const auto found = allocations.find(pointer);
    if (found == allocations.end()) return kInvalidValue;
    check_guards(pointer, found->second);
    allocations.erase(found);
    free(reinterpret_cast<unsigned char*>(pointer) - kGuardBytes);
    return kSuccess;
}
int cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void*) {
    return memcpy(reinterpret_cast<void*>(to), from, bytes), kSuccess;
}
int cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void*) {
    return memcpy(to, reinterpret_cast<const void*>(from), bytes), kSuccess;
}

int cuModuleLoadData(void** module, const void*) { return *module = &object, kSuccess; }
int cuModuleUnload(void*) { return kSuccess; }
int cuModuleGetFunction(void** function, void*, const char* name) {
    const auto found = kernels().find(name);
    if (found == kernels().end()) return kNotFound;
    *function = reinterpret_cast<void*>(found->second);
    return kSuccess;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned, void*, void** arguments, void**) {
    if (getenv("HOST_DRIVER_FAIL_LAUNCH") != nullptr) return kLaunchFailed;
    if (grid_x == 0 || block_x == 0 || block_x > 1024) return kInvalidValue;
    if (grid_y != 1 || grid_z != 1 || block_y != 1 || block_z != 1) return kInvalidValue;
    gridDim = {grid_x, 1, 1};
    blockDim = {block_x, 1, 1};
    std::vector<unsigned> order(static_cast<size_t>(grid_x) * block_x);
    std::iota(order.begin(), order.end(), 0u);
    static thread_local std::mt19937 random(1);
    std::shuffle(order.begin(), order.end(), random);
    for (const unsigned thread : order) {
        blockIdx = {thread / block_x, 0, 0};
        threadIdx = {thread % block_x, 0, 0};
        reinterpret_cast<ThreadCall>(function)(arguments);
    }
    return kSuccess;
}
}
