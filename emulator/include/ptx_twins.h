// ptx_twins.h: a CPU twin for every function of kernels/ptx.cuh; included from there
#pragma once

#include "shared_memory.h"
#include "twins.h"

inline uint32_t shared_address(const void* pointer) { return emulator::shared_address(pointer); }

// ---- Asynchronous copies, global to shared ------------------------------------------------------------------------

inline void cp_async_16(void* shared, const void* global, int bytes) { emulator::async_copy(shared, global, 16, bytes); }
inline void cp_async_8(void* shared, const void* global, int bytes) { emulator::async_copy(shared, global, 8, bytes); }
inline void cp_async_4(void* shared, const void* global, int bytes) { emulator::async_copy(shared, global, 4, bytes); }
inline void cp_async_commit() { emulator::async_commit(); }
template <int kPending>
inline void cp_async_wait() {
    emulator::async_wait(kPending);
}

// ---- Warp matrix instructions -------------------------------------------------------------------------------------

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { emulator::load_matrices(r, row, 4, false); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { emulator::load_matrices(r, row, 4, true); }
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row) { emulator::load_matrices(r, row, 2, false); }
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) { emulator::load_matrices(r, row, 2, true); }
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    emulator::multiply_m16n8k16(d, a, b0, b1);
}
