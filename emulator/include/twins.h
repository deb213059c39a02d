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

// mbarrier.
void mbarrier_initialise(uint64_t* barrier, int arrivals);
void mbarrier_fence();
void mbarrier_arrives(uint64_t* barrier, int bytes);
void mbarrier_waits(uint64_t* barrier, uint32_t parity);

// cp.async.bulk.tensor: coordinates innermost first; the offsets of im2col along W, H.
void bulk_copy_tile(void* to, const void* map, uint64_t* barrier, const int* coordinates, unsigned rank);
void bulk_copy_pixels(void* to, const void* map, uint64_t* barrier, const int (&coordinates)[4], const int (&offsets)[2]);

// wgmma of 64 x `columns` x 16.
void warpgroup_multiply(float* d, unsigned columns, uint64_t a, uint64_t b, bool accumulate, bool trans_a, bool trans_b);
void warpgroup_fence();
void warpgroup_commit();
void warpgroup_wait(unsigned pending);

}  // namespace emulator
