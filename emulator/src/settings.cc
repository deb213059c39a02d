#include "settings.h"

#include <cstdio>
#include <cstdlib>

#include "random.h"

namespace emulator {

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = getenv(name);
    if (text == nullptr || *text == 0) return otherwise;
    char* end = nullptr;
    const uint64_t value = strtoull(text, &end, 10);
    if (*end != 0) {
        fprintf(stderr, "emulator: %s=%s is not a number\n", name, text);
        abort();
    }
    return value;
}

uint64_t seed() {
    static const uint64_t value = setting("SCADLES_EMULATOR_SEED", 1);
    return value;
}

}  // namespace emulator
