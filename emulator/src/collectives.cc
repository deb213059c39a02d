// collectives.cc: barriers of the block, collectives of a warp

#include "worker.h"

namespace emulator {
namespace {

void complete(Block& block, Gathering& gathering, unsigned warp_index) {
    gathering.function(gathering.operands, gathering.arrived);
    for (uint32_t rest = gathering.arrived; rest != 0; rest &= rest - 1) {
        BlockThread& thread = block.threads[warp_index * 32 + static_cast<unsigned>(__builtin_ctz(rest))];
        if (&thread != core.thread) block.make_ready(&thread);
    }
    gathering.mask = 0;
}

}  // namespace

void warp_collective(uint32_t mask, WarpFunction function, void* operand, const char* name) {
    Block& block = *core.block;
    const unsigned lane = emulator::lane();
    if ((mask >> lane & 1) == 0) fail("%s: lane %u is not in its own mask %08x", name, lane, mask);
    Warp& warp = block.warp();
    Gathering* found = nullptr;
    for (Gathering& gathering : warp.gatherings) {
        if (gathering.mask == mask) {
            found = &gathering;
            break;
        }
        if (gathering.mask == 0) found = &gathering;
    }
    if (found == nullptr) found = &warp.gatherings.emplace_back();
    if (found->mask == 0) {
        found->mask = mask;
        found->arrived = 0;
        found->function = function;
        found->name = name;
    } else if (found->function != function) {
        fail("%s: other lanes of mask %08x are in %s", name, mask, found->name);
    }
    found->operands[lane] = operand;
    found->arrived |= 1u << lane;
    if (found->arrived == (mask & warp.alive)) {
        complete(block, *found, core.thread->linear / 32);
    } else {
        wait(name);
    }
}

void release_gatherings(Block& block, Warp& warp, unsigned warp_index) {
    for (Gathering& gathering : warp.gatherings) {
        if (gathering.mask != 0 && gathering.arrived == (gathering.mask & warp.alive)) complete(block, gathering, warp_index);
    }
}

unsigned block_barrier(unsigned id, unsigned threads, bool predicate, const char* name, unsigned line) {
    Block& block = *core.block;
    if (id >= kMaxBarriers) fail("%s: there is no barrier %u", name, id);
    if (threads % 32 != 0) fail("%s: a barrier of %u threads, which are no whole warps", name, threads);
    Barrier& barrier = block.barriers[id];
    BlockThread* self = block.self();
    if (barrier.arrived == 0) {
        barrier.threads = threads;
        barrier.votes = 0;
    } else if (barrier.threads != threads) {
        fail("%s: others wait at barrier %u for %u threads, not for %u", name, id, barrier.threads, threads);
    }
    // The instruction is for whole warps: its lanes must be at the same one.
    Warp& warp = block.warp();
    if (warp.at_barrier == 0) {
        warp.barrier_id = id;
        warp.barrier_line = line;
    } else if (warp.barrier_id != id || warp.barrier_line != line) {
        fail("divergent barrier: %s in line %u, while other lanes of the warp are at line %u", name, line, warp.barrier_line);
    }
    ++warp.at_barrier;
    ++barrier.arrived;
    barrier.votes += predicate ? 1 : 0;
    barrier.waiting.push_back(self);
    if (barrier.arrived == (threads != 0 ? threads : block.num_alive)) {
        release_barrier(block, barrier);
    } else {
        wait(name, line);
    }
    return self->barrier_result;
}

void release_barrier(Block& block, Barrier& barrier) {
    for (BlockThread* thread : barrier.waiting) {
        thread->barrier_result = barrier.votes;
        --block.warps[thread->linear / 32].at_barrier;
        if (thread != core.thread) block.make_ready(thread);
    }
    barrier.waiting.clear();
    barrier.arrived = 0;
}

void do_nothing(void* const*, uint32_t) {}

void shuffle_lanes(void* const* operands, uint32_t lanes) {
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
        auto* to = static_cast<Shuffle*>(operands[__builtin_ctz(rest)]);
        const bool there = lanes >> to->source & 1;
        to->result = there ? static_cast<const Shuffle*>(operands[to->source])->value : ~uint64_t{0};
    }
}

void vote_ballot(void* const* operands, uint32_t lanes) {
    uint32_t result = 0;
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        if (static_cast<const Vote*>(operands[lane])->value != 0) result |= 1u << lane;
    }
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) static_cast<Vote*>(operands[__builtin_ctz(rest)])->result = result;
}

void vote_match(void* const* operands, uint32_t lanes) {
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
        auto* vote = static_cast<Vote*>(operands[__builtin_ctz(rest)]);
        vote->result = 0;
        for (uint32_t others = lanes; others != 0; others &= others - 1) {
            const int other = __builtin_ctz(others);
            if (static_cast<const Vote*>(operands[other])->value == vote->value) vote->result |= 1u << other;
        }
    }
}

}  // namespace emulator
