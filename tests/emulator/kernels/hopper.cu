// hopper.cu: barriers in shared memory, bulk tensor copies, warpgroup products

#include "common.cuh"
#include "ptx.cuh"

// Copies one box and writes shared memory to out as it lies there.
__device__ __forceinline__ void begin(uint64_t* barrier) {
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
    }
    __syncthreads();
}

__device__ __forceinline__ void end(unsigned char* out, const unsigned char* shared, uint64_t* barrier, int bytes) {
    mbarrier_wait(barrier, 0);
    for (int i = threadIdx.x; i < bytes; i += blockDim.x) out[i] = shared[i];
}

extern "C" __global__ void hopper_tile_2d(unsigned char* out, const __grid_constant__ TensorMap map, int bytes, int x, int y) {
    DYNAMIC_SHARED(shared);
    __shared__ uint64_t barrier;
    begin(&barrier);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_bytes(&barrier, bytes);
        bulk_copy_2d(shared, &map, &barrier, x, y);
    }
    end(out, shared, &barrier, bytes);
}

extern "C" __global__ void hopper_tile_3d(unsigned char* out, const __grid_constant__ TensorMap map, int bytes, int x, int y,
                                          int z) {
    DYNAMIC_SHARED(shared);
    __shared__ uint64_t barrier;
    begin(&barrier);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_bytes(&barrier, bytes);
        bulk_copy_3d(shared, &map, &barrier, x, y, z);
    }
    end(out, shared, &barrier, bytes);
}

extern "C" __global__ void hopper_pixels(unsigned char* out, const __grid_constant__ TensorMap map, int bytes, int c, int w,
                                         int h, int n, int offset_w, int offset_h) {
    DYNAMIC_SHARED(shared);
    __shared__ uint64_t barrier;
    begin(&barrier);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_bytes(&barrier, bytes);
        bulk_copy_im2col(shared, &map, &barrier, c, w, h, n, static_cast<uint16_t>(offset_w), static_cast<uint16_t>(offset_h));
    }
    end(out, shared, &barrier, bytes);
}

// Numbers through a ring of two slots, from the first warp to the second; each slot has a barrier for each direction.
extern "C" __global__ void hopper_ring(unsigned* out, int count) {
    __shared__ uint64_t full[2], empty[2];
    __shared__ unsigned slots[2][32];
    const int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; ++i) {
            mbarrier_init(&full[i], 32);
            mbarrier_init(&empty[i], 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    for (int i = 0; i < count; ++i) {
        const int slot = i % 2;
        const uint32_t parity = i / 2 % 2;
        if (threadIdx.x < 32) {
            mbarrier_wait(&empty[slot], parity ^ 1);
            slots[slot][lane] = 1000 * i + lane;
            mbarrier_arrive(&full[slot]);
        } else {
            mbarrier_wait(&full[slot], parity);
            out[32 * i + lane] = slots[slot][31 - lane];
            mbarrier_arrive(&empty[slot]);
        }
    }
}

// d (+)= a * b of one warpgroup, `repeats` times, from operands that stand in shared memory as they stand in a and b.
template <int kColumns, int kTransA, int kTransB>
__device__ __forceinline__ void product(float* d, const unsigned char* a, const unsigned char* b, int bytes_a, int bytes_b,
                                        uint64_t fields_a, uint64_t fields_b, int repeats) {
    DYNAMIC_SHARED(shared);
    const int t = threadIdx.x;
    for (int i = t; i < bytes_a; i += 128) shared[i] = a[i];
    for (int i = t; i < bytes_b; i += 128) shared[bytes_a + i] = b[i];
    fence_proxy_async();
    __syncthreads();
    float registers[kColumns / 2];
    for (float& value : registers) value = 1.0f;
    const uint64_t left = fields_a | shared_address(shared) >> 4;
    const uint64_t right = fields_b | shared_address(shared + bytes_a) >> 4;
    wgmma_fence();
    for (int i = 0; i < repeats; ++i) {
        if constexpr (kColumns == 64) {
            wgmma_m64n64k16_bf16<kTransA, kTransB>(registers, left, right, i > 0);
        } else {
            wgmma_m64n128k16_bf16<kTransA, kTransB>(registers, left, right, i > 0);
        }
        wgmma_commit();
        if (i % 2 == 0) wgmma_wait<1>();
    }
    wgmma_wait<0>();
    for (int j = 0; j < kColumns / 8; ++j) {
        for (int i = 0; i < 4; ++i) {
            const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2), column = 8 * j + 2 * (t % 4) + i % 2;
            d[row * kColumns + column] = registers[4 * j + i];
        }
    }
}

extern "C" __global__ void hopper_product_64_kk(float* d, const unsigned char* a, const unsigned char* b, int bytes_a,
                                                int bytes_b, uint64_t fields_a, uint64_t fields_b, int repeats) {
    product<64, 0, 0>(d, a, b, bytes_a, bytes_b, fields_a, fields_b, repeats);
}
extern "C" __global__ void hopper_product_64_mn(float* d, const unsigned char* a, const unsigned char* b, int bytes_a,
                                                int bytes_b, uint64_t fields_a, uint64_t fields_b, int repeats) {
    product<64, 1, 1>(d, a, b, bytes_a, bytes_b, fields_a, fields_b, repeats);
}
extern "C" __global__ void hopper_product_128_kn(float* d, const unsigned char* a, const unsigned char* b, int bytes_a,
                                                 int bytes_b, uint64_t fields_a, uint64_t fields_b, int repeats) {
    product<128, 0, 1>(d, a, b, bytes_a, bytes_b, fields_a, fields_b, repeats);
}
extern "C" __global__ void hopper_product_128_mk(float* d, const unsigned char* a, const unsigned char* b, int bytes_a,
                                                 int bytes_b, uint64_t fields_a, uint64_t fields_b, int repeats) {
    product<128, 1, 0>(d, a, b, bytes_a, bytes_b, fields_a, fields_b, repeats);
}
