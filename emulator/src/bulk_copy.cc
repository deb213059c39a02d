// bulk_copy.cc: bulk tensor copies, tiled and im2col
//
// From its issue until it lands, what a copy writes to is NaN. Data lands packed, innermost extent first, with the 16-byte
// pieces exchanged as the swizzle has it; what lies outside the tensor is zeros, and counts towards the barrier too.

#include <algorithm>
#include <cstring>

#include "hopper.h"
#include "shared_memory.h"
#include "twins.h"

namespace emulator {
namespace {

TensorMapFields decode(const void* map) {
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0) fail("bulk copy: the tensor map at %p is not aligned to 64", map);
    TensorMapFields fields;
    memcpy(&fields, map, sizeof fields);
    if (fields.magic != TensorMapFields::kMagic) fail("bulk copy: %p is not a tensor map", map);
    return fields;
}

// Elements that a tiled copy takes along one extent.
unsigned taken(const TensorMapFields& map, int i) {
    // Along the innermost, steps do not count.
    const unsigned step = i == 0 ? 1 : map.traversal[i];
    return (map.box[i] + step - 1) / step;
}

void issue(BulkCopy copy) {
    Hopper& hopper = emulator::hopper();
    const TensorMapFields& map = copy.map;
    const uint32_t alignment = map.swizzle_bytes == 128 ? 1024 : 128;
    const size_t bytes = copy_bytes(map);
    if (!is_shared(copy.to, bytes)) fail("bulk copy: %zu bytes at %p are not in shared memory", bytes, static_cast<void*>(copy.to));
    if (shared_address(copy.to) % alignment != 0) fail("bulk copy: the target is not aligned to %u", alignment);
    const unsigned row_bytes = (map.is_im2col ? map.channels : map.box[0]) * map.element_bytes;
    if (map.swizzle_bytes != 0 && row_bytes != map.swizzle_bytes) {
        fail("bulk copy: rows of %u bytes with a swizzle of %u are not modelled", row_bytes, map.swizzle_bytes);
    }
    if (!find_barrier(copy.barrier, "bulk copy").fenced) fail("bulk copy: its barrier was initialised without mbarrier_init_fence");
    memset(copy.to, 0xff, bytes);
    Random& random = core.block->random;
    // Half of them as late as can be, so that who does not wait is found out; the others in any order.
    copy.due = random.below(2) == 0 ? kWhenIdle : hopper.passes + 1 + random.below(4 * core.block->num_threads);
    hopper.next_due = std::min(hopper.next_due, copy.due);
    hopper.copies.push_back(copy);
}

// Writes one row of a box to shared memory, piece by piece.
class Rows {
   public:
    Rows(const BulkCopy& copy, unsigned bytes)
        : base_(copy.to), address_(shared_address(copy.to)), swizzle_(copy.map.swizzle_bytes), bytes_(bytes) {}

    // `from`: the first element, of which `inside` bytes after `before` are in the tensor.
    void write(const unsigned char* from, unsigned before, unsigned inside) {
        for (unsigned piece = 0; piece < bytes_; piece += 16) {
            unsigned char data[16] = {};
            for (unsigned i = 0; i < 16; ++i) {
                if (piece + i >= before && piece + i < before + inside) data[i] = from[piece + i];
            }
            memcpy(base_ + (swizzled(address_ + offset_ + piece, swizzle_) - address_), data, 16);
        }
        offset_ += bytes_;
    }
    void skip() { write(nullptr, 0, 0); }

