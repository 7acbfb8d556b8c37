// Writing into a rank of another server: the vector core tells the network card itself.
//
// Nothing of another server is mapped. Between two such ranks HCCL has made a queue pair
// (rdma_abi.h), and the card carries out what lies in its queue: "write these bytes of my output
// window there, in that rank's input window". Posting is five steps,
//
//     room      head - tail < depth - 1, else wait: the tail says how far the card has come
//     element   48 bytes into the ring, at head mod depth; its owner bit is that of this round
//     barrier   the element, and the bytes it speaks of, are in memory
//     doorbell  8 bytes to the card: queue and new head
//     head      the new head, for whoever posts next on this queue
//
// all by copies from UB: what a card reads lies in memory then, and no cache has to be cleaned.
// (The vendor writes elements by scalars and cleans the lines. The card fetches sources, which both
// write by copies, the same way.)
//
// One rule orders what arrives, and it is the vendor's word alone (a comment in its layered
// kernels; docs/hostsim.md, "The network card"): of two messages on one queue pair the *beginning*
// of the later is behind all of the earlier. Nothing else is ordered. Hence
//
//  - a flag behind data in the same message proves nothing;
//  - a *tag*, the eight bytes {nonce, number} as a message of their own, posted last, proves all
//    messages before it on its queue pair as soon as it is seen. Eight bytes, because a word of
//    eight lands whole: of a longer tag a word would be seen, and answered, before the rest is
//    there, and its source be written again while the card still reads it. What else a reader
//    needs goes before the tag;
//  - a completion (the tail) tells the poster late that a message is delivered. A source may be
//    written again when the receiver has answered, by a tag that it posted after it saw ours, or
//    when the tail has passed.
//
// One core at a time posts on a queue pair: the head is read, used and written without atomics. Two
// cores in one launch take turns across MOE_SYNC_ALL; launches on one stream take turns anyway. The
// source bytes are either this core's, or behind a MOE_SYNC_ALL.
//
// A failed queue pair says nothing, messages just do not arrive. So every wait ends by the time
// limit of the launch and names the peer: the wait for a tag, and the wait for room.
#pragma once

// clang-format off
#include "window.h"  // first: rdma_abi.h takes its integer types from kernel_operator.h
#include "rdma_abi.h"
// clang-format on

namespace ascend_moe {

// A queue pair as one core holds it while it posts. `head` is its own; nobody else posts.
struct QueuePair {
    uint32_t peer;
    uint32_t number, level;
    uint32_t depth, shift;  // depth = 1 << shift
    uint32_t element_bytes;
    uint64_t elements, head_at, tail_at, doorbell;
    uint32_t local_key, remote_key;
    uint64_t output, input;  // of this rank; of the peer
    uint32_t head;
};

class RdmaPost {
 public:
    // UB for one message at a time. Call after every reset of the pipe.
    __aicore__ inline void InitBuffers(TPipe* pipe) {
        pipe->InitBuffer(element_, 2 * kBlockBytes);
        pipe->InitBuffer(doorbell_, kBlockBytes);
        pipe->InitBuffer(head_, kBlockBytes);
        pipe->InitBuffer(word_, kBlockBytes);
        pipe->InitBuffer(tag_, kBlockBytes);
    }

    // The queue pair number `index` to `peer`. The tables are read by scalars, the host wrote them
    // before the launch; the head by a copy, another launch has written it.
    __aicore__ inline QueuePair Open(uint64_t tables, uint32_t peer, uint32_t index) {
        QueuePair pair;
        pair.peer = peer;
        const uint64_t queue =
            Word64(tables, __builtin_offsetof(QueueTables, send_queues)) +
            static_cast<uint64_t>(
                peer * Word32(tables, __builtin_offsetof(QueueTables, queues_per_peer)) + index) *
                Word32(tables, __builtin_offsetof(QueueTables, queue_bytes));
        pair.number = Word32(queue, __builtin_offsetof(SendQueue, number));
        pair.level = Word32(queue, __builtin_offsetof(SendQueue, service_level));
        pair.depth = Word32(queue, __builtin_offsetof(SendQueue, depth));
        pair.shift = 0;
        while (1u << pair.shift < pair.depth) ++pair.shift;
        pair.element_bytes = Word32(queue, __builtin_offsetof(SendQueue, element_bytes));
        pair.elements = Word64(queue, __builtin_offsetof(SendQueue, buffer));
        pair.head_at = Word64(queue, __builtin_offsetof(SendQueue, head));
        pair.tail_at = Word64(queue, __builtin_offsetof(SendQueue, tail));
        pair.doorbell = Word64(queue, __builtin_offsetof(SendQueue, doorbell));
        const uint64_t regions =
            Word64(Word64(tables, __builtin_offsetof(QueueTables, peers)) +
                       static_cast<uint64_t>(peer) *
                           Word32(tables, __builtin_offsetof(QueueTables, peer_bytes)),
                   __builtin_offsetof(PeerRegions, regions));
        const uint64_t output = regions + kLocalOutput * sizeof(Region);
        const uint64_t input = regions + kRemoteInput * sizeof(Region);
        pair.output = Word64(output, __builtin_offsetof(Region, address));
        pair.local_key = Word32(output, __builtin_offsetof(Region, key));
        pair.input = Word64(input, __builtin_offsetof(Region, address));
        pair.remote_key = Word32(input, __builtin_offsetof(Region, key));
        Load(word_.Get<uint32_t>(), At<uint32_t>(pair.head_at), 1);
        MOE_SYNC(MTE2_S);
        pair.head = word_.Get<uint32_t>().GetValue(0);
        MOE_SYNC(S_MTE2);
        return pair;
    }

