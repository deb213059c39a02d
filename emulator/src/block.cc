// block.cc: runs a block: threads in random order, each until it must wait
//
// A thread starts on whatever stack is at hand and returns it when it ends, so that threads which never wait run one after
// another on one stack, without a switch. One that waits keeps its stack, and another stack goes on.

#include "block.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "worker.h"

namespace emulator {

constinit thread_local Core core{};

namespace {

Worker& worker() { return *static_cast<Worker*>(core.worker); }

// The next to run, at random; null if nobody can.
BlockThread* pick(Block& block) {
    hopper_passes(block);
    while (block.num_ready == 0) {
        if (!hopper_lands(block)) return nullptr;
    }
    const unsigned i = block.random.below(block.num_ready);
    BlockThread* thread = block.ready[i];
    block.ready[i] = block.ready[--block.num_ready];
    return thread;
}

// Threads that wait, a line for each thing they wait in.
std::string who_waits(const Block& block) {
    std::string text;
    std::vector<const BlockThread*> told;
    for (unsigned i = 0; i < block.num_threads; ++i) {
        const BlockThread& thread = block.threads[i];
        if (thread.fiber == nullptr || thread.waits_at == nullptr) continue;
        const auto same = [&](const BlockThread* other) {
            return other->waits_at == thread.waits_at && other->line == thread.line;
        };
        if (std::any_of(told.begin(), told.end(), same)) continue;
        told.push_back(&thread);
        unsigned count = 0;
        for (unsigned j = i; j < block.num_threads; ++j) {
            const BlockThread& other = block.threads[j];
            if (other.fiber != nullptr && other.waits_at != nullptr && same(&other)) ++count;
        }
        char line[256];
        const auto [x, y, z] = thread.index;
        int len = snprintf(line, sizeof line, "\n    thread (%u, %u, %u)", x, y, z);
        if (count > 1) len += snprintf(line + len, sizeof line - len, " and %u more", count - 1);
        len += snprintf(line + len, sizeof line - len, " in %s", thread.waits_at);
        if (thread.line != 0) snprintf(line + len, sizeof line - len, ", line %u", thread.line);
        text += line;
    }
    return text;
}

// After a thread's last statement: those who waited for it only go on.
void thread_ends(Block& block, BlockThread& thread) {
    if (!thread.async_copies.empty()) complete_async_copies(thread, 0);
    --block.num_alive;
    thread.fiber = nullptr;
    thread.waits_at = nullptr;
    Warp& warp = block.warps[thread.linear / 32];
    warp.alive &= ~(1u << thread.linear % 32);
    release_gatherings(block, warp, thread.linear / 32);
    for (Barrier& barrier : block.barriers) {
        if (barrier.threads == 0 && barrier.arrived != 0 && barrier.arrived == block.num_alive) release_barrier(block, barrier);
    }
}

void run_thread(Block& block, BlockThread& thread, Fiber& fiber) {
    thread.fiber = &fiber;
    core.thread = &thread;
    block.launch->kernel->call(block.launch->arguments);
    thread_ends(block, thread);
}

// What every fiber does: threads, as long as there are.
void fiber_loop() {
    fiber_begins();
    Worker& worker = emulator::worker();
    Block& block = worker.block;
    Fiber& self = *worker.entering;
    for (;;) {
        BlockThread* thread = std::exchange(worker.handed, nullptr);
        if (thread == nullptr) thread = pick(block);
        if (thread == nullptr) {
            core.thread = nullptr;
            if (block.num_alive != 0) fail("deadlock: nobody can go on%s", who_waits(block).c_str());
            worker.idle.push_back(&self);
            switch_fiber(self, worker.system);
        } else if (thread->fiber == nullptr) {
            run_thread(block, *thread, self);
        } else {
            worker.idle.push_back(&self);
            switch_fiber(self, *thread->fiber);
        }
    }
}

Fiber& idle_fiber(Worker& worker) {
    if (worker.idle.empty()) {
        worker.fibers.push_back(std::make_unique<Fiber>());
        make_fiber(*worker.fibers.back(), fiber_loop, static_cast<unsigned>(worker.fibers.size()));
        worker.entering = worker.fibers.back().get();
        return *worker.fibers.back();
    }
    Fiber* fiber = worker.idle.back();
    worker.idle.pop_back();
    return *fiber;
}

}  // namespace

void wait(const char* name, unsigned line) {
    Worker& worker = emulator::worker();
    Block& block = worker.block;
    BlockThread* self = block.self();
    self->waits_at = name;
    self->line = line;
    BlockThread* next = pick(block);
    if (next == nullptr) fail("deadlock: nobody can go on%s", who_waits(block).c_str());
    if (next != self) {
        if (next->fiber == nullptr) {
            worker.handed = next;
            switch_fiber(*self->fiber, idle_fiber(worker));
        } else {
            core.thread = next;
            switch_fiber(*self->fiber, *next->fiber);
        }
        core.thread = self;
    }
    self->waits_at = nullptr;
}

void yield() {
    core.block->make_ready(core.block->self());
    wait("a place to yield");
}

uint32_t lanes_alive() { return core.block->warp().alive; }

void start_block(Worker& worker, const Launch& launch, Index index, uint64_t seed) {
    Block& block = worker.block;
    const Index dim = launch.block_dim;
    const unsigned num_threads = dim.x * dim.y * dim.z;
    block.random = Random(seed);
    if (block.shape.x != dim.x || block.shape.y != dim.y || block.shape.z != dim.z) {
        block.shape = dim;
        unsigned i = 0;
        for (unsigned z = 0; z < dim.z; ++z) {
            for (unsigned y = 0; y < dim.y; ++y) {
                for (unsigned x = 0; x < dim.x; ++x, ++i) block.threads[i].index = {x, y, z}, block.threads[i].linear = i;
            }
        }
    }
    block.launch = &launch;
    block.num_threads = block.num_alive = block.num_ready = num_threads;
    for (unsigned i = 0; i < num_threads; ++i) {
        block.ready[i] = &block.threads[i];
        block.threads[i].fiber = nullptr;
        block.threads[i].async_groups = 0;
    }
    for (unsigned first = 0; first < num_threads; first += 32) {
        const unsigned lanes = std::min(32u, num_threads - first);
        block.warps[first / 32].alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
        block.warps[first / 32].at_barrier = 0;
    }
    core.block = &block;
    core.block_index = index;
    core.block_dim = dim;
    core.grid_dim = launch.grid_dim;
}

void run_block(Worker& worker, const Launch& launch, Index index, uint64_t seed, bool poison_static) {
    start_block(worker, launch, index, seed);
    poison_shared(poison_static);
    hopper_begins(worker.block);
    switch_fiber(worker.system, idle_fiber(worker));
    for (const Barrier& barrier : worker.block.barriers) {
        if (barrier.arrived != 0) fail("the block ended while threads waited at a barrier");
    }
    hopper_ends(worker.block);
    check_dynamic_shared();
    core.block = nullptr;
}

void fail(const char* format, ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    std::string where;
    if (core.block != nullptr) {
        char line[256];
        const auto [bx, by, bz] = core.block_index;
        snprintf(line, sizeof line, "kernel %s, block (%u, %u, %u)", core.block->launch->kernel->name, bx, by, bz);
        where = line;
        if (core.thread != nullptr) {
            const auto [x, y, z] = core.thread->index;
            snprintf(line, sizeof line, ", thread (%u, %u, %u)", x, y, z);
            where += line;
        }
        where += ": ";
    }
    fprintf(stderr, "emulator: %s%s\n", where.c_str(), text);
    fflush(stderr);
    abort();
}

}  // namespace emulator
