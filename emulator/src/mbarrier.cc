// mbarrier.cc: barriers in shared memory, of arrivals and of bytes
//
// A barrier's 64 bits are opaque on a GPU too. Here they hold a mark, by which one that was not initialised, or was written
// over, is known; its state stands beside the block.

#include "hopper.h"
#include "shared_memory.h"
#include "twins.h"

namespace emulator {
namespace {

uint64_t mark(const uint64_t* address) { return 0x6d62617272696572 ^ reinterpret_cast<uintptr_t>(address); }

void complete_if_due(SharedBarrier& barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0) return;
    barrier.parity ^= 1;
    barrier.pending = barrier.arrivals;
    for (BlockThread* thread : barrier.waiting) core.block->make_ready(thread);
    barrier.waiting.clear();
}

}  // namespace

SharedBarrier& find_barrier(uint64_t* address, const char* name) {
    for (SharedBarrier& barrier : hopper().barriers) {
        if (barrier.address != address) continue;
        if (*address != mark(address)) fail("%s: the barrier at %p was written over", name, static_cast<void*>(address));
        return barrier;
    }
    fail("%s: there is no initialised barrier at %p", name, static_cast<void*>(address));
}

void barrier_receives(uint64_t* address, int64_t bytes) {
    SharedBarrier& barrier = find_barrier(address, "bulk copy");
    barrier.bytes -= bytes;
    complete_if_due(barrier);
}

void mbarrier_initialise(uint64_t* address, int arrivals) {
    if (reinterpret_cast<uintptr_t>(address) % 8 != 0 || !is_shared(address, 8)) {
        fail("mbarrier_init: %p is not 8 aligned bytes of shared memory", static_cast<void*>(address));
    }
    if (arrivals < 1 || arrivals >= 1 << 20) fail("mbarrier_init: %d arrivals", arrivals);
    for (const SharedBarrier& other : hopper().barriers) {
        if (other.address == address) fail("mbarrier_init: the barrier is initialised already");
    }
    *address = mark(address);
    const auto count = static_cast<unsigned>(arrivals);
    hopper().barriers.push_back({address, count, count, 0, 0, false, core.thread->linear, {}});
}

void mbarrier_fence() {
    for (SharedBarrier& barrier : hopper().barriers) {
        if (barrier.initialiser == core.thread->linear) barrier.fenced = true;
    }
}

void mbarrier_arrives(uint64_t* address, int bytes) {
    SharedBarrier& barrier = find_barrier(address, "mbarrier_arrive");
    if (bytes < 0 || barrier.bytes + bytes >= 1 << 20) fail("mbarrier_arrive: %d more bytes than a barrier can count", bytes);
    if (barrier.pending == 0) fail("mbarrier_arrive: more than the %u arrivals of a phase", barrier.arrivals);
    barrier.bytes += bytes;
    --barrier.pending;
    complete_if_due(barrier);
}

void mbarrier_waits(uint64_t* address, uint32_t parity) {
    if (parity > 1) fail("mbarrier_wait: a parity of %u", parity);
    // Asking is a moment at which others may go on.
    if (core.block->random.below(4) == 0) yield();
    while (find_barrier(address, "mbarrier_wait").parity == parity) {
        find_barrier(address, "mbarrier_wait").waiting.push_back(core.block->self());
        wait("mbarrier_wait");
    }
}

}  // namespace emulator
