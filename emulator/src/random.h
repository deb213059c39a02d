// random.h: small random numbers, the same for the same seed
#pragma once

#include <cstdint>

namespace emulator {

class Random {
   public:
    explicit Random(uint64_t seed = 0) : state_(seed) {}

    // SplitMix64.
    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    // Below `bound`, which is above 0.
    unsigned below(unsigned bound) { return static_cast<unsigned>((next() >> 32) * bound >> 32); }

   private:
    uint64_t state_;
};

// SCADLES_EMULATOR_SEED, or 1.
uint64_t seed();

// A seed of what `a` and `b` name.
inline uint64_t mix(uint64_t a, uint64_t b) { return Random(a * 0x9e3779b97f4a7c15 ^ b).next(); }

}  // namespace emulator
