// driver.h: what the files of the driver share
//
// A stream is a queue that runs only when somebody waits for it, or for an event behind it, in the thread that waits. So
// whoever forgets to wait, on the host or between streams, sees memory as it was before.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#define DRIVER_API extern "C" __attribute__((visibility("default"))) int

namespace emulator {

// CUresult.
enum Status : int {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kDeviceUnavailable = 46,
    kNoDevice = 100,
    kInvalidDevice = 101,
    kInvalidContext = 201,
    kNoBinaryForGpu = 209,
    kInvalidHandle = 400,
    kIllegalState = 401,
    kNotFound = 500,
    kNotReady = 600,
    kLaunchFailed = 719,
    kNotSupported = 801,
    kCaptureUnsupported = 900,
    kCaptureInvalidated = 901,
    kCaptureUnmatched = 903,
    kCaptureIsolation = 905,
    kCaptureImplicit = 906,
    kCaptureWrongThread = 908,
};

using Pointer = unsigned long long;

struct Stream;

struct Event {
    std::mutex lock;
    std::weak_ptr<Stream> stream;      // of the last record
    std::shared_ptr<struct Capture> capture;  // that it was last recorded in
    std::atomic<uint64_t> recorded{0}, finished{0};
    double time_s = 0;
    bool timed = true;
};

// One step of a stream: work, or the wait for an event's record of this number.
struct Operation {
    std::function<void()> run;
    std::shared_ptr<Event> event;
    uint64_t record = 0;
};

using Graph = std::vector<Operation>;

// A recording. Streams that wait for its events take part in it.
struct Capture {
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    bool invalid = false, over = false;
    bool of_thread = false;  // what its thread may call is limited
    std::vector<std::shared_ptr<Stream>> streams;  // the first one began it
};

struct Stream : std::enable_shared_from_this<Stream> {
    std::recursive_mutex running;  // held by the thread that runs an operation
    std::mutex lock;               // of what follows
    std::deque<Operation> queue;
    std::shared_ptr<Capture> capture;
};

// The stream of a handle; null for one that does not exist. The handle null is the default stream, which waits for all
// others and is waited for at once.
std::shared_ptr<Stream> find_stream(void* handle);

// Queues, or records if the stream is recorded.
int enqueue(void* stream, std::function<void()> run);
// Runs a stream until it is empty.
void finish(Stream& stream);
// Runs all streams until they are empty.
void finish_all();

// What a thread that records must not call; invalidates the recording and says so.
int forbidden_in_capture();

// ---- Memory -------------------------------------------------------------------------------------------------------

// Ends the program if something was written beside an allocation; `after` says what ran last.
void check_guards(const char* after);
// Whether these bytes are within one allocation.
bool is_allocated(Pointer start, size_t bytes);

// ---- Faults -------------------------------------------------------------------------------------------------------

// The status that every call has once the device is lost; kSuccess before.
int device_state();

// The compute capability that is reported, as in 90.
int capability();

}  // namespace emulator
