// shared_memory.h: addresses in the block's shared memory
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

// What instructions that take 32-bit addresses of shared memory call `pointer`, and back, for `bytes` of dynamic shared memory.
uint32_t shared_address(const void* pointer);
unsigned char* at_shared_address(uint32_t address, size_t bytes);
size_t dynamic_shared_bytes();

// Whether these bytes are shared memory of the block.
bool is_shared(const void* pointer, size_t bytes);

}  // namespace emulator
