// products.cc: the arithmetic of wgmma, and its matrix descriptors
//
// A descriptor (PTX ISA, "matrix descriptor format") holds, in units of 16 bytes, an address, a leading and a stride
// offset, and the swizzle. Where element (mn, k) of a bf16 operand lies, mn counting M or N, without the swizzle:
//
//   K-major, no swizzle     mn % 8 * 16 + mn / 8 * stride + k / 8 * leading + k % 8 * 2
//   K-major, rows of R      mn % 8 * R  + mn / 8 * stride + k * 2
//   MN-major, no swizzle    mn % 8 * 2 + mn / 8 * stride + k % 8 * 16 + k / 8 * leading
//   MN-major, rows of R     mn % (R / 2) * 2 + mn / (R / 2) * leading + k % 8 * R + k / 8 * stride
//
// R is the swizzle's 32, 64 or 128 bytes. The swizzle then exchanges 16-byte pieces by bits of the whole address.

#include "products.h"

#ifndef __clang__
#pragma GCC optimize("O3")  // twice as fast: the sums below become vectors
#endif

#include <bit>

#include "shared_memory.h"

namespace emulator {
namespace {

constexpr unsigned kDepth = 16;

class Operand {
   public:
    Operand(uint64_t descriptor, bool transposed) : transposed_(transposed) {
        constexpr uint32_t kRowBytes[] = {0, 128, 64, 32};
        address_ = field(descriptor, 0);
        leading_ = field(descriptor, 16);
        stride_ = field(descriptor, 32);
        row_bytes_ = kRowBytes[descriptor >> 62];
        if ((descriptor >> 49 & 7) != 0) fail("wgmma: descriptor %#llx has a base offset", static_cast<unsigned long long>(descriptor));
    }

    // Elements 0 to 15 along k of `len` rows or columns: store(mn, k, value).
    template <class Store>
    void load(unsigned len, Store store) const {
        // In pieces of 16 bytes, which stay together.
        for (unsigned outer = 0; outer < (transposed_ ? kDepth : len); ++outer) {
            for (unsigned inner = 0; inner < (transposed_ ? len : kDepth); inner += 8) {
                const uint32_t at = transposed_ ? offset(inner, outer) : offset(outer, inner);
                uint16_t bits[8];
                memcpy(bits, at_shared_address(swizzled(address_ + at, row_bytes_), sizeof bits), sizeof bits);
                for (unsigned i = 0; i < 8; ++i) {
                    const float value = std::bit_cast<float>(static_cast<uint32_t>(bits[i]) << 16);
                    transposed_ ? store(inner + i, outer, value) : store(outer, inner + i, value);
                }
            }
        }
    }

   private:
    static uint32_t field(uint64_t descriptor, int first) { return static_cast<uint32_t>(descriptor >> first & 0x3fff) << 4; }

    uint32_t offset(unsigned mn, unsigned k) const {
        if (!transposed_ && row_bytes_ == 0) return mn % 8 * 16 + mn / 8 * stride_ + k / 8 * leading_ + k % 8 * 2;
        if (!transposed_) return mn % 8 * row_bytes_ + mn / 8 * stride_ + k * 2;
        if (row_bytes_ == 0) return mn % 8 * 2 + mn / 8 * stride_ + k % 8 * 16 + k / 8 * leading_;
        const uint32_t row_len = row_bytes_ / 2;
        return mn % row_len * 2 + mn / row_len * leading_ + k % 8 * row_bytes_ + k / 8 * stride_;
    }

    uint32_t address_, leading_, stride_, row_bytes_;
    bool transposed_;
};

// Sums along k in ascending order. The product of two bf16 is exact in f32, so that a fused sum rounds no differently.
template <unsigned kColumns>
void multiply(const float (&a)[64][kDepth], const float (&b)[kDepth][256], float* tile, bool accumulate) {
    constexpr unsigned kStep = 32;
    for (unsigned row = 0; row < 64; ++row) {
        for (unsigned first = 0; first < kColumns; first += kStep) {
            float* d = tile + row * kColumns + first;
            float sum[kStep];
            for (unsigned i = 0; i < kStep; ++i) sum[i] = accumulate ? d[i] : 0.0f;
            for (unsigned k = 0; k < kDepth; ++k) {
                for (unsigned i = 0; i < kStep; ++i) sum[i] += a[row][k] * b[k][first + i];
            }
            for (unsigned i = 0; i < kStep; ++i) d[i] = sum[i];
        }
    }
}

}  // namespace

void multiply_tiles(const Product& product, Accumulator& accumulator) {
    const Operand left(product.a, product.trans_a), right(product.b, product.trans_b);
    float a[64][kDepth], b[kDepth][256];
    left.load(64, [&](unsigned row, unsigned k, float value) { a[row][k] = value; });
    right.load(accumulator.columns, [&](unsigned column, unsigned k, float value) { b[k][column] = value; });
    float* tile = accumulator.tile.data();
    switch (accumulator.columns) {
        case 64: return multiply<64>(a, b, tile, product.accumulate);
        case 128: return multiply<128>(a, b, tile, product.accumulate);
        case 192: return multiply<192>(a, b, tile, product.accumulate);
        case 256: return multiply<256>(a, b, tile, product.accumulate);
        default: fail("wgmma: %u columns", accumulator.columns);
    }
}

}  // namespace emulator
