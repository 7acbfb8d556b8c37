// What a core works in: its unified buffer, who touched which part of it, and the stack of its
// fiber. A core takes one and gives it back; making it anew for every core of every launch was most
// of the time of a launch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "../api/types.h"
#include "memory.h"

namespace hostsim {

constexpr int kPipes = 4;  // S, V, MTE2, MTE3
constexpr uint32_t kUbBytes = 196608;
constexpr size_t kStackBytes = 256 * 1024;

// Who touched 32 bytes of the unified buffer last: numbers of instructions, by pipe, from 1 on.
// Every operand of a vector instruction walks over its blocks, so they are small.
struct UbBlock {
    uint32_t write_seq = 0, read_seq[kPipes] = {};
    uint32_t write_pipe = PIPE_S;
};

struct CoreMemory {
    alignas(64) uint8_t ub[kUbBytes];
    uint8_t written[kUbBytes];  // per byte: somebody wrote it
    std::array<UbBlock, kUbBytes / kBlock> blocks;
    alignas(64) uint8_t stack[kStackBytes];
    uint32_t touched = kUbBytes;  // so many bytes from the start were read or written

    // As new but for the stack; unless `clean`, with whatever is there. Both are of this thread.
    static std::unique_ptr<CoreMemory> Take(bool clean);
    static void Give(std::unique_ptr<CoreMemory> memory);

    void Touch(uint32_t end) {
        if (end > touched) touched = end;
    }
};

}  // namespace hostsim
