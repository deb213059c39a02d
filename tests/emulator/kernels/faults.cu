// faults.cu: kernels that are wrong, each in its own way

#include "common.cuh"
#include "ptx.cuh"

extern "C" __global__ void faults_barrier_in_branch(float* out) {
    if (threadIdx.x % 2 == 0) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 0.0f;
}

// Half of the block waits for a barrier that the other half, which waits for it in a shuffle, does not reach.
extern "C" __global__ void faults_deadlock(float* out) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __shfl_sync(0xffffffffu, threadIdx.x, 0);
    }
    out[threadIdx.x] = 0.0f;
}

extern "C" __global__ void faults_beside_allocation(float* out, int64_t index) { out[index] = 0.0f; }

extern "C" __global__ void faults_beside_dynamic_shared(float* out, int bytes) {
    DYNAMIC_SHARED(shared);
    shared[bytes] = 0;
    out[0] = shared[bytes - 1];
}

__device__ __noinline__ void store(float* to, int index) { to[index] = 0.0f; }

// Only AddressSanitizer sees this: the next variable is another's.
extern "C" __global__ void faults_beside_shared(float* out, int index) {
    __shared__ float values[8];
    store(values, index);
    out[0] = values[0];
}

extern "C" __global__ void faults_misaligned_copy(float* out, const float* x) {
    __shared__ __align__(16) float values[8];
    cp_async_16(values, x + 1, 16);
    cp_async_commit();
    cp_async_wait<0>();
    out[0] = values[0];
}

// Only UndefinedBehaviorSanitizer sees this.
extern "C" __global__ void faults_overflow(int* out, int value) { out[0] = value + 1; }
