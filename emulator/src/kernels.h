// kernels.h: all kernels of the library, by name
#pragma once

#include <map>
#include <string>

#include "registry.h"

namespace emulator {

const std::map<std::string, Kernel>& kernels();

}  // namespace emulator
