// tensor_map.h: what the emulator keeps in the 128 bytes of a tensor map
#pragma once

#include <cstdint>

namespace emulator {

struct TensorMapFields {
    static constexpr uint64_t kMagic = 0x70616d726f736e65;
    static constexpr int kMaxRank = 5;

    uint64_t magic;
    uint64_t address;
    uint64_t extents[kMaxRank];          // innermost first
    uint64_t strides[kMaxRank - 1];      // bytes, of all but the innermost
    uint16_t box[kMaxRank];              // tiled: elements that a copy spans
    int16_t lower[2], upper[2];          // im2col: corners of the box of filter positions, W and H
    uint16_t channels, pixels;           // im2col: of a copy
    uint8_t traversal[kMaxRank];         // steps
    uint8_t rank, element_bytes;
    uint8_t swizzle_bytes;  // 0, 32, 64, 128
    bool is_im2col;
};
static_assert(sizeof(TensorMapFields) <= 128);

// Where byte `offset` of shared memory lies with a swizzle: the number of its 16-byte piece in a row, exclusive-or the
// number of the row.
constexpr uint32_t swizzled(uint32_t offset, uint32_t swizzle_bytes) {
    return swizzle_bytes == 0 ? offset : offset ^ (offset >> 3 & (swizzle_bytes - 16));
}

}  // namespace emulator
