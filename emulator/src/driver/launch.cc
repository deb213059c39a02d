// launch.cc: modules, functions and launches
//
// An image is text that names its kernel file (tests/support/emulator.rs writes it), since the kernels themselves are in
// this library. Any other image stands for all of them.

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "../block.h"
#include "../faults.h"
#include "../kernels.h"
#include "driver.h"

namespace emulator {
namespace {

constexpr unsigned kSharedBytes = 48 << 10;
constexpr unsigned kMaxSharedBytes = 227 << 10;
constexpr char kImage[] = "emulated kernel file: ";
constexpr char kHopperOnly[] = "_wgmma";

struct Function {
    const Kernel* kernel;
    std::atomic<unsigned> max_shared_bytes{kSharedBytes};
};

struct Module {
    std::string file;  // empty: all
    std::mutex lock;
    std::map<std::string, Function> functions;
};

// Attributes of a function.
constexpr int kMaxThreadsPerBlock = 0;
constexpr int kMaxDynamicSharedBytes = 8;

// Arguments by value, each where its type may stand.
class Arguments {
   public:
    Arguments(const Kernel& kernel, void* const* from) {
        size_t bytes = 0;
        std::vector<size_t> offsets(kernel.num_arguments);
        for (unsigned i = 0; i < kernel.num_arguments; ++i) {
            bytes = (bytes + kernel.alignments[i] - 1) / kernel.alignments[i] * kernel.alignments[i];
            offsets[i] = bytes;
            bytes += kernel.sizes[i];
        }
        memory_.resize(bytes / sizeof(Line) + 1);
        auto* start = reinterpret_cast<unsigned char*>(memory_.data());
        for (unsigned i = 0; i < kernel.num_arguments; ++i) {
            memcpy(start + offsets[i], from[i], kernel.sizes[i]);
            pointers_.push_back(start + offsets[i]);
        }
    }
    void* const* pointers() const { return pointers_.data(); }

   private:
    struct alignas(128) Line {
        unsigned char bytes[128];
    };
    std::vector<Line> memory_;
    std::vector<void*> pointers_;
};

}  // namespace

DRIVER_API cuModuleLoadData(void** module, const void* image) {
    if (const int lost = device_state(); lost != kSuccess) return lost;
    auto loaded = std::make_unique<Module>();
    const auto* text = static_cast<const char*>(image);
    if (strncmp(text, kImage, sizeof kImage - 1) == 0) {
        text += sizeof kImage - 1;
        loaded->file.assign(text, strcspn(text, "\n"));
        if (capability() != 90 && loaded->file.ends_with(kHopperOnly)) return kNoBinaryForGpu;
    }
    *module = loaded.release();
    return kSuccess;
}
DRIVER_API cuModuleUnload(void* module) { return delete static_cast<Module*>(module), kSuccess; }
DRIVER_API cuModuleGetFunction(void** function, void* handle, const char* name) {
    auto& module = *static_cast<Module*>(handle);
    const auto found = kernels().find(name);
    if (found == kernels().end()) return kNotFound;
    if (!module.file.empty() && module.file != found->second.file) return kNotFound;
    std::lock_guard guard(module.lock);
    Function& added = module.functions[name];
    added.kernel = &found->second;
    return *function = &added, kSuccess;
}

DRIVER_API cuFuncSetAttribute(void* function, int attribute, int value) {
    if (attribute != kMaxDynamicSharedBytes) return kSuccess;
    if (value < 0 || static_cast<unsigned>(value) > kMaxSharedBytes) return kInvalidValue;
    static_cast<Function*>(function)->max_shared_bytes = static_cast<unsigned>(value);
    return kSuccess;
}
DRIVER_API cuFuncGetAttribute(int* value, int attribute, void* handle) {
    const auto& function = *static_cast<const Function*>(handle);
    switch (attribute) {
        case kMaxThreadsPerBlock: *value = static_cast<int>(function.kernel->max_threads); break;
        case kMaxDynamicSharedBytes: *value = static_cast<int>(function.max_shared_bytes); break;
        default: *value = 0;
    }
    return kSuccess;
}

DRIVER_API cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                          unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra) {
    if (handle == nullptr) return kInvalidHandle;
    if (const int fault = fault_of_launch(); fault != kSuccess) return fault;
    const auto& function = *static_cast<const Function*>(handle);
    const Kernel& kernel = *function.kernel;
    const auto within = [](unsigned value, unsigned limit) { return value >= 1 && value <= limit; };
    if (!within(grid_x, 0x7fffffff) || !within(grid_y, 65535) || !within(grid_z, 65535)) return kInvalidValue;
    if (!within(block_x, kMaxThreads) || !within(block_y, kMaxThreads) || !within(block_z, 64)) return kInvalidValue;
    if (!within(block_x * block_y * block_z, std::min(kernel.max_threads, kMaxThreads))) return kInvalidValue;
    if (shared_bytes > function.max_shared_bytes || extra != nullptr) return kInvalidValue;
    if (kernel.num_arguments > 0 && arguments == nullptr) return kInvalidValue;
    const auto copied = std::make_shared<Arguments>(kernel, arguments);
    const Index grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
    return enqueue(stream, [&kernel, grid, block, shared_bytes, copied] {
        run_grid({&kernel, grid, block, shared_bytes, copied->pointers()});
        check_guards(kernel.name);
    });
}

// CUlaunchConfig, without clusters: attributes are refused.
struct LaunchConfig {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    void* stream;
    void* attributes;
    unsigned num_attributes;
};
DRIVER_API cuLaunchKernelEx(const LaunchConfig* config, void* function, void** arguments, void** extra) {
    if (config->num_attributes != 0) return kNotSupported;
    return cuLaunchKernel(function, config->grid_x, config->grid_y, config->grid_z, config->block_x, config->block_y,
                          config->block_z, config->shared_bytes, config->stream, arguments, extra);
}

}  // namespace emulator
