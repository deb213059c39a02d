// settings.h: numbers from the environment
#pragma once

#include <cstdint>

namespace emulator {

// The number in the variable `name`; `otherwise` without it. Ends the program if it is not a number.
uint64_t setting(const char* name, uint64_t otherwise);

}  // namespace emulator
