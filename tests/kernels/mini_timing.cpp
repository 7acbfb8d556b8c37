// Kernels whose time can be worked out by hand. Each is one loop of sixteen turns over 4 KB.
#include "mini.h"

namespace {

constexpr uint32_t kBytes = 4096, kTurns = 16;

struct Turns {
    TPipe pipe;
    Calc buffer, second;
    LocalTensor<float> ub, ub2;
    GlobalTensor<float> in, out;
    Turns(GM_ADDR from, GM_ADDR to) {
        pipe.InitBuffer(buffer, kBytes);
        pipe.InitBuffer(second, kBytes);
        ub = buffer.Get<float>();
        ub2 = second.Get<float>();
        in.SetGlobalBuffer(reinterpret_cast<float*>(from));
        out.SetGlobalBuffer(reinterpret_cast<float*>(to));
    }
};

}  // namespace

// As pto-isa's tget_bandwidth: a copy in, a copy out, nothing overlaps.
MINI(mini_get) {
    Turns t(from, to);
    for (uint32_t i = 0; i < kTurns; ++i) {
        DataCopy(t.ub, t.in, kBytes / 4);
        Sync<HardEvent::MTE2_MTE3>();
        PipeBarrier<PIPE_ALL>();
        DataCopy(t.out, t.ub, kBytes / 4);
        Sync<HardEvent::MTE3_MTE2>();
    }
}

// Copies in beside vector work on what another turn has brought.
MINI(mini_beside) {
    Turns t(from, to);
    Duplicate(t.ub2, 1.0f, kBytes / 4);
    for (uint32_t i = 0; i < kTurns; ++i) {
        DataCopy(t.ub, t.in, kBytes / 4);
        PipeBarrier<PIPE_V>();
        Adds(t.ub2, t.ub2, 1.0f, kBytes / 4);
    }
}

// The same, but each waits for the other.
MINI(mini_in_turn) {
    Turns t(from, to);
    for (uint32_t i = 0; i < kTurns; ++i) {
        DataCopy(t.ub, t.in, kBytes / 4);
        Sync<HardEvent::MTE2_V>();
        Adds(t.ub, t.ub, 1.0f, kBytes / 4);
        Sync<HardEvent::V_MTE2>();
    }
}
