// The windows of the group as one kernel sees them: addresses, tagged blocks, epochs.
// docs/kernels.md sections 2 to 4.

#pragma once

// clang-format off
#include "shim.h"  // first: abi.h takes its integer types from kernel_operator.h
#include "abi.h"
#include "share.h"
// clang-format on

namespace ascend_moe {

using AscendC::LocalTensor;
using AscendC::TBuf;
using AscendC::TPipe;
using AscendC::TPosition;

using Buffer = TBuf<TPosition::VECCALC>;

class Window {
 public:
    // Of the ranks that are left, in new numbers; of a whole group these are the old ones.
    uint32_t rank, ranks, nonce;
    uint32_t whole;  // ranks of the whole group
    bool scaled;     // some are gone
    uint32_t tp_rank, tp_nonce;
    uint32_t core, cores;
    uint64_t bytes;
    uint32_t ranks_per_server = kMaxRanks;  // neighbouring ranks share a server

    __aicore__ inline void Init(GM_ADDR context, uint32_t timeout_ticks, LastOp op) {
        op_ = op;
        context_ = reinterpret_cast<uint64_t>(context);
        auto words = At<uint32_t>(context_);
        retired_ = words.GetValue(__builtin_offsetof(Context, magic) / 4) == kRetiredMagic;
        rank = words.GetValue(__builtin_offsetof(Context, ep_rank) / 4);
        ranks = whole = words.GetValue(__builtin_offsetof(Context, ep_size) / 4);
        nonce = words.GetValue(__builtin_offsetof(Context, nonce) / 4);
        tp_rank = words.GetValue(__builtin_offsetof(Context, tp_rank) / 4);
        tp_nonce = words.GetValue(__builtin_offsetof(Context, tp_nonce) / 4);
        auto longs = At<uint64_t>(context_);
        bytes = longs.GetValue(__builtin_offsetof(Context, window_bytes) / 8);
        own_window_ = longs.GetValue(__builtin_offsetof(Context, own_window) / 8);
        own_control_ = longs.GetValue(__builtin_offsetof(Context, own_control) / 8);
        scaled = longs.GetValue(__builtin_offsetof(Context, scaled) / 8) != 0;
        core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        cores = static_cast<uint32_t>(AscendC::GetBlockNum());
        timeout_ = static_cast<int64_t>(timeout_ticks) * 1024;
        start_ = AscendC::GetSystemCycle();
        if (!scaled) return;
        ranks = Elastic(kElasticRanks);
        rank = Elastic(kElasticNewOfOld + rank);
    }

    // A meeting is of ranks in old numbers: who is left is what they come to agree on.
    __aicore__ inline void CountAll() {
        rank = Old(rank);
        ranks = whole;
        scaled = false;
    }

    // The number of a rank in the whole group, by which addresses and records go.
    __aicore__ inline uint32_t Old(uint32_t peer) const {
        return scaled ? Elastic(ElasticOldOfNew(whole) + peer) : peer;
    }
    __aicore__ inline uint64_t ElasticAddress() const {
        return context_ + __builtin_offsetof(Context, elastic);
    }
    __aicore__ inline uint32_t Elastic(uint32_t word) const {
        return At<uint32_t>(ElasticAddress()).GetValue(word);
    }

    // Where `offset` of a rank is mapped: below kControlBytes, and from there on.
    __aicore__ inline uint64_t Control(uint32_t peer, uint64_t offset) const {
        if (peer == rank) return own_control_ + offset;
        return At<uint64_t>(context_).GetValue(__builtin_offsetof(Context, control) / 8 +
                                               Old(peer)) +
               offset;
    }
    __aicore__ inline uint64_t Data(uint32_t peer, uint64_t offset) const {
        if (peer == rank) return own_window_ + offset;
        return At<uint64_t>(context_).GetValue(__builtin_offsetof(Context, window) / 8 +
                                               Old(peer)) +
               offset;
    }
    // Of old numbers: a rank that is gone has no address.
    __aicore__ inline bool Reached(uint32_t peer) const { return Control(peer, 0) != 0; }

    // The same for the window of a TP rank.
    __aicore__ inline uint64_t OfTp(uint32_t peer, uint64_t offset) const {
        return At<uint64_t>(context_).GetValue(__builtin_offsetof(Context, tp_window) / 8 + peer) +
               offset;
    }
    __aicore__ inline uint64_t TpBytes() const {
        return At<uint64_t>(context_).GetValue(__builtin_offsetof(Context, tp_window_bytes) / 8);
    }

    // UB for control blocks, at most `blocks` polled at once. Call after every reset of the pipe.
    __aicore__ inline void InitBuffers(TPipe* pipe, uint32_t blocks) {
        pipe->InitBuffer(post_, kPostBlocks * kBlockBytes);
        pipe->InitBuffer(poll_, blocks * kBlockBytes);
    }

