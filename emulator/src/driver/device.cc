// device.cc: one device, its context, and the texts of statuses

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../faults.h"
#include "../settings.h"
#include "driver.h"
#include "emulator.h"

namespace emulator {

namespace {

int context;

struct StatusText {
    Status status;
    const char* name;
    const char* text;
};

constexpr StatusText kStatusTexts[] = {
    {kSuccess, "CUDA_SUCCESS", "no error"},
    {kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kDeviceUnavailable, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {kNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kNoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kIllegalState, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kNotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {kNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {kCaptureUnmatched, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {kCaptureIsolation, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {kCaptureWrongThread, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {kCaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
};

const StatusText* find(int status) {
    for (const StatusText& row : kStatusTexts) {
        if (row.status == status) return &row;
    }
    return nullptr;
}

// Whether CUDA_VISIBLE_DEVICES is empty or begins with a negative number.
bool is_hidden() {
    const char* visible = getenv("CUDA_VISIBLE_DEVICES");
    return visible != nullptr && (*visible == '\0' || *visible == '-');
}

// Numbers of an H100 with fewer multiprocessors, so that small shapes already need more than one wave.
int attribute(int which) {
    switch (which) {
        case 1: return 1024;            // threads of a block
        case 2: case 3: return 1024;    // in x, in y
        case 4: return 64;              // in z
        case 5: return 0x7fffffff;      // blocks in x
        case 6: case 7: return 65535;   // in y, in z
        case 8: return 48 << 10;        // shared memory of a block
        case 10: return 32;             // threads of a warp
        case 12: return 65536;          // registers of a block
        case 13: return 1'000'000;      // clock, kHz
        case 16: return 2;              // multiprocessors
        case 31: return 1;              // kernels at once
        case 36: return 1'000'000;      // memory clock, kHz
        case 37: return 64;             // memory bus, bits
        case 38: return 1 << 20;        // second-level cache, bytes
        case 39: return 2048;           // threads of a multiprocessor
        case 41: return 1;              // unified addresses
        case 75: return capability() / 10;
        case 76: return capability() % 10;
        case 81: return 228 << 10;      // shared memory of a multiprocessor
        case 82: return 65536;          // registers of a multiprocessor
        case 97: return 227 << 10;      // shared memory of a block, if allowed
        case 115: return 1;             // memory pools
        default: return 0;
    }
}

}  // namespace

int capability() {
    static const int value = static_cast<int>(setting("SCADLES_EMULATOR_CAPABILITY", 90));
    return value;
}

DRIVER_API cuInit(unsigned) { return is_hidden() ? static_cast<int>(kNoDevice) : device_state(); }
DRIVER_API cuDriverGetVersion(int* version) { return *version = 13000, kSuccess; }
DRIVER_API cuDeviceGetCount(int* count) { return *count = 1, kSuccess; }
DRIVER_API cuDeviceGet(int* device, int ordinal) { return *device = 0, ordinal == 0 ? kSuccess : kInvalidDevice; }
DRIVER_API cuDeviceGetName(char* name, int len, int) {
    snprintf(name, static_cast<size_t>(len), "emulator");
    return kSuccess;
}
DRIVER_API cuDeviceGetUuid_v2(unsigned char* uuid, int) { return memset(uuid, 0, 16), kSuccess; }
DRIVER_API cuDeviceGetAttribute(int* value, int which, int) { return *value = attribute(which), kSuccess; }

DRIVER_API cuDevicePrimaryCtxRetain(void** result, int) { return *result = &context, device_state(); }
DRIVER_API cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
DRIVER_API cuCtxSetCurrent(void* which) {
    core.has_context = which != nullptr;
    return which == nullptr || which == &context ? device_state() : static_cast<int>(kInvalidContext);
}
DRIVER_API cuCtxGetCurrent(void** result) { return *result = core.has_context ? &context : nullptr, kSuccess; }
DRIVER_API cuCtxGetDevice(int* device) { return *device = 0, core.has_context ? kSuccess : kInvalidContext; }
DRIVER_API cuCtxSynchronize() {
    if (core.capture != nullptr) return forbidden_in_capture();
    if (const int fault = fault_of_wait(); fault != kSuccess) return fault;
    finish_all();
    return kSuccess;
}

DRIVER_API cuGetErrorName(int status, const char** name) {
    const StatusText* row = find(status);
    *name = row != nullptr ? row->name : nullptr;
    return row != nullptr ? kSuccess : kInvalidValue;
}
DRIVER_API cuGetErrorString(int status, const char** text) {
    const StatusText* row = find(status);
    *text = row != nullptr ? row->text : nullptr;
    return row != nullptr ? kSuccess : kInvalidValue;
}

}  // namespace emulator
