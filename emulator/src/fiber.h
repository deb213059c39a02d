// fiber.h: stacks that an operating system's thread goes back and forth between
#pragma once

#include <cstddef>

namespace emulator {

struct Fiber {
    void* stack_pointer = nullptr;
    // Lowest address, above a page that may not be touched; null for the stack that the system made.
    unsigned char* stack = nullptr;
    size_t stack_bytes = 0;
    void* fake_stack = nullptr;  // AddressSanitizer's
};

// A fiber that begins with `entry`, which never returns, when it is first gone to. `number` sets it apart from others in the
// caches.
void make_fiber(Fiber& fiber, void (*entry)(), unsigned number);

// Leaves `from` and goes on with `to`.
void switch_fiber(Fiber& from, Fiber& to);

// The first thing that a fiber calls.
void fiber_begins();

}  // namespace emulator
