#include "block.h"

namespace emulator {

struct Hopper {};

Block::Block() = default;
Block::~Block() = default;

void hopper_begins(Block&) {}
void hopper_passes(Block&) {}
void hopper_ends(Block&) {}
bool hopper_lands(Block&) { return false; }

}  // namespace emulator
