// warpgroup.cc: wgmma, which reads shared memory and writes registers at some time between its issue and its wait
//
// A thread issues and goes on. A product may be computed once all 128 threads have issued it: at once, or not before one
// waits for it, by chance. Its result reaches a thread's registers when that thread waits; until then they are NaN.

#include <algorithm>
#include <cstring>

#include "hopper.h"
#include "products.h"
#include "twins.h"

namespace emulator {
namespace {

Warpgroup& warpgroup() {
    auto& group = hopper().warpgroups[core.thread->linear / 128];
    if (group == nullptr) group = std::make_unique<Warpgroup>();
    return *group;
}

// Of thread t, register 4 * j + i.
unsigned row_of(unsigned t, unsigned i) { return 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2); }
unsigned column_of(unsigned t, unsigned j, unsigned i) { return 8 * j + 2 * (t % 4) + i % 2; }

void gather(Accumulator& accumulator, unsigned t) {
    for (unsigned j = 0; j < accumulator.columns / 8; ++j) {
        for (unsigned i = 0; i < 4; ++i) {
            accumulator.tile[row_of(t, i) * accumulator.columns + column_of(t, j, i)] = accumulator.d[t][4 * j + i];
        }
    }
}

// The result of thread t's register 4 * j + i.
float result(const Accumulator& accumulator, unsigned t, unsigned j, unsigned i) {
    return accumulator.tile[row_of(t, i) * accumulator.columns + column_of(t, j, i)];
}

// Gives thread t the result, unless it wrote to the registers meanwhile.
void scatter(const std::shared_ptr<Accumulator>& accumulator, Issued& issued, unsigned t) {
    float* d = accumulator->d[t];
    for (unsigned j = 0; j < accumulator->columns / 8; ++j) {
        for (unsigned i = 0; i < 4; ++i) {
            if (std::bit_cast<uint32_t>(d[4 * j + i]) != 0xffffffff) fail("wgmma: its registers were written while it was in flight");
            d[4 * j + i] = result(*accumulator, t, j, i);
        }
    }
    const auto same = [&](const Registers& registers) { return registers.d == d; };
    const auto found = std::find_if(issued.returned.begin(), issued.returned.end(), same);
    if (found != issued.returned.end()) {
        found->result = accumulator;
    } else {
        issued.returned.push_back({d, accumulator});
    }
    accumulator->d[t] = nullptr;
}

// Computes the products that all have issued, in order, up to the one before `end`.
void compute(Warpgroup& group, uint64_t end) {
    while (!group.products.empty() && group.first < end && group.products.front().arrived == 128) {
        const Product& product = group.products.front();
        multiply_tiles(product, *product.accumulator);
        group.products.pop_front();
        ++group.first;
    }
}

Accumulator* in_flight(Issued& issued, unsigned t, const float* d) {
    for (const auto& accumulator : issued.in_flight) {
        if (accumulator->d[t] == d) return accumulator.get();
    }
    return nullptr;
}

// Whether thread t's registers are as the last product left them.
bool untouched(const Issued& issued, unsigned t, const float* d, unsigned columns) {
    for (const Registers& registers : issued.returned) {
        if (registers.d != d || registers.result->columns != columns) continue;
        for (unsigned j = 0; j < columns / 8; ++j) {
            for (unsigned i = 0; i < 4; ++i) {
                if (std::bit_cast<uint32_t>(d[4 * j + i]) != std::bit_cast<uint32_t>(result(*registers.result, t, j, i))) return false;
            }
        }
        return true;
    }
    return false;
}

}  // namespace

void warpgroup_fence() { warpgroup().threads[core.thread->linear % 128].fenced = true; }

void warpgroup_commit() {
    Issued& issued = warpgroup().threads[core.thread->linear % 128];
    issued.groups.push_back(issued.products);
}

void warpgroup_multiply(float* d, unsigned columns, uint64_t a, uint64_t b, bool accumulate, bool trans_a, bool trans_b) {
    Warpgroup& group = warpgroup();
    const unsigned t = core.thread->linear % 128;
    if (core.thread->linear / 128 * 128 + 128 > core.block->num_threads) fail("wgmma: the warpgroup has fewer than 128 threads");
    Issued& issued = group.threads[t];
    const uint64_t number = issued.products++;
    Accumulator* chained = in_flight(issued, t, d);
    if (number == group.first + group.products.size()) {
        // The first to come.
        std::shared_ptr<Accumulator> accumulator;
        for (const auto& other : issued.in_flight) {
            if (other.get() == chained) accumulator = other;
        }
        if (accumulator == nullptr) {
            accumulator = std::make_shared<Accumulator>();
            accumulator->columns = columns;
            accumulator->tile.resize(64 * columns);
        }
        group.products.push_back({a, b, accumulate, trans_a, trans_b, 0, std::move(accumulator)});
    }
    Product& product = group.products[number - group.first];
    Accumulator& accumulator = *product.accumulator;
    if (product.a != a || product.b != b || product.accumulate != accumulate || product.trans_a != trans_a ||
        product.trans_b != trans_b || accumulator.columns != columns) {
        fail("wgmma: the threads of the warpgroup issue different ones");
    }
    if (chained == nullptr) {
        if (!issued.fenced && !untouched(issued, t, d, columns)) {
            fail("wgmma: the accumulators were written by other instructions, without wgmma_fence since");
        }
        if (accumulator.d[t] != nullptr) fail("wgmma: the threads of the warpgroup use different accumulators");
        accumulator.d[t] = d;
        if (accumulate) gather(accumulator, t);
        memset(d, 0xff, columns / 2 * sizeof(float));
        issued.in_flight.push_back(product.accumulator);
    } else if (chained != &accumulator) {
        fail("wgmma: the threads of the warpgroup use different accumulators");
    }
    accumulator.last[t] = number;
    if (++product.arrived == 128) {
        for (BlockThread* thread : group.waiting) core.block->make_ready(thread);
        group.waiting.clear();
        if (core.block->random.below(2) == 0) compute(group, number + 1);
    }
}

void warpgroup_wait(unsigned pending) {
    Warpgroup& group = warpgroup();
    const unsigned t = core.thread->linear % 128;
    Issued& issued = group.threads[t];
    issued.fenced = false;
    if (issued.groups.size() <= pending) return;
    const uint64_t end = issued.groups[issued.groups.size() - 1 - pending];
    for (;;) {
        compute(group, end);
        if (group.first >= end) break;
        group.waiting.push_back(core.block->self());
        wait("wgmma_wait");
    }
    std::erase_if(issued.in_flight, [&](const std::shared_ptr<Accumulator>& accumulator) {
        if (accumulator->last[t] >= end) return false;
        scatter(accumulator, issued, t);
        return true;
    });
}

void warpgroup_ends(Warpgroup& group) {
    for (const Issued& issued : group.threads) {
        if (!issued.in_flight.empty()) fail("the block ended with wgmma in flight");
    }
}

}  // namespace emulator
