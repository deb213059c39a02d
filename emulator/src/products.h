// products.h: the arithmetic of wgmma
#pragma once

#include "hopper.h"

namespace emulator {

// accumulator (+)= a * b, the operands read through their descriptors.
void multiply_tiles(const Product& product, Accumulator& accumulator);

}  // namespace emulator
