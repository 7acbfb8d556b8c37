// What the mini kernels share. All take (in, out): `in` holds 256 floats, `out` has room for 256.
#pragma once

#include "kernel_operator.h"
#include "register.h"

using namespace AscendC;

constexpr uint32_t kCount = 256;
using Calc = TBuf<TPosition::VECCALC>;

// What the mini kernels share: a pipe, a buffer, both tensors.
struct Frame {
    TPipe pipe;
    Calc buffer, second;
    LocalTensor<float> ub, ub2;
    GlobalTensor<float> in, out;
    Frame(GM_ADDR from, GM_ADDR to) {
        pipe.InitBuffer(buffer, kCount * 4);
        pipe.InitBuffer(second, kCount * 4);
        ub = buffer.Get<float>();
        ub2 = second.Get<float>();
        in.SetGlobalBuffer(reinterpret_cast<float*>(from));
        out.SetGlobalBuffer(reinterpret_cast<float*>(to));
    }
};

template <HardEvent event>
void Sync() {
    SetFlag<event>(0);
    WaitFlag<event>(0);
}

#define MINI(name)                                  \
    extern "C" void name(GM_ADDR from, GM_ADDR to); \
    HOSTSIM_KERNEL(name);                           \
    extern "C" void name([[maybe_unused]] GM_ADDR from, [[maybe_unused]] GM_ADDR to)

// Those that post to a network card: context, tables of its queues, room for what they have read.
#define MINI_CARD(name)                                                    \
    extern "C" void name(GM_ADDR context, GM_ADDR tables, GM_ADDR out);    \
    HOSTSIM_KERNEL(name);                                                  \
    extern "C" void name([[maybe_unused]] GM_ADDR context, GM_ADDR tables, \
                         [[maybe_unused]] GM_ADDR out)
