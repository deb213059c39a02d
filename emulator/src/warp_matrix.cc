// warp_matrix.cc: ldmatrix and mma.sync, as collectives of a warp

#include <bit>
#include <cstring>

#include "emulator.h"
#include "shared_memory.h"
#include "twins.h"

namespace emulator {
namespace {

float widen(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

void all_lanes(uint32_t lanes, const char* name) {
    if (lanes != 0xffffffff) fail("%s: only lanes %08x of the warp are there", name, lanes);
}

struct Load {
    uint32_t* registers;
    const unsigned char* row;
};

template <unsigned kCount, bool kTransposed>
void load(void* const* operands, uint32_t lanes) {
    all_lanes(lanes, "ldmatrix");
    for (unsigned matrix = 0; matrix < kCount; ++matrix) {
        uint16_t elements[8][8];
        for (unsigned i = 0; i < 8; ++i) memcpy(elements[i], static_cast<const Load*>(operands[8 * matrix + i])->row, 16);
        for (unsigned lane = 0; lane < 32; ++lane) {
            const unsigned row = lane / 4, column = 2 * (lane % 4);
            const uint16_t low = kTransposed ? elements[column][row] : elements[row][column];
            const uint16_t high = kTransposed ? elements[column + 1][row] : elements[row][column + 1];
            static_cast<const Load*>(operands[lane])->registers[matrix] = low | static_cast<uint32_t>(high) << 16;
        }
    }
}

struct Multiply {
    float* d;
    const uint32_t* a;
    uint32_t b0, b1;
};

void multiply(void* const* operands, uint32_t lanes) {
    all_lanes(lanes, "mma");
    float a[16][16], b[16][8], d[16][8];
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto& operand = *static_cast<const Multiply*>(operands[lane]);
        const unsigned group = lane / 4, pair = 2 * (lane % 4);
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = group + 8 * (i % 2), column = pair + 8 * (i / 2);
            a[row][column] = widen(operand.a[i] & 0xffff);
            a[row][column + 1] = widen(operand.a[i] >> 16);
            d[group + 8 * (i / 2)][pair + i % 2] = operand.d[i];
        }
        b[pair][group] = widen(operand.b0 & 0xffff);
        b[pair + 1][group] = widen(operand.b0 >> 16);
        b[pair + 8][group] = widen(operand.b1 & 0xffff);
        b[pair + 9][group] = widen(operand.b1 >> 16);
    }
    for (unsigned row = 0; row < 16; ++row) {
        for (unsigned k = 0; k < 16; ++k) {
            for (unsigned column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
        }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        for (unsigned i = 0; i < 4; ++i) {
            static_cast<const Multiply*>(operands[lane])->d[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
        }
    }
}

}  // namespace

void load_matrices(uint32_t* registers, const void* row, unsigned count, bool transposed) {
    // Of fewer than four matrices, the first lanes name the rows.
    if (lane() < 8 * count) {
        if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: row %p is not aligned to 16", row);
        if (!is_shared(row, 16)) fail("ldmatrix: row %p is not in shared memory", row);
    }
    Load operand{registers, static_cast<const unsigned char*>(row)};
    const WarpFunction function = count == 4 ? (transposed ? load<4, true> : load<4, false>)
                                             : (transposed ? load<2, true> : load<2, false>);
    warp_collective(0xffffffff, function, &operand, "ldmatrix");
}

void multiply_m16n8k16(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
    Multiply operand{d, a, b0, b1};
    warp_collective(0xffffffff, multiply, &operand, "mma");
}

}  // namespace emulator
