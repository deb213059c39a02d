// thread.h: where a kernel's thread stands, and the ways in which it waits for others
#pragma once

#include <cstdint>

namespace emulator {

struct Index {
    unsigned x, y, z;
};

// What a kernel sees of its thread; the scheduler knows more of it.
struct Thread {
    Index index;
    unsigned linear;  // x innermost
};

struct Block;
struct SharedMemory;

// Of each operating system's thread. The library's only such variable beside the kernels' shared memory.
struct Core {
    Thread* thread;
    Index block_index, block_dim, grid_dim;
    unsigned char* dynamic_shared;
    Block* block;
    void* worker;  // what the block runs on
    SharedMemory* shared;
    void* capture;  // the recording that this thread's calls of the driver must not disturb
    bool has_context;
};
extern constinit thread_local Core core;

// Runs once all lanes of a warp that take part are there: `operands[lane]` is what each brought.
using WarpFunction = void (*)(void* const* operands, uint32_t lanes);

// Waits for the other lanes of `mask`; the last to come runs `function`.
void warp_collective(uint32_t mask, WarpFunction function, void* operand, const char* name);

// Barrier `id` of the block: of `threads` threads, or, with 0, of all that have not returned. How many of them came with
// a predicate other than 0.
unsigned block_barrier(unsigned id, unsigned threads, bool predicate, const char* name, unsigned line);

// Lets other threads of the block run.
void yield();

// Lanes of this thread's warp that have not returned, and its own number.
uint32_t lanes_alive();
inline unsigned lane() { return core.thread->linear % 32; }

// Ends the program, saying what in which kernel, block and thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace emulator
