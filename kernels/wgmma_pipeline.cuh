// wgmma_pipeline.cuh: what the Hopper convolutions share: roles of the warpgroups, stages in shared memory, descriptors
//
// A block is three warpgroups. The first copies: one of its threads keeps the copy engine busy. The other two compute:
// they issue wgmma on operands that lie in shared memory. Between them stand kStages stages, each with a barrier `full`
// (the copied bytes have arrived) and a barrier `empty` (every computing warp is done with them).
//
// Operands. Each is stored in rows of 64 bf16 = 128 bytes, as bulk copies with the 128-byte swizzle write them: 8 rows are
// an atom of 1024 bytes, in which 16-byte piece p of row r stands at piece p ^ r. Stages are multiples of 1024 bytes, so
// the "base offset" of descriptors is 0. Two cases (PTX ISA, "shared memory matrix layout"; canonical layouts):
//   rows of the matrix, gemm_k inside the row (K-major): atoms of 8 rows follow each other at the stride offset, 1024;
//     the leading offset is not used; 16 further elements of gemm_k are 32 bytes further in the row, since the swizzle
//     acts on address bits and the atom is aligned;
//   gemm_k of rows, 64 elements of M or N inside the row (MN-major, the transposed operand): atoms of 8 gemm_k follow
//     each other at the stride offset, 1024; the next 64 of M or N are at the leading offset, the bytes of a 64-wide
//     panel; 16 further elements of gemm_k are two atoms, 2048 bytes, further.
#pragma once

#include "common.cuh"
#include "ptx.cuh"

constexpr int kWarpgroup = 128;
constexpr int kConsumerGroups = 2;
constexpr int kConsumers = kConsumerGroups * kWarpgroup;
constexpr int kBlockSize = kConsumers + kWarpgroup;
constexpr int kConsumerWarps = kConsumers / 32;
// 384 threads start with 168 registers each; the copying warpgroup gives away what the computing ones need.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;

constexpr int kRowLen = 64;       // bf16 in a swizzled row
constexpr int kRowBytes = 128;    // the same in bytes
constexpr int kAtomBytes = 1024;  // 8 rows
constexpr int kPanelBytes = 64 * kRowBytes;
constexpr int kStepK = 16;                    // gemm_k of one wgmma
constexpr int kStepsPerRow = kRowLen / kStepK;
constexpr int kConsumerBarrier = 1;

// Bits 0-13 address, 16-29 leading offset, 32-45 stride offset, all in units of 16 bytes; 62-63 the swizzle, 1 = 128 bytes.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* shared, int leading_bytes) {
    const uint64_t address = (shared_address(shared) & 0x3ffff) >> 4;
    const uint64_t leading = static_cast<uint64_t>(leading_bytes >> 4) << 16;
    const uint64_t stride = static_cast<uint64_t>(kAtomBytes >> 4) << 32;
    return address | leading | stride | (uint64_t{1} << 62);
}

// The descriptor of the same operand `bytes` further.
__device__ __forceinline__ uint64_t advanced(uint64_t descriptor, int bytes) { return descriptor + (bytes >> 4); }

// d += a * b, 64 x kN x 16.
template <int kN, int kTransA, int kTransB>
__device__ __forceinline__ void multiply(float (&d)[kN / 2], uint64_t a, uint64_t b) {
    if constexpr (kN == 64) {
        wgmma_m64n64k16_bf16<kTransA, kTransB>(d, a, b, 1);
    } else if constexpr (kN == 128) {
        wgmma_m64n128k16_bf16<kTransA, kTransB>(d, a, b, 1);
    } else if constexpr (kN == 192) {
        wgmma_m64n192k16_bf16<kTransA, kTransB>(d, a, b, 1);
    } else {
        static_assert(kN == 256, "no such width");
        wgmma_m64n256k16_bf16<kTransA, kTransB>(d, a, b, 1);
    }
}

// Where a role stands in the ring of stages. `parity` is that of the phase in which a consumer finds the stage full.
template <int kStages>
struct Position {
    int stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// The stages of a block and their barriers, in dynamic shared memory.
template <int kStages, int kStageBytes>
struct Ring {
    static_assert(kStageBytes % kAtomBytes == 0, "stages hold whole atoms");
    unsigned char* stages;
    uint64_t* full;
    uint64_t* empty;

    __device__ __forceinline__ Ring(unsigned char* stages, void* barriers)
        : stages(stages), full(static_cast<uint64_t*>(barriers)), empty(full + kStages) {}

    // Called by the whole block before anything else.
    __device__ __forceinline__ void initialise() {
        if (threadIdx.x == 0) {
            for (int i = 0; i < kStages; ++i) {
                mbarrier_init(&full[i], 1);
                mbarrier_init(&empty[i], kConsumerWarps);
            }
            mbarrier_init_fence();
        }
        __syncthreads();
    }

    __device__ __forceinline__ unsigned char* at(int stage) const { return stages + stage * kStageBytes; }

    // The copying thread: waits until the stage is free (at first it is: the phase before a barrier's first counts as over)
    // and announces a stage of bytes.
    __device__ __forceinline__ void acquire(const Position<kStages>& position) const {
        mbarrier_wait(&empty[position.stage], position.parity ^ 1);
        mbarrier_arrive_expect_bytes(&full[position.stage], kStageBytes);
    }

    // A computing warp is done with a stage.
    __device__ __forceinline__ void release(int stage) const {
        if (threadIdx.x % 32 == 0) mbarrier_arrive(&empty[stage]);
    }
};