    // Blocks that ReadState needs.
    static constexpr uint32_t kStateBlocks = 2;

    // The launch counters and whether a launch before has failed, read by every core before the
    // first SyncAll. A Wait after it needs buffers of its own. Fails when the block is not ours any
    // more: somebody else has used the buffer.
    __aicore__ inline void ReadState() {
        LocalTensor<uint32_t> block = poll_.Get<uint32_t>();
        Load(block, At<uint32_t>(Control(rank, kStateOffset)), kStateBlocks * kBlockWords);
        MOE_SYNC(MTE2_S);
        failed = block.GetValue(kFailuresOffset / 4) != 0;
        dispatch_epoch = block.GetValue(kStateDispatch);
        combine_epoch = block.GetValue(kStateCombine);
        last_op = block.GetValue(kStateLastOp);
        tp_epoch = block.GetValue(kStateTp);
        epoch = (op_ == kLastDispatch ? dispatch_epoch : combine_epoch) + 1;
        if (retired_) {
            TellRetired();
        } else if (block.GetValue(kStateNonce) != nonce) {
            Fail(kForeignUse, rank);
        }
    }
    // By core 0 after the last SyncAll.
    __aicore__ inline void WriteState(uint32_t dispatch, uint32_t combine, uint32_t tp, LastOp op) {
        LocalTensor<uint32_t> block = post_.Get<uint32_t>();
        Fill(block, nonce, dispatch);
        block.SetValue(kStateCombine, combine);
        block.SetValue(kStateLastOp, op);
        block.SetValue(kStateTp, tp);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(Control(rank, kStateOffset)), block, kBlockWords);
        MOE_SYNC(MTE3_S);
    }
    uint32_t dispatch_epoch, combine_epoch, last_op, tp_epoch;
    uint32_t epoch = 0;  // of this launch

    // The same tagged block, {nonce, epoch, mark}, to this core's share of the ranks, at `offset` +
    // own rank. Ranks start with the next one, so that not all write to the same peer at once. Once
    // between two resets of the pipe: nothing waits until they are there.
    __aicore__ inline void PostToAll(FlagName what, uint64_t offset, uint32_t epoch,
                                     uint32_t mark = 0) {
        PostToAll(what, offset, epoch, mark, PeerToPost());
    }
    // The first peer's control area may be asked for ahead: it takes a while.
    __aicore__ inline uint64_t PeerToPost() const { return Control((rank + 1 + core) % ranks, 0); }
    __aicore__ inline void PostToAll(FlagName what, uint64_t offset, uint32_t epoch, uint32_t mark,
                                     uint64_t peer) {
        if (PostDropped(what)) return;
        LocalTensor<uint32_t> block = post_.Get<uint32_t>()[kToAll * kBlockWords];
        Fill(block, nonce, epoch);
        block.SetValue(kTagWords, mark);
        MOE_SYNC(S_MTE3);
        for (uint32_t i = core; i < ranks; i += cores) {
            if (i != core) peer = Control((rank + 1 + i) % ranks, 0);
            Store(At<uint32_t>(peer + offset + rank * kBlockBytes), block, kBlockWords);
        }
    }

