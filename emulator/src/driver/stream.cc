// stream.cc: streams and events

#include <algorithm>
#include <chrono>
#include <map>

#include "../faults.h"
#include "../random.h"
#include "driver.h"
#include "emulator.h"

namespace emulator {
namespace {

constexpr unsigned kWithoutTiming = 2;  // CU_EVENT_DISABLE_TIMING

// Handles are the objects' addresses.
template <class T>
struct Handles {
    std::mutex lock;
    std::map<void*, std::shared_ptr<T>> all;

    void* add(std::shared_ptr<T> object) {
        std::lock_guard guard(lock);
        void* handle = object.get();
        all[handle] = std::move(object);
        return handle;
    }
    std::shared_ptr<T> find(void* handle) {
        std::lock_guard guard(lock);
        const auto found = all.find(handle);
        return found == all.end() ? nullptr : found->second;
    }
    std::shared_ptr<T> remove(void* handle) {
        std::lock_guard guard(lock);
        const auto found = all.find(handle);
        if (found == all.end()) return nullptr;
        auto object = std::move(found->second);
        all.erase(found);
        return object;
    }
    std::vector<std::shared_ptr<T>> list() {
        std::lock_guard guard(lock);
        std::vector<std::shared_ptr<T>> objects;
        for (const auto& [handle, object] : all) objects.push_back(object);
        return objects;
    }
};

// Never destroyed: programs release streams while they end.
Handles<Stream>& streams() {
    static auto& handles = *new Handles<Stream>;
    return handles;
}
Handles<Event>& events() {
    static auto& handles = *new Handles<Event>;
    return handles;
}
const std::shared_ptr<Stream>& default_stream() {
    static auto& stream = *new auto(std::make_shared<Stream>());
    return stream;
}

double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs the first operation of `stream`, or what it waits for; false if there is none.
bool step(Stream& stream) {
    std::unique_lock running(stream.running);
    Operation operation;
    {
        std::lock_guard guard(stream.lock);
        if (stream.queue.empty()) return false;
        Operation& first = stream.queue.front();
        if (first.event != nullptr && first.event->finished < first.record) {
            operation = first;
        } else {
            operation = std::move(first);
            stream.queue.pop_front();
            if (operation.event != nullptr) return true;
        }
    }
    if (operation.event == nullptr) return operation.run(), true;
    // Another stream is first. Not with this one held: it may be waited for from there.
    running.unlock();
    std::shared_ptr<Stream> other;
    {
        std::lock_guard guard(operation.event->lock);
        other = operation.event->stream.lock();
    }
    while (operation.event->finished < operation.record && other != nullptr && step(*other)) {
    }
    return true;
}

void finish(Event& event) {
    std::shared_ptr<Stream> stream;
    {
        std::lock_guard guard(event.lock);
        stream = event.stream.lock();
    }
    const uint64_t record = event.recorded;
    while (event.finished < record && stream != nullptr && step(*stream)) {
    }
}

int push(Stream& stream, Operation operation) {
    std::lock_guard guard(stream.lock);
    if (stream.capture == nullptr) {
        stream.queue.push_back(std::move(operation));
    } else if (stream.capture->invalid) {
        return kCaptureInvalidated;
    } else {
        stream.capture->graph->push_back(std::move(operation));
    }
    return kSuccess;
}

bool is_capturing(Stream& stream) {
    std::lock_guard guard(stream.lock);
    return stream.capture != nullptr;
}

int invalidate(Stream& stream) {
    std::lock_guard guard(stream.lock);
    stream.capture->invalid = true;
    return kCaptureUnsupported;
}

}  // namespace

std::shared_ptr<Stream> find_stream(void* handle) {
    return handle == nullptr ? default_stream() : streams().find(handle);
}

void finish(Stream& stream) {
    while (step(stream)) {
    }
    // Another thread may be at the last operation.
    std::lock_guard wait(stream.running);
}

void finish_all() {
    auto all = streams().list();
    // In any order: streams are ordered by events only.
    static std::atomic<uint64_t> calls{0};
    Random random(mix(seed(), calls++));
    for (size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.below(static_cast<unsigned>(i))]);
    for (const auto& stream : all) {
        if (!is_capturing(*stream)) finish(*stream);
    }
    finish(*default_stream());
}

int enqueue(void* handle, std::function<void()> run) {
    const auto stream = find_stream(handle);
    if (stream == nullptr) return kInvalidHandle;
    if (handle == nullptr) {
        if (core.capture != nullptr) return forbidden_in_capture();
        finish_all();
        run();
        return kSuccess;
    }
    return push(*stream, {std::move(run), nullptr, 0});
}

