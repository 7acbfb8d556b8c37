// A tensor with strides becomes contiguous, before a kernel that wants it so.
//
// Rows of neighbouring elements are copied in pieces. Otherwise each element is a block of a
// strided copy: 32 bytes apart in UB, side by side in GM again.
#pragma once

#include "window.h"

namespace ascend_moe {

class PackKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR source, GM_ADDR target, const Packing& p) {
        pipe->InitBuffer(pieces_, 2, kPieceBytes);
        uint32_t row_bytes = p.size[2] * p.element_bytes;
        Share share = RowShare(p.size[0] * p.size[1], RowGroup(row_bytes, 1),
                               static_cast<uint32_t>(AscendC::GetBlockIdx()),
                               static_cast<uint32_t>(AscendC::GetBlockNum()));
        bool neighbours = p.stride[2] == p.element_bytes || p.size[2] == 1;
        for (uint32_t row = share.begin; row < share.end; ++row) {
            uint64_t from = reinterpret_cast<uint64_t>(source) + row / p.size[1] * p.stride[0] +
                            row % p.size[1] * p.stride[1];
            uint64_t to =
                reinterpret_cast<uint64_t>(target) + static_cast<uint64_t>(row) * row_bytes;
            if (neighbours) {
                CopyRow(from, to, row_bytes);
            } else {
                GatherRow(from, to, p);
            }
        }
    }

 private:
    static constexpr uint32_t kPieceBytes = 32 << 10;

    __aicore__ inline void CopyRow(uint64_t from, uint64_t to, uint32_t bytes) {
        for (uint32_t done = 0; done < bytes; done += kPieceBytes) {
            uint32_t piece = bytes - done < kPieceBytes ? bytes - done : kPieceBytes;
            LocalTensor<uint8_t> data = pieces_.AllocTensor<uint8_t>();
            Load(data, At<uint8_t>(from + done), piece);
            pieces_.EnQue(data);
            data = pieces_.DeQue<uint8_t>();
            Store(At<uint8_t>(to + done), data, piece);
            pieces_.FreeTensor(data);
        }
    }

    __aicore__ inline void GatherRow(uint64_t from, uint64_t to, const Packing& p) {
        // A copy cannot step by less than a block: an element that repeats is copied alone.
        uint32_t most = p.stride[2] < p.element_bytes ? 1 : kPieceBytes / kBlockBytes;
        uint32_t gap = most == 1 ? 0 : static_cast<uint32_t>(p.stride[2]) - p.element_bytes;
        for (uint32_t done = 0; done < p.size[2]; done += most) {
            uint32_t count = p.size[2] - done < most ? p.size[2] - done : most;
            LocalTensor<uint8_t> data = pieces_.AllocTensor<uint8_t>();
            AscendC::DataCopyPad(data, At<uint8_t>(from + done * p.stride[2]),
                                 AscendC::DataCopyExtParams{static_cast<uint16_t>(count),
                                                            p.element_bytes, gap, 0, 0},
                                 AscendC::DataCopyPadExtParams<uint8_t>{});
            pieces_.EnQue(data);
            data = pieces_.DeQue<uint8_t>();
            AscendC::DataCopyPad(
                At<uint8_t>(to + done * p.element_bytes), data,
                AscendC::DataCopyExtParams{static_cast<uint16_t>(count), p.element_bytes, 0, 0, 0});
            pieces_.FreeTensor(data);
        }
    }

    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> pieces_;
};

}  // namespace ascend_moe
