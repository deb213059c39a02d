// graph.cc: recording of a stream, and replay of what was recorded
//
// Launches are recorded with their arguments, copied by the sizes that the kernel's signature has; copies with their
// addresses, from which they read when they are replayed.

#include "driver.h"
#include "emulator.h"

namespace emulator {
namespace {

constexpr int kRelaxed = 2;  // CU_STREAM_CAPTURE_MODE_RELAXED

struct GraphHandle {
    std::shared_ptr<Graph> graph;
};

}  // namespace

int forbidden_in_capture() {
    static_cast<Capture*>(core.capture)->invalid = true;
    return kCaptureUnsupported;
}

DRIVER_API cuStreamBeginCapture_v2(void* handle, int mode) {
    const auto stream = find_stream(handle);
    if (stream == nullptr) return kInvalidHandle;
    if (handle == nullptr) return kCaptureUnsupported;
    std::lock_guard guard(stream->lock);
    if (stream->capture != nullptr) return kIllegalState;
    stream->capture = std::make_shared<Capture>();
    stream->capture->of_thread = mode != kRelaxed;
    stream->capture->streams.push_back(stream);
    if (mode != kRelaxed) core.capture = stream->capture.get();
    return kSuccess;
}

DRIVER_API cuStreamEndCapture(void* handle, void** graph) {
    *graph = nullptr;
    const auto stream = find_stream(handle);
    if (stream == nullptr) return kInvalidHandle;
    std::shared_ptr<Capture> capture;
    {
        std::lock_guard guard(stream->lock);
        capture = stream->capture;
    }
    if (capture == nullptr) return kIllegalState;
    if (capture->streams.front() != stream) return kCaptureUnmatched;
    if (capture->of_thread && core.capture != capture.get()) return kCaptureWrongThread;
    if (capture->of_thread) core.capture = nullptr;
    capture->over = true;
    for (const auto& member : capture->streams) {
        std::lock_guard guard(member->lock);
        member->capture = nullptr;
    }
    capture->streams.clear();
    if (capture->invalid) return kCaptureInvalidated;
    *graph = new GraphHandle{capture->graph};
    return kSuccess;
}

DRIVER_API cuStreamIsCapturing(void* handle, int* status) {
    const auto stream = find_stream(handle);
    if (stream == nullptr) return kInvalidHandle;
    std::lock_guard guard(stream->lock);
    *status = stream->capture == nullptr ? 0 : stream->capture->invalid ? 2 : 1;
    return kSuccess;
}

DRIVER_API cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    if (graph == nullptr) return kInvalidValue;
    *executable = new GraphHandle{static_cast<GraphHandle*>(graph)->graph};
    return device_state();
}
DRIVER_API cuGraphUpload(void* executable, void* stream) {
    return executable != nullptr && find_stream(stream) != nullptr ? device_state() : static_cast<int>(kInvalidHandle);
}
DRIVER_API cuGraphLaunch(void* executable, void* stream) {
    if (executable == nullptr) return kInvalidHandle;
    if (const int lost = device_state(); lost != kSuccess) return lost;
    const auto graph = static_cast<GraphHandle*>(executable)->graph;
    return enqueue(stream, [graph] {
        for (const Operation& operation : *graph) operation.run();
    });
}
DRIVER_API cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
    if (graph == nullptr || nodes != nullptr) return kInvalidValue;
    return *count = static_cast<GraphHandle*>(graph)->graph->size(), kSuccess;
}
DRIVER_API cuGraphDestroy(void* graph) { return delete static_cast<GraphHandle*>(graph), kSuccess; }
DRIVER_API cuGraphExecDestroy(void* executable) { return delete static_cast<GraphHandle*>(executable), kSuccess; }

}  // namespace emulator