DRIVER_API cuStreamCreate(void** stream, unsigned) {
    if (const int lost = device_state(); lost != kSuccess) return lost;
    return *stream = streams().add(std::make_shared<Stream>()), kSuccess;
}
DRIVER_API cuStreamCreateWithPriority(void** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
DRIVER_API cuStreamDestroy_v2(void* handle) {
    const auto stream = find_stream(handle);
    if (stream == nullptr || handle == nullptr) return kInvalidHandle;
    finish(*stream);
    streams().remove(handle);
    return device_state();
}
DRIVER_API cuStreamSynchronize(void* handle) {
    const auto stream = find_stream(handle);
    if (stream == nullptr) return kInvalidHandle;
    if (is_capturing(*stream)) return invalidate(*stream);
    if (const int fault = fault_of_wait(); fault != kSuccess) return fault;
    if (handle == nullptr) finish_all();
    finish(*stream);
    return kSuccess;
}
DRIVER_API cuStreamQuery(void* handle) {
    const auto stream = find_stream(handle);
    if (stream == nullptr) return kInvalidHandle;
    if (is_capturing(*stream)) return invalidate(*stream);
    // Who asks again and again sees progress.
    if (step(*stream)) return kNotReady;
    return device_state();
}

DRIVER_API cuStreamWaitEvent(void* handle, void* event_handle, unsigned) {
    const auto stream = find_stream(handle);
    const auto event = events().find(event_handle);
    if (stream == nullptr || event == nullptr) return kInvalidHandle;
    std::shared_ptr<Capture> capture;
    {
        std::lock_guard guard(event->lock);
        capture = event->capture;
    }
    {
        std::lock_guard guard(stream->lock);
        if (capture != nullptr && capture->over) return kInvalidValue;
        if (capture != nullptr && stream->capture == nullptr) {
            stream->capture = capture;
            capture->streams.push_back(stream);
        }
        // Recorded operations run in the order in which they were recorded, so nothing is left to wait for.
        if (capture != nullptr) return stream->capture == capture ? kSuccess : kCaptureIsolation;
        if (stream->capture != nullptr) return event->recorded == 0 ? kSuccess : kCaptureIsolation;
    }
    if (event->recorded == 0) return kSuccess;
    if (handle == nullptr) return finish(*event), kSuccess;
    return push(*stream, {nullptr, event, event->recorded});
}

DRIVER_API cuEventCreate(void** handle, unsigned flags) {
    auto event = std::make_shared<Event>();
    event->timed = (flags & kWithoutTiming) == 0;
    return *handle = events().add(std::move(event)), device_state();
}
DRIVER_API cuEventDestroy_v2(void* handle) { return events().remove(handle) != nullptr ? kSuccess : kInvalidHandle; }
DRIVER_API cuEventRecord(void* event_handle, void* handle) {
    const auto stream = find_stream(handle);
    const auto event = events().find(event_handle);
    if (stream == nullptr || event == nullptr) return kInvalidHandle;
    {
        std::lock_guard guard(stream->lock);
        std::lock_guard event_guard(event->lock);
        event->capture = stream->capture;
        if (stream->capture != nullptr) return kSuccess;
        event->stream = stream;
    }
    const uint64_t record = ++event->recorded;
    return enqueue(handle, [event, record] {
        event->time_s = now_s();
        event->finished = record;
    });
}
DRIVER_API cuEventSynchronize(void* handle) {
    const auto event = events().find(handle);
    if (event == nullptr) return kInvalidHandle;
    if (event->capture != nullptr) return kCaptureUnsupported;
    if (const int fault = fault_of_wait(); fault != kSuccess) return fault;
    finish(*event);
    return kSuccess;
}
DRIVER_API cuEventQuery(void* handle) {
    const auto event = events().find(handle);
    if (event == nullptr) return kInvalidHandle;
    if (event->finished >= event->recorded) return device_state();
    std::shared_ptr<Stream> stream;
    {
        std::lock_guard guard(event->lock);
        stream = event->stream.lock();
    }
    if (stream != nullptr) step(*stream);
    return kNotReady;
}
DRIVER_API cuEventElapsedTime_v2(float* milliseconds, void* begin_handle, void* end_handle) {
    const auto begin = events().find(begin_handle), end = events().find(end_handle);
    if (begin == nullptr || end == nullptr || !begin->timed || !end->timed) return kInvalidHandle;
    if (begin->recorded == 0 || end->recorded == 0) return kInvalidHandle;
    if (begin->finished < begin->recorded || end->finished < end->recorded) return kNotReady;
    return *milliseconds = static_cast<float>((end->time_s - begin->time_s) * 1e3), kSuccess;
}
DRIVER_API cuEventElapsedTime(float* milliseconds, void* begin, void* end) {
    return cuEventElapsedTime_v2(milliseconds, begin, end);
}

}  // namespace emulator
