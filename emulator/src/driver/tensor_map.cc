// tensor_map.cc: tensor maps, with the driver's checks

#include "../../include/tensor_map.h"

#include <cstring>

#include "driver.h"

namespace emulator {
namespace {

constexpr int kElementBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
constexpr int kNumTypes = sizeof kElementBytes / sizeof *kElementBytes;
constexpr int kSwizzleBytes[] = {0, 32, 64, 128};
constexpr unsigned kMaxTraversal = 8;

// What both kinds of map have; 0 or the status.
int encode(TensorMapFields& fields, const void* map, int type, unsigned rank, void* address, const uint64_t* extents,
           const uint64_t* strides, const uint32_t* traversal, int interleave, int swizzle, int promotion, int fill) {
    if (const int lost = device_state(); lost != kSuccess) return lost;
    if (capability() < 90) return kNotSupported;
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0 || type < 0 || type >= kNumTypes) return kInvalidValue;
    if (rank < 1 || rank > TensorMapFields::kMaxRank) return kInvalidValue;
    if (swizzle < 0 || swizzle > 3 || promotion < 0 || promotion > 3 || fill < 0 || fill > 1) return kInvalidValue;
    // Interleaved layouts and NaN outside the tensor are not modelled.
    if (interleave != 0 || fill != 0) return kNotSupported;
    if (address == nullptr || reinterpret_cast<uintptr_t>(address) % 16 != 0) return kInvalidValue;
    fields.magic = TensorMapFields::kMagic;
    fields.address = reinterpret_cast<uint64_t>(address);
    fields.rank = static_cast<uint8_t>(rank);
    fields.element_bytes = static_cast<uint8_t>(kElementBytes[type]);
    fields.swizzle_bytes = static_cast<uint8_t>(kSwizzleBytes[swizzle]);
    for (unsigned i = 0; i < rank; ++i) {
        if (extents[i] == 0 || extents[i] > uint64_t{1} << 32) return kInvalidValue;
        if (traversal[i] == 0 || traversal[i] > kMaxTraversal) return kInvalidValue;
        fields.extents[i] = extents[i];
        fields.traversal[i] = static_cast<uint8_t>(traversal[i]);
    }
    for (unsigned i = 0; i + 1 < rank; ++i) {
        if (strides[i] % 16 != 0 || strides[i] >= uint64_t{1} << 40) return kInvalidValue;
        fields.strides[i] = strides[i];
    }
    return kSuccess;
}

// A copy's row must be whole 16-byte pieces, and no longer than the swizzle's.
bool row_fits(const TensorMapFields& fields, uint32_t len) {
    const uint32_t bytes = len * fields.element_bytes;
    return bytes % 16 == 0 && (fields.swizzle_bytes == 0 || bytes <= fields.swizzle_bytes);
}

}  // namespace

DRIVER_API cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const uint64_t* extents,
                                  const uint64_t* strides, const uint32_t* box, const uint32_t* traversal, int interleave,
                                  int swizzle, int promotion, int fill) {
    TensorMapFields fields{};
    const int status = encode(fields, map, type, rank, address, extents, strides, traversal, interleave, swizzle, promotion, fill);
    if (status != kSuccess) return status;
    for (unsigned i = 0; i < rank; ++i) {
        if (box[i] == 0 || box[i] > 256) return kInvalidValue;
        fields.box[i] = static_cast<uint16_t>(box[i]);
    }
    if (!row_fits(fields, box[0])) return kInvalidValue;
    memset(map, 0, 128);
    return memcpy(map, &fields, sizeof fields), kSuccess;
}

DRIVER_API cuTensorMapEncodeIm2col(void* map, int type, unsigned rank, void* address, const uint64_t* extents,
                                   const uint64_t* strides, const int* lower, const int* upper, unsigned channels,
                                   unsigned pixels, const uint32_t* traversal, int interleave, int swizzle, int promotion,
                                   int fill) {
    TensorMapFields fields{};
    const int status = encode(fields, map, type, rank, address, extents, strides, traversal, interleave, swizzle, promotion, fill);
    if (status != kSuccess) return status;
    if (rank < 3) return kInvalidValue;
    if (rank != 4) return kNotSupported;  // NHWC only
    if (channels == 0 || channels > 256 || pixels == 0 || pixels > 1024 || !row_fits(fields, channels)) return kInvalidValue;
    for (int i = 0; i < 2; ++i) {
        if (lower[i] < -128 || lower[i] > 127 || upper[i] < -128 || upper[i] > 127) return kInvalidValue;
        fields.lower[i] = static_cast<int16_t>(lower[i]);
        fields.upper[i] = static_cast<int16_t>(upper[i]);
    }
    fields.channels = static_cast<uint16_t>(channels);
    fields.pixels = static_cast<uint16_t>(pixels);
    fields.is_im2col = true;
    memset(map, 0, 128);
    return memcpy(map, &fields, sizeof fields), kSuccess;
}

}  // namespace emulator
