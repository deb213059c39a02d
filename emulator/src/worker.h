// worker.h: what one of the system's threads needs to run blocks
#pragma once

#include <memory>
#include <vector>

#include "block.h"
#include "fiber.h"

namespace emulator {

struct Worker {
    Block block;
    Fiber system;  // the stack that the system gave the thread
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Fiber*> idle;
    Fiber* entering = nullptr;       // the newest fiber, for its first step
    BlockThread* handed = nullptr;  // the thread that the next idle fiber starts with
};

// Of this thread of the system, made at its first use.
Worker& this_worker();

void run_block(Worker& worker, const Launch& launch, Index index, uint64_t seed, bool poison_static);

// Let those who wait go on, if all that they wait for are there (collectives.cc).
void release_gatherings(Block& block, Warp& warp, unsigned warp_index);
void release_barrier(Block& block, Barrier& barrier);

}  // namespace emulator
