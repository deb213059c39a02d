#include "registry.h"

#include "kernels.h"

namespace emulator {
namespace {

std::map<std::string, Kernel>& all() {
    static std::map<std::string, Kernel> kernels;
    return kernels;
}

}  // namespace

bool add_kernel(const Kernel& kernel) { return all().emplace(kernel.name, kernel).second; }

const std::map<std::string, Kernel>& kernels() { return all(); }

}  // namespace emulator
