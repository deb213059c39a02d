// matrix.cu: ldmatrix, mma and cp.async

#include "common.cuh"
#include "ptx.cuh"

// Four registers a lane, of the four 8x8 matrices in x, as they are and transposed; then two of the first two.
extern "C" __global__ void matrix_load(uint32_t* out, const uint16_t* x) {
    __shared__ __align__(16) uint16_t rows[256];
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) rows[i] = x[i];
    __syncwarp();
    uint32_t four[4], two[2];
    uint32_t* at = out + 12 * lane;
    ldmatrix_x4(four, rows + 8 * lane);
    for (int i = 0; i < 4; ++i) at[i] = four[i];
    ldmatrix_x4_trans(four, rows + 8 * lane);
    for (int i = 0; i < 4; ++i) at[4 + i] = four[i];
    ldmatrix_x2(two, rows + 8 * (lane % 16));
    for (int i = 0; i < 2; ++i) at[8 + i] = two[i];
    ldmatrix_x2_trans(two, rows + 8 * (lane % 16));
    for (int i = 0; i < 2; ++i) at[10 + i] = two[i];
}

constexpr int kTile = 64;
constexpr int kStep = 32;
constexpr int kPitchA = kStep + 8;
constexpr int kPitchB = kTile + 8;
constexpr int kStageLen = kTile * kPitchA + kStep * kPitchB;

// c = a * b for a [m, k], b [k, n], with n a multiple of 8, k of 32, m any; two stages of cp.async.
extern "C" __global__ void __launch_bounds__(128) matrix_gemm(float* c, const __nv_bfloat16* a, const __nv_bfloat16* b, int m,
                                                              int n, int k) {
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row0 = blockIdx.x * kTile, column0 = blockIdx.y * kTile;
    const auto stage_at = [&](int step) { return reinterpret_cast<__nv_bfloat16*>(shared) + step % 2 * kStageLen; };
    const auto load = [&](int step) {
        __nv_bfloat16* const to = stage_at(step);
        for (int i = threadIdx.x; i < kTile * kStep / 8; i += 128) {
            const int row = i / (kStep / 8), piece = i % (kStep / 8) * 8;
            const bool inside = row0 + row < m;
            const int64_t from = static_cast<int64_t>(inside ? row0 + row : 0) * k + step * kStep + piece;
            cp_async_16(to + row * kPitchA + piece, a + from, inside ? 16 : 0);
        }
        for (int i = threadIdx.x; i < kStep * kTile / 8; i += 128) {
            const int row = i / (kTile / 8), piece = i % (kTile / 8) * 8;
            const bool inside = column0 + piece < n;
            const int64_t from = static_cast<int64_t>(step * kStep + row) * n + (inside ? column0 + piece : 0);
            cp_async_16(to + kTile * kPitchA + row * kPitchB + piece, b + from, inside ? 16 : 0);
        }
    };
    float d[8][4] = {};
    load(0);
    cp_async_commit();
    for (int step = 0; step < k / kStep; ++step) {
        if ((step + 1) * kStep < k) load(step + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        const __nv_bfloat16* const stage = stage_at(step);
        for (int kk = 0; kk < kStep; kk += 16) {
            uint32_t left[4];
            ldmatrix_x4(left, stage + (16 * warp + lane % 16) * kPitchA + kk + lane / 16 * 8);
            for (int j = 0; j < 8; j += 2) {
                uint32_t right[4];
                ldmatrix_x4_trans(right, stage + kTile * kPitchA + (kk + lane % 16) * kPitchB + 8 * j + lane / 16 * 8);
                mma_m16n8k16_bf16(d[j], left, right[0], right[1]);
                mma_m16n8k16_bf16(d[j + 1], left, right[2], right[3]);
            }
        }
        __syncthreads();
    }
    for (int j = 0; j < 8; ++j) {
        for (int i = 0; i < 4; ++i) {
            const int row = row0 + 16 * warp + lane / 4 + 8 * (i / 2), column = column0 + 8 * j + 2 * (lane % 4) + i % 2;
            if (row < m && column < n) c[static_cast<int64_t>(row) * n + column] = d[j][i];
        }
    }
}

// out = what copies of 16, 8 and 4 bytes leave, of which only some bytes are read.
extern "C" __global__ void matrix_zero_fill(unsigned char* out, const unsigned char* x, int bytes) {
    __shared__ __align__(16) unsigned char to[28];
    cp_async_16(to, x, bytes);
    cp_async_8(to + 16, x + 16, min(bytes, 8));
    cp_async_4(to + 24, x + 24, min(bytes, 4));
    cp_async_commit();
    cp_async_wait<0>();
    for (int i = 0; i < 28; ++i) out[i] = to[i];
}
