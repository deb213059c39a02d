// faults.cc: failures on demand, to test what a program does about them
//
//   SCADLES_EMULATOR_FAIL_ALLOC=n    the n-th allocation finds no memory
//   SCADLES_EMULATOR_FAIL_LAUNCH=n   the n-th launch fails
//   SCADLES_EMULATOR_LOSE_DEVICE=n   the device is lost at the n-th launch or wait
//
// A failed launch and a lost device are final, as on a GPU: every later call says the same.

#include "../faults.h"

#include "../settings.h"
#include "driver.h"

namespace emulator {
namespace {

// Counts calls up to the one that the environment names.
class Countdown {
   public:
    explicit Countdown(const char* variable) : nth_(setting(variable, 0)) {}
    bool hits() { return nth_ != 0 && ++calls_ == nth_; }

   private:
    uint64_t nth_;
    std::atomic<uint64_t> calls_{0};
};

std::atomic<int> state{kSuccess};

void count_operation() {
    static Countdown lose("SCADLES_EMULATOR_LOSE_DEVICE");
    if (lose.hits()) state = kDeviceUnavailable;
}

}  // namespace

int device_state() { return state; }

int fault_of_allocation() {
    static Countdown fail("SCADLES_EMULATOR_FAIL_ALLOC");
    if (state != kSuccess) return state;
    return fail.hits() ? kOutOfMemory : kSuccess;
}

int fault_of_launch() {
    static Countdown fail("SCADLES_EMULATOR_FAIL_LAUNCH");
    count_operation();
    if (state == kSuccess && fail.hits()) state = kLaunchFailed;
    return state;
}

int fault_of_wait() {
    count_operation();
    return state;
}

}  // namespace emulator
