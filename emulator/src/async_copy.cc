// async_copy.cc: cp.async, which lands when its thread waits for it
//
// In between, what it writes to is NaN: it may land at any time, so nobody may count on what was there either.

#include <cstring>

#include "block.h"
#include "shared_memory.h"
#include "twins.h"

namespace emulator {

void async_copy(void* to, const void* from, unsigned size, int bytes) {
    if (bytes < 0 || static_cast<unsigned>(bytes) > size) fail("cp.async of %d bytes into %u", bytes, size);
    if (reinterpret_cast<uintptr_t>(to) % size != 0) fail("cp.async: %p in shared memory is not aligned to %u", to, size);
    if (reinterpret_cast<uintptr_t>(from) % size != 0) fail("cp.async: %p in global memory is not aligned to %u", from, size);
    if (!is_shared(to, size)) fail("cp.async: %p is not in shared memory", to);
    BlockThread& thread = *core.block->self();
    memset(to, 0xff, size);
    thread.async_copies.push_back({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from),
                                   static_cast<unsigned char>(bytes), static_cast<unsigned char>(size), thread.async_groups});
}

void async_commit() { ++core.block->self()->async_groups; }

void async_wait(unsigned pending) { complete_async_copies(*core.block->self(), pending); }

void complete_async_copies(BlockThread& thread, unsigned pending) {
    auto& copies = thread.async_copies;
    size_t done = 0;
    // In the order of issue, so that the groups ascend.
    for (; done < copies.size() && copies[done].group + pending < thread.async_groups; ++done) {
        const AsyncCopy& copy = copies[done];
        memcpy(copy.to, copy.from, copy.bytes);
        memset(copy.to + copy.bytes, 0, static_cast<size_t>(copy.size - copy.bytes));
    }
    copies.erase(copies.begin(), copies.begin() + static_cast<ptrdiff_t>(done));
}

}  // namespace emulator
