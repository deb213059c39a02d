// twins.h: what the twins of the instructions call
#pragma once

#include <cstdint>

namespace emulator {

// cp.async: `size` bytes, of which `bytes` are read and the rest are zeros.
void async_copy(void* to, const void* from, unsigned size, int bytes);
void async_commit();
void async_wait(unsigned pending);

// ldmatrix of `count` matrices.
void load_matrices(uint32_t* registers, const void* row, unsigned count, bool transposed);

// mma.m16n8k16 of bf16.
void multiply_m16n8k16(float* d, const uint32_t* a, uint32_t b0, uint32_t b1);

}  // namespace emulator
