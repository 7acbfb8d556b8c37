// How the cores of a launch divide rows and tokens among them. docs/kernels.md section 6.
#pragma once

// clang-format off
#include "shim.h"
#include "abi.h"
// clang-format on

namespace ascend_moe {

// The contiguous share of one core: [begin, end) of `items`.
struct Share {
    uint32_t begin, end;
};
__aicore__ inline Share ShareOf(uint32_t items, uint32_t core, uint32_t cores) {
    uint32_t each = items / cores, more = items % cores;
    uint32_t begin = core * each + (core < more ? core : more);
    return {begin, begin + each + (core < more ? 1 : 0)};
}

// Rows of an output that one core must own together so that no 32-byte block is shared by two: a
// multiple of `at_least`.
__aicore__ inline uint32_t RowGroup(uint32_t row_bytes, uint32_t at_least) {
    uint32_t group = at_least;
    while (group * row_bytes % kBlockBytes != 0) group *= 2;
    return group;
}
__aicore__ inline Share RowShare(uint32_t rows, uint32_t group, uint32_t core, uint32_t cores) {
    Share share = ShareOf(CeilDiv(rows, group), core, cores);
    share.begin *= group;
    share.end *= group;
    if (share.begin > rows) share.begin = rows;
    if (share.end > rows) share.end = rows;
    return share;
}

// Of the cores of a dispatch. Fewer than there are fill the link; so with enough of them the last
// ones only describe rows (triples, scales), and the small copies of that do not stand between
// rows.
struct Roles {
    uint32_t pullers, describers, cores;

    __aicore__ inline Roles(uint32_t all, bool described)
        : pullers(all), describers(described ? all : 0), cores(all) {
        if (!described || all / 12 == 0) return;
        describers = all / 12;
        pullers = all - describers;
    }
    __aicore__ inline bool Pulls(uint32_t core) const { return core < pullers; }
    __aicore__ inline bool Describes(uint32_t core) const { return core >= cores - describers; }
    __aicore__ inline uint32_t Describer(uint32_t core) const {
        return core - (cores - describers);
    }
};

// What one core has of rows that lie one behind the other: [first, end), of which it leaves out the
// first `head` bytes of the first and takes no more than `tail` bytes of the last.
struct Stretch {
    uint32_t first, end, head, tail;

    __aicore__ inline uint32_t From(uint32_t row) const { return row == first ? head : 0; }
    __aicore__ inline uint32_t To(uint32_t row, uint32_t row_bytes) const {
        return row + 1 == end ? tail : row_bytes;
    }
};
constexpr uint32_t kUnitBytes = 512;  // no core gets less of a row

// Equal shares, to a unit: a row may be of two cores or more.
__aicore__ inline Stretch UnitsOf(uint32_t rows, uint32_t row_bytes, uint32_t core,
                                  uint32_t cores) {
    uint32_t units = CeilDiv(row_bytes, kUnitBytes);
    Share share = ShareOf(rows * units, core, cores);
    if (share.begin == share.end) return {0, 0, 0, 0};
    uint32_t first = share.begin / units, last = (share.end - 1) / units;
    uint32_t tail = (share.end - last * units) * kUnitBytes;
    return {first, last + 1, (share.begin - first * units) * kUnitBytes,
            tail < row_bytes ? tail : row_bytes};
}
// The same where rows are written as they lie, and none shares a block with that of another core.
__aicore__ inline Stretch StretchOf(uint32_t rows, uint32_t row_bytes, uint32_t core,
                                    uint32_t cores) {
    if (row_bytes % kBlockBytes == 0) return UnitsOf(rows, row_bytes, core, cores);
    Share share = RowShare(rows, RowGroup(row_bytes, 1), core, cores);
    return {share.begin, share.end, 0, row_bytes};
}

}  // namespace ascend_moe
