// hopper.cc: when bulk copies land: at a random moment, or not before all wait for them

#include "hopper.h"

#include <algorithm>

namespace emulator {

Block::Block() : hopper(std::make_unique<Hopper>()) {}
Block::~Block() = default;

Hopper& hopper() {
    core.block->hopper->used = true;
    return *core.block->hopper;
}

namespace {

void land_at(Hopper& hopper, size_t i) {
    const BulkCopy copy = hopper.copies[i];
    hopper.copies.erase(hopper.copies.begin() + static_cast<ptrdiff_t>(i));
    hopper.next_due = kWhenIdle;
    for (const BulkCopy& other : hopper.copies) hopper.next_due = std::min(hopper.next_due, other.due);
    land(copy);
    barrier_receives(copy.barrier, static_cast<int64_t>(copy_bytes(copy.map)));
}

}  // namespace

void hopper_begins(Block& block) {
    if (block.hopper->used) *block.hopper = Hopper();
}

void hopper_passes(Block& block) {
    Hopper& hopper = *block.hopper;
    ++hopper.passes;
    while (hopper.passes >= hopper.next_due) {
        const auto due = [&](const BulkCopy& copy) { return hopper.passes >= copy.due; };
        const auto found = std::find_if(hopper.copies.begin(), hopper.copies.end(), due);
        land_at(hopper, static_cast<size_t>(found - hopper.copies.begin()));
    }
}

bool hopper_lands(Block& block) {
    Hopper& hopper = *block.hopper;
    if (hopper.copies.empty()) return false;
    land_at(hopper, block.random.below(static_cast<unsigned>(hopper.copies.size())));
    return true;
}

void hopper_ends(Block& block) {
    Hopper& hopper = *block.hopper;
    if (!hopper.used) return;
    if (!hopper.copies.empty()) fail("the block ended with bulk copies on their way into its shared memory");
    for (const auto& group : hopper.warpgroups) {
        if (group != nullptr) warpgroup_ends(*group);
    }
}

}  // namespace emulator
