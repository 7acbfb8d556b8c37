// What a vector core and a network card agree on: HCCL's tables of queues and keys, as they lie in
// device memory, a work element and a doorbell. Plain C++ without functions, also included by host
// code, which includes <cstdint> before; the same bytes for whoever posts (rdma_post.h), for the
// card of the simulator (hostsim/sim/card.cpp) and for whoever builds or checks the tables.
//
// The layout is private to HCCL and may change with a release, so the host checks what it can
// before a kernel reads it. Names are ours; HCCL's, and the lines that were read (hcomm 8958adbf,
// src/legacy/ascend910/pub_inc/transport_pub.h; ops-transformer 6aa4c33c,
// mc2/moe_distribute_dispatch/op_kernel/moe_distribute_dispatch_a2_layered.h, AIVRDMAPostSend),
// stand beside them.
#pragma once

namespace ascend_moe {

// One send queue (HcclAiRMAWQ, transport_pub.h 31). A queue pair leads to one peer, in order; two
// queue pairs know nothing of each other.
struct SendQueue {
    uint32_t number;  // wqn: what a doorbell names the queue by
    uint32_t padding0;
    uint64_t buffer;         // bufAddr: `depth` elements in a ring
    uint32_t element_bytes;  // wqeSize: from one element to the next, at least sizeof(SendElement)
    uint32_t depth;          // a power of two
    uint64_t head;  // headAddr: of a running uint32, elements posted so far; who posts writes it
    uint64_t tail;  // tailAddr: of a running uint32, elements done with; late, the driver writes it
    int32_t doorbell_mode;  // dbMode: kHardwareDoorbell
    uint32_t padding1;
    uint64_t doorbell;       // dbAddr: 8 bytes of the card; queues may share them
    uint32_t service_level;  // sl
    uint32_t padding2;
};
static_assert(sizeof(SendQueue) == 64);

// One completion queue (HcclAiRMACQ, transport_pub.h 54). HCCL leaves all of it 0: the driver polls
// completions, a kernel sees only the tail of the send queue.
struct CompletionQueue {
    uint32_t number;
    uint32_t padding0;
    uint64_t buffer;
    uint32_t element_bytes, depth;
    uint64_t head, tail;
    int32_t doorbell_mode;
    uint32_t padding1;
    uint64_t doorbell;
};
static_assert(sizeof(CompletionQueue) == 56);

// A registered buffer and its key (MemDetails, transport_pub.h 149).
struct Region {
    uint64_t bytes, address;
    uint32_t key;
    uint32_t padding;
};
static_assert(sizeof(Region) == 24);

// The regions of a queue pair (HcclAiRMAMemType). Local ones carry an lkey, for sources; remote
// ones an rkey, for destinations. A rank has two buffers of the size of a window: input and output.
enum RegionIndex : uint32_t { kLocalInput = 0, kRemoteInput, kLocalOutput, kRemoteOutput };
constexpr uint32_t kRegions = 4;

// Those of one peer (HcclAiRMAMemInfo).
struct PeerRegions {
    uint32_t count;         // kRegions
    uint32_t region_bytes;  // sizeof(Region)
    uint64_t regions;       // address of the first
};
static_assert(sizeof(PeerRegions) == 16);

// The root of the tables (HcclAiRMAInfo). The queue q to a peer is entry peer * queues_per_peer + q
// of `send_queues`; its regions are entry `peer` of `peers`. A peer in the own server has a queue
// of depth 0: there are windows.
struct QueueTables {
    uint32_t rank, ranks;
    uint32_t queues_per_peer;
    uint32_t queue_bytes, completion_bytes, peer_bytes;  // of an entry of each table
    uint64_t send_queues, send_completions, receive_queues, receive_completions;
    uint64_t peers;  // of PeerRegions
};
static_assert(sizeof(QueueTables) == 64);

constexpr int32_t kHardwareDoorbell = 0;

// A work element: "write these bytes there". 48 bytes, whatever the pitch of the queue.
struct SendElement {
    uint32_t control;       // byte 0
    uint32_t bytes;         // of the message
    uint32_t immediate;     // 0
    uint32_t sources;       // 1 << kSourcesShift: one source
    uint32_t first_source;  // 0
    uint32_t remote_key;    // rkey
    uint64_t remote;        // where to; byte 24
    uint32_t source_bytes;  // as `bytes`
    uint32_t local_key;     // lkey
    uint64_t local;         // where from; byte 40
};
static_assert(sizeof(SendElement) == 48);

// The same as words.
enum ElementWord : uint32_t {
    kElementControl = 0,
    kElementBytes,
    kElementImmediate,
    kElementSources,
    kElementFirstSource,
    kElementRemoteKey,
    kElementRemote,  // two words
    kElementSourceBytes = 8,
    kElementLocalKey,
    kElementLocal  // two words
};

// `control`: bits 0 to 4 the operation; bit 7 the owner, which is 1 in the first round through the
// ring, 0 in the second and so on: this is how the card tells a new element from an old one; bit 8
// asks for a completion, without which the tail would not move.
constexpr uint32_t kOpWrite = 3;
constexpr uint32_t kOpMask = 31;
constexpr uint32_t kOwnerShift = 7;
constexpr uint32_t kSignalled = 1 << 8;
constexpr uint32_t kSourcesShift = 24;

// A doorbell: the number of the queue (24 bits), the command 0 (4), the new head (16), the service
// level (3).
constexpr uint32_t kDoorbellBytes = 8;
constexpr uint32_t kDoorbellNumberBits = 24;
constexpr uint32_t kDoorbellCommandBits = 4;
constexpr uint32_t kDoorbellHeadShift = 32;
constexpr uint32_t kDoorbellHeadBits = 16;
constexpr uint32_t kDoorbellLevelShift = 48;

// Of the kernel of ping_pong.h.
struct PingPong {
    uint32_t peer;
    uint32_t first;  // number of the first turn, higher than that of any turn before
    uint32_t turns;
    uint32_t burst;          // messages of a turn, beside the tag
    uint32_t bytes;          // of a message, a multiple of 4
    uint32_t timeout_ticks;  // as in Parameters
};

}  // namespace ascend_moe