    // `bytes` from `source` of the own output window to `destination` of the peer's input window.
    // Nothing is posted once the launch has failed, here or before.
    __aicore__ inline void Post(Window& window, QueuePair& pair, uint64_t source,
                                uint64_t destination, uint32_t bytes) {
        WaitForRoom(window, pair);
        if (window.failed) return;
        FillElement(pair, source, destination, bytes);
        ++pair.head;
        FillDoorbell(pair);
        MOE_SYNC(S_MTE3);
        const uint64_t slot = (pair.head - 1) & (pair.depth - 1);
        Store(At<uint32_t>(pair.elements + slot * pair.element_bytes), element_.Get<uint32_t>(),
              sizeof(SendElement) / 4);
        // The source bytes that this core has written, too.
        AscendC::PipeBarrier<PIPE_ALL>();
        if (!PostDropped(MOE_FLAG("doorbell")))
            Store(At<uint32_t>(pair.doorbell), doorbell_.Get<uint32_t>(), kDoorbellBytes / 4);
        if (!PostDropped(MOE_FLAG("head")))
            Store(At<uint32_t>(pair.head_at), head_.Get<uint32_t>(), 1);
        MOE_SYNC(MTE3_S);
    }

    // The proof of all messages before it: {nonce, number} at `destination`, by way of `source`,
    // both aligned to 8. `number` grows from tag to tag, in any steps.
    __aicore__ inline void PostTag(FlagName what, Window& window, QueuePair& pair, uint64_t source,
                                   uint64_t destination, uint32_t number) {
        if (window.failed || PostDropped(what)) return;
        LocalTensor<uint32_t> tag = tag_.Get<uint32_t>();
        tag.SetValue(0, window.nonce);
        tag.SetValue(1, number);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(pair.output + source), tag, kTagWords);
        Post(window, pair, source, destination, kTagWords * 4);
    }

    // Until the tag at this address of the own input window has reached `number`.
    __aicore__ inline void WaitTag(FlagName what, Window& window, uint64_t address, uint32_t peer,
                                   uint32_t number) {
        if (WaitDropped(what)) return;
        LocalTensor<uint32_t> tag = word_.Get<uint32_t>();
        bool seen = false;
        while (!window.failed && !seen) {
            {
                PollScope poll;
                Load(tag, At<uint32_t>(address), kTagWords);
            }
            MOE_SYNC(MTE2_S);
            seen = tag.GetValue(0) == window.nonce &&
                   static_cast<int32_t>(tag.GetValue(1) - number) >= 0;
            MOE_SYNC(S_MTE2);
            if (!seen) window.Pause(what, peer, number);
        }
    }

 private:
    __aicore__ inline static uint32_t Word32(uint64_t base, uint64_t offset) {
        return At<uint32_t>(base + offset).GetValue(0);
    }
    __aicore__ inline static uint64_t Word64(uint64_t base, uint64_t offset) {
        return At<uint64_t>(base + offset).GetValue(0);
    }

    __aicore__ inline void WaitForRoom(Window& window, const QueuePair& pair) {
        if (WaitDropped(MOE_FLAG("room in the queue"))) return;
        LocalTensor<uint32_t> tail = word_.Get<uint32_t>();
        bool room = false;
        while (!window.failed && !room) {
            {
                PollScope poll;
                Load(tail, At<uint32_t>(pair.tail_at), 1);
            }
            MOE_SYNC(MTE2_S);
            room = pair.head - tail.GetValue(0) < pair.depth - 1;
            MOE_SYNC(S_MTE2);
            if (!room) window.Pause(MOE_FLAG("room in the queue"), pair.peer, pair.head);
        }
    }

    __aicore__ inline void FillElement(const QueuePair& pair, uint64_t source, uint64_t destination,
                                       uint32_t bytes) {
        const uint32_t round = (pair.head >> pair.shift) & 1;
        const uint64_t remote = pair.input + destination, local = pair.output + source;
        LocalTensor<uint32_t> element = element_.Get<uint32_t>();
        element.SetValue(kElementControl, kOpWrite | (1 - round) << kOwnerShift | kSignalled);
        element.SetValue(kElementBytes, bytes);
        element.SetValue(kElementImmediate, 0);
        element.SetValue(kElementSources, 1 << kSourcesShift);
        element.SetValue(kElementFirstSource, 0);
        element.SetValue(kElementRemoteKey, pair.remote_key);
        element.SetValue(kElementRemote, static_cast<uint32_t>(remote));
        element.SetValue(kElementRemote + 1, static_cast<uint32_t>(remote >> 32));
        element.SetValue(kElementSourceBytes, bytes);
        element.SetValue(kElementLocalKey, pair.local_key);
        element.SetValue(kElementLocal, static_cast<uint32_t>(local));
        element.SetValue(kElementLocal + 1, static_cast<uint32_t>(local >> 32));
    }

    __aicore__ inline void FillDoorbell(const QueuePair& pair) {
        LocalTensor<uint32_t> doorbell = doorbell_.Get<uint32_t>();
        const uint32_t head = pair.head & ((1u << kDoorbellHeadBits) - 1);
        doorbell.SetValue(0, pair.number);  // command 0
        doorbell.SetValue(1, head | pair.level << (kDoorbellLevelShift - kDoorbellHeadShift));
        head_.Get<uint32_t>().SetValue(0, pair.head);
    }

    Buffer element_, doorbell_, head_, word_, tag_;
};

}  // namespace ascend_moe
