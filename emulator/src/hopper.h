// hopper.h: a block's barriers in shared memory, bulk copies on their way, and warpgroups' products
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "block.h"
#include "tensor_map.h"

namespace emulator {

struct SharedBarrier {
    uint64_t* address;
    unsigned arrivals, pending;  // of a phase, and still to come
    int64_t bytes;               // still to come; below 0 if copies landed before their arrival was announced
    uint32_t parity;             // of the phase that is not over
    bool fenced;
    unsigned initialiser;  // thread
    std::vector<BlockThread*> waiting;
};

struct BulkCopy {
    TensorMapFields map;
    unsigned char* to;
    uint64_t* barrier;
    int coordinates[TensorMapFields::kMaxRank];
    int offsets[2];
    uint64_t due;  // the number of passes after which it lands; kWhenIdle: when nobody can go on without it
};
constexpr uint64_t kWhenIdle = ~uint64_t{0};

// The accumulators of one or several products of a warpgroup, while they are in flight.
struct Accumulator {
    unsigned columns;
    float* d[128];  // of each thread, null after it has them back
    uint64_t last[128];  // newest product of each thread
    std::vector<float> tile;  // 64 rows
};

struct Product {
    uint64_t a, b;
    bool accumulate, trans_a, trans_b;
    unsigned arrived;
    std::shared_ptr<Accumulator> accumulator;
};

// What a thread's registers were when it had them back.
struct Registers {
    const float* d;
    std::shared_ptr<const Accumulator> result;
};

// What a thread has issued.
struct Issued {
    uint64_t products = 0;
    std::vector<uint64_t> groups;  // products before each commit
    bool fenced = false;
    std::vector<std::shared_ptr<Accumulator>> in_flight;
    std::vector<Registers> returned;
};

struct Warpgroup {
    std::deque<Product> products;
    uint64_t first = 0;  // number of the first in the queue
    Issued threads[128];
    std::vector<BlockThread*> waiting;
};

struct Hopper {
    std::vector<SharedBarrier> barriers;
    std::vector<BulkCopy> copies;
    uint64_t passes = 0, next_due = kWhenIdle;
    std::unique_ptr<Warpgroup> warpgroups[kMaxThreads / 128];
    bool used = false;
};

// The current block's, which from now on has used it.
Hopper& hopper();

SharedBarrier& find_barrier(uint64_t* address, const char* name);
// `bytes` of bulk copies have landed.
void barrier_receives(uint64_t* address, int64_t bytes);

// Performs a copy (bulk_copy.cc); the bytes that it writes.
void land(const BulkCopy& copy);
size_t copy_bytes(const TensorMapFields& map);

// The warpgroup's part of the end of a block (warpgroup.cc).
void warpgroup_ends(Warpgroup& group);

}  // namespace emulator