    // What SyncAll does, over memory and in two halves: says that this core has come so far in
    // the launch of that epoch; the others wait for the blocks of all cores. What it has written is
    // there: the caller has drained.
    __aicore__ inline void Arrive(FlagName what, uint32_t epoch) {
        if (PostDropped(what)) return;
        LocalTensor<uint32_t> block = post_.Get<uint32_t>()[kArrival * kBlockWords];
        Fill(block, nonce, epoch);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(Control(rank, kReturnedOffset + core * kBlockBytes)), block,
              kBlockWords);
    }
    __aicore__ inline void WaitForCores(FlagName what, uint32_t epoch) {
        Wait(what, kReturnedOffset, cores, cores, rank, epoch);
    }

    // Waits until `count` consecutive blocks of the own window carry this nonce and an epoch not
    // older than `epoch`; per_peer of them belong to one rank, first_peer first. Their content
    // stays in the buffer that is returned.
    __aicore__ inline LocalTensor<uint32_t> Wait(FlagName what, uint64_t offset, uint32_t count,
                                                 uint32_t per_peer, uint32_t first_peer,
                                                 uint32_t epoch) {
        LocalTensor<uint32_t> blocks = poll_.Get<uint32_t>();
        if (WaitDropped(what)) return blocks;
        uint32_t seen = 0;
        while (!failed && seen < count) {
            {
                PollScope poll;
                Load(blocks[seen * kBlockWords],
                     At<uint32_t>(Control(rank, offset + seen * kBlockBytes)),
                     (count - seen) * kBlockWords);
            }
            MOE_SYNC(MTE2_S);
            while (seen < count && Tagged(blocks[seen * kBlockWords], epoch)) ++seen;
            MOE_SYNC(S_MTE2);
            if (seen < count) Pause(what, first_peer + seen / per_peer, epoch);
        }
        return blocks;
    }

    // A block of this context, of that epoch or a later one.
    __aicore__ inline bool Tagged(const LocalTensor<uint32_t>& block, uint32_t epoch) const {
        return block.GetValue(0) == nonce && static_cast<int32_t>(block.GetValue(1) - epoch) >= 0;
    }

    // Gives up when the peer announces this epoch with the mark of another call. Wants an S_MTE2
    // before the buffer of the wait is used again.
    __aicore__ inline void Compare(const LocalTensor<uint32_t>& block, uint32_t word, uint32_t mark,
                                   uint32_t peer) {
        if (block.GetValue(1) == epoch && block.GetValue(word) != mark) Fail(kOtherCall, peer);
    }

    // This core has given up, or another core or an earlier launch has as far as this one has
    // learnt. Who has failed announces nothing: see Fail.
    bool failed = false;
    // The control area is this context's: everywhere but in a meeting, before `open`.
    bool opened = true;

    // After the SyncAll behind a wait: all cores fail if one has, so that none builds on what
    // another has not seen. In two steps, so that other loads share the MTE2_S between them.
    __aicore__ inline void LoadFailures() {
        Load(poll_.Get<uint32_t>(), At<uint32_t>(Control(rank, kFailuresOffset)), kBlockWords);
    }
    __aicore__ inline void ShareFailure() {
        failed = failed || poll_.Get<uint32_t>().GetValue(0) != 0;
        MOE_SYNC(S_MTE2);
    }

    // What a poll does when it saw nothing new.
    __aicore__ inline void Pause(FlagName what, uint32_t peer, uint32_t epoch,
                                 ErrorReason reason = kAbsent) {
        PollPause(what, Old(peer), epoch);
        if (timeout_ != 0 && AscendC::GetSystemCycle() - start_ >= timeout_) Fail(reason, peer);
    }

    // Gives up and says why. The count of failures outlives the launch: the launches behind it,
    // which the host may have enqueued long ago, announce nothing either, so no peer mistakes their
    // outputs for data.
    __aicore__ inline void Fail(ErrorReason reason, uint32_t peer, uint32_t peer_cores = 0,
                                uint32_t said = 0) {
        failed = true;
        if (retired_) return;
        LocalTensor<uint32_t> block = post_.Get<uint32_t>();
        Fill(block, nonce, epoch);
        block.SetValue(kErrorPeer, Old(peer) + 1);
        block.SetValue(kErrorOp, op_);
        block.SetValue(kErrorCores, peer_cores);
        block.SetValue(kErrorReason, reason);
        block.SetValue(kErrorLink, peer / ranks_per_server == rank / ranks_per_server
                                       ? kLinkServer
                                       : kLinkNetwork);
        block.SetValue(kErrorSaid, said);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(Control(rank, kErrorOffset + core * kBlockBytes)), block, kBlockWords);
        MOE_SYNC(MTE3_S);
        if (!opened) return;
        Fill(block, 1, 0);
        MOE_SYNC(S_MTE3);
        StoreAdding(At<int32_t>(Control(rank, kFailuresOffset)), block.ReinterpretCast<int32_t>(),
                    kBlockWords);
        // The count is there before the SyncAll behind the wait. Few schedules of a late rank show
        // that: the other cores have to look in the moment between.
        MOE_SYNC(MTE3_S);
    }

 private:
    // Blocks of UB to write from: records and the state, posts, arrivals.
    static constexpr uint32_t kToAll = 1, kArrival = 2, kPostBlocks = 3;

    __aicore__ inline void Fill(const LocalTensor<uint32_t>& block, uint32_t first,
                                uint32_t second) {
        block.SetValue(0, first);
        block.SetValue(1, second);
        for (uint32_t i = kTagWords; i < kBlockWords; ++i) block.SetValue(i, 0);
    }
    // The window has another context by now. This launch, of a graph that knows the old one, does
    // nothing; what it says does not touch that context's failures and records.
    __aicore__ inline void TellRetired() {
        failed = true;
        LocalTensor<uint32_t> block = post_.Get<uint32_t>();
        Fill(block, nonce, epoch);
        MOE_SYNC(S_MTE3);
        if (core == 0) Store(At<uint32_t>(Control(rank, kRetiredOffset)), block, kBlockWords);
    }

    uint64_t context_, own_window_, own_control_;
    bool retired_;
    LastOp op_;
    int64_t timeout_, start_;
    Buffer post_, poll_;
};

}  // namespace ascend_moe
