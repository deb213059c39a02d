// ptx_twins.h: a CPU twin for every function of kernels/ptx.cuh; included from there
#pragma once

#include "cuda_bf16.h"
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

// ---- Small instructions of every device ---------------------------------------------------------------------------

inline void named_barrier(int number, int threads) {
    emulator::block_barrier(static_cast<unsigned>(number), static_cast<unsigned>(threads), false, "named_barrier",
                            static_cast<unsigned>(number));
}
inline uint32_t pack_bf16(float low, float high) {
    return __float2bfloat16_rn(low).bits | static_cast<uint32_t>(__float2bfloat16_rn(high).bits) << 16;
}

// ---- Hopper -------------------------------------------------------------------------------------------------------

inline void mbarrier_init(uint64_t* barrier, int arrivals) { emulator::mbarrier_initialise(barrier, arrivals); }
inline void mbarrier_init_fence() { emulator::mbarrier_fence(); }
inline void mbarrier_arrive_expect_bytes(uint64_t* barrier, int bytes) { emulator::mbarrier_arrives(barrier, bytes); }
inline void mbarrier_arrive(uint64_t* barrier) { emulator::mbarrier_arrives(barrier, 0); }
inline void mbarrier_wait(uint64_t* barrier, uint32_t parity) { emulator::mbarrier_waits(barrier, parity); }

inline void fence_proxy_async() {}
inline void prefetch_tensor_map(const TensorMap*) {}

inline void bulk_copy_2d(void* shared, const TensorMap* map, uint64_t* barrier, int x, int y) {
    const int coordinates[] = {x, y};
    emulator::bulk_copy_tile(shared, map, barrier, coordinates, 2);
}
inline void bulk_copy_3d(void* shared, const TensorMap* map, uint64_t* barrier, int x, int y, int z) {
    const int coordinates[] = {x, y, z};
    emulator::bulk_copy_tile(shared, map, barrier, coordinates, 3);
}
inline void bulk_copy_im2col(void* shared, const TensorMap* map, uint64_t* barrier, int c, int w, int h, int n,
                             uint16_t offset_w, uint16_t offset_h) {
    emulator::bulk_copy_pixels(shared, map, barrier, {c, w, h, n}, {offset_w, offset_h});
}

inline void wgmma_fence() { emulator::warpgroup_fence(); }
inline void wgmma_commit() { emulator::warpgroup_commit(); }
template <int kPending>
inline void wgmma_wait() {
    emulator::warpgroup_wait(kPending);
}
template <int kTransA, int kTransB>
inline void wgmma_m64n64k16_bf16(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
    emulator::warpgroup_multiply(d, 64, a, b, accumulate != 0, kTransA, kTransB);
}
template <int kTransA, int kTransB>
inline void wgmma_m64n128k16_bf16(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
    emulator::warpgroup_multiply(d, 128, a, b, accumulate != 0, kTransA, kTransB);
}
template <int kTransA, int kTransB>
inline void wgmma_m64n192k16_bf16(float (&d)[96], uint64_t a, uint64_t b, int accumulate) {
    emulator::warpgroup_multiply(d, 192, a, b, accumulate != 0, kTransA, kTransB);
}
template <int kTransA, int kTransB>
inline void wgmma_m64n256k16_bf16(float (&d)[128], uint64_t a, uint64_t b, int accumulate) {
    emulator::warpgroup_multiply(d, 256, a, b, accumulate != 0, kTransA, kTransB);
}
template <int kLen>
inline void keep_registers(float (&)[kLen]) {}
template <int kRegisters>
inline void registers_increase() {}
template <int kRegisters>
inline void registers_decrease() {}