   private:
    unsigned char* base_;
    uint32_t address_, swizzle_;
    unsigned bytes_, offset_ = 0;
};

// The part of elements first ... first + count that lies below `extent`, in bytes.
struct Part {
    unsigned before, inside;
};
Part part(int64_t first, unsigned count, uint64_t extent, unsigned element_bytes) {
    const int64_t begin = std::max<int64_t>(first, 0);
    const int64_t end = std::min<int64_t>(first + count, static_cast<int64_t>(extent));
    if (begin >= end) return {0, 0};
    return {static_cast<unsigned>(begin - first) * element_bytes, static_cast<unsigned>(end - begin) * element_bytes};
}

void land_tile(const BulkCopy& copy) {
    const TensorMapFields& map = copy.map;
    const int rank = map.rank;
    const Part row = part(copy.coordinates[0], map.box[0], map.extents[0], map.element_bytes);
    Rows rows(copy, map.box[0] * map.element_bytes);
    unsigned index[TensorMapFields::kMaxRank] = {};
    for (;;) {
        bool inside = row.inside != 0;
        int64_t offset = static_cast<int64_t>(copy.coordinates[0]) * map.element_bytes;
        for (int i = 1; i < rank; ++i) {
            const int64_t at = copy.coordinates[i] + static_cast<int64_t>(index[i]) * map.traversal[i];
            inside = inside && at >= 0 && at < static_cast<int64_t>(map.extents[i]);
            offset += at * static_cast<int64_t>(map.strides[i - 1]);
        }
        if (inside) {
            rows.write(reinterpret_cast<const unsigned char*>(map.address + static_cast<uint64_t>(offset)), row.before, row.inside);
        } else {
            rows.skip();
        }
        int i = 1;
        for (; i < rank && ++index[i] == taken(map, i); ++i) index[i] = 0;
        if (i >= rank) return;
    }
}

// Filter positions (w, h, n) in steps, W first, then H, then N, within the box; the pixels lie `offsets` further.
void land_pixels(const BulkCopy& copy) {
    const TensorMapFields& map = copy.map;
    const Part row = part(copy.coordinates[0], map.channels, map.extents[0], map.element_bytes);
    Rows rows(copy, map.channels * map.element_bytes);
    int64_t at[2] = {copy.coordinates[1], copy.coordinates[2]};
    int64_t image = copy.coordinates[3];
    for (unsigned pixel = 0; pixel < map.pixels; ++pixel) {
        bool inside = row.inside != 0 && image >= 0 && image < static_cast<int64_t>(map.extents[3]);
        int64_t offset = static_cast<int64_t>(copy.coordinates[0]) * map.element_bytes + image * static_cast<int64_t>(map.strides[2]);
        for (int i = 0; i < 2; ++i) {
            const int64_t place = at[i] + copy.offsets[i];
            inside = inside && place >= 0 && place < static_cast<int64_t>(map.extents[i + 1]);
            offset += place * static_cast<int64_t>(map.strides[i]);
        }
        if (inside) {
            rows.write(reinterpret_cast<const unsigned char*>(map.address + static_cast<uint64_t>(offset)), row.before, row.inside);
        } else {
            rows.skip();
        }
        int i = 0;
        for (; i < 2; ++i) {
            at[i] += map.traversal[i + 1];
            if (at[i] <= static_cast<int64_t>(map.extents[i + 1]) - 1 + map.upper[i]) break;
            at[i] = map.lower[i];
        }
        if (i == 2) ++image;
    }
}

}  // namespace

size_t copy_bytes(const TensorMapFields& map) {
    if (map.is_im2col) return size_t{map.channels} * map.pixels * map.element_bytes;
    size_t bytes = map.element_bytes;
    for (int i = 0; i < map.rank; ++i) bytes *= taken(map, i);
    return bytes;
}

void land(const BulkCopy& copy) { copy.map.is_im2col ? land_pixels(copy) : land_tile(copy); }

void bulk_copy_tile(void* to, const void* map, uint64_t* barrier, const int* coordinates, unsigned rank) {
    BulkCopy copy{decode(map), static_cast<unsigned char*>(to), barrier, {}, {}, 0};
    if (copy.map.is_im2col || copy.map.rank != rank) fail("bulk copy: a tiled map of rank %u is needed", rank);
    std::copy(coordinates, coordinates + rank, copy.coordinates);
    issue(copy);
}

void bulk_copy_pixels(void* to, const void* map, uint64_t* barrier, const int (&coordinates)[4], const int (&offsets)[2]) {
    BulkCopy copy{decode(map), static_cast<unsigned char*>(to), barrier, {}, {offsets[0], offsets[1]}, 0};
    if (!copy.map.is_im2col) fail("bulk copy: an im2col map is needed");
    for (int i = 0; i < 2; ++i) {
        const int64_t last = static_cast<int64_t>(copy.map.extents[i + 1]) - 1 + copy.map.upper[i];
        if (coordinates[i + 1] < copy.map.lower[i] || coordinates[i + 1] > last) {
            fail("bulk copy: %c = %d lies outside the map's box, %d to %lld", "wh"[i], coordinates[i + 1], copy.map.lower[i],
                 static_cast<long long>(last));
        }
        if (offsets[i] > 255) fail("bulk copy: an offset of %d; at most 255", offsets[i]);
    }
    std::copy(coordinates, coordinates + 4, copy.coordinates);
    issue(copy);
}

}  // namespace emulator
