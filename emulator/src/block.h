// block.h: one block at work: its threads, who is ready, who waits for what
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "emulator.h"
#include "fiber.h"
#include "random.h"

namespace emulator {

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kMaxBarriers = 16;

// A launch's grid and arguments.
struct Launch {
    const Kernel* kernel;
    Index grid_dim, block_dim;
    size_t shared_bytes;
    void* const* arguments;
};

// A copy of cp.async that its thread has not waited for.
struct AsyncCopy {
    unsigned char* to;
    const unsigned char* from;
    unsigned char bytes, size;  // read, and written with zeros behind
    unsigned group;
};

struct BlockThread : Thread {
    Fiber* fiber;          // where it stands; null before it starts
    const char* waits_at;  // name of what it waits in, and its line, for messages
    unsigned line;
    unsigned barrier_result;
    unsigned async_groups;  // committed
    std::vector<AsyncCopy> async_copies;
};

// Lanes that wait for the rest of their mask.
struct Gathering {
    uint32_t mask = 0;  // 0: free
    uint32_t arrived;
    WarpFunction function;
    const char* name;
    void* operands[32];
};

struct Warp {
    uint32_t alive;
    unsigned at_barrier;  // lanes that wait at one, and at which
    unsigned barrier_id, barrier_line;
    std::vector<Gathering> gatherings = std::vector<Gathering>(1);
};

struct Barrier {
    unsigned threads = 0;  // 0: all that live
    unsigned arrived = 0, votes = 0;
    std::vector<BlockThread*> waiting;
};

struct Hopper;  // what only Hopper's instructions need

struct Block {
    const Launch* launch = nullptr;
    Index shape{};  // of the thread indices that are set
    unsigned num_threads, num_alive;
    Random random;
    unsigned num_ready;
    BlockThread* ready[kMaxThreads];
    BlockThread threads[kMaxThreads];
    Warp warps[kMaxThreads / 32];
    Barrier barriers[kMaxBarriers];
    std::unique_ptr<Hopper> hopper;

    Block();
    ~Block();
    void make_ready(BlockThread* thread) { ready[num_ready++] = thread; }
    BlockThread* self() { return static_cast<BlockThread*>(core.thread); }
    Warp& warp() { return warps[core.thread->linear / 32]; }
};

// Lets others run until somebody has made this thread ready; `name` and `line` say what it waits in.
void wait(const char* name, unsigned line = 0);

// What the driver's side of the emulator calls: all blocks of a launch, on this and other threads of the system.
void run_grid(const Launch& launch);

// ---- Shared memory (shared_memory.cc) -----------------------------------------------------------------------------

// Gives the worker's blocks `bytes` of dynamic shared memory.
void reserve_dynamic_shared(size_t bytes);
// Fills shared memory with NaN; `static_too` for what kernels declare, too.
void poison_shared(bool static_too);
// Ends the program if something was written beside the dynamic shared memory.
void check_dynamic_shared();

// ---- Hopper (hopper.cc) -------------------------------------------------------------------------------------------

// At the block's begin and end, and whenever another thread is about to run.
void hopper_begins(Block& block);
void hopper_passes(Block& block);
void hopper_ends(Block& block);
// Brings one bulk copy home, whether its time has come or not; false if there is none.
bool hopper_lands(Block& block);

// Completes the copies of cp.async up to the newest `pending` groups (async_copy.cc).
void complete_async_copies(BlockThread& thread, unsigned pending);

}  // namespace emulator
