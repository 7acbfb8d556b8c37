// Combine over several servers: return rows to the relays, sum per server, send, sum the servers.
// docs/kernels-hierarchy.md.
#pragma once

#include "../routing.h"
#include "owner_sum.h"
#include "server_sum.h"

namespace ascend_moe {

class HierarchyCombineKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const HierarchyCombineTensors& tensors,
                               const Parameters& p) {
        if (p.element == Element::kBfloat16) {
            RunFor<bfloat16_t>(pipe, context, tensors, p);
        } else {
            RunFor<half>(pipe, context, tensors, p);
        }
    }

 private:
    template <typename X>
    __aicore__ inline void RunFor(TPipe* pipe, GM_ADDR context,
                                  const HierarchyCombineTensors& tensors, const Parameters& p) {
        Window window;
        Servers servers;
        window.Init(context, p.timeout_ticks, kLastCombine);
        servers.Init(context, window);
        const Topology& topology = servers.topology;
        window.InitBuffers(pipe, Window::kStateBlocks);
        window.ReadState();
        const uint32_t epoch = window.epoch;
        uint32_t active = CountActive(pipe, p, reinterpret_cast<GM_ADDR>(tensors.mask));
        pipe->Reset();
        MOE_SYNC(S_MTE2);  // the state and the mask have been read
        if (window.last_op == kLastCombine)
            WaitForRelease(pipe, window, servers, p, tensors.performance_info);
        window.InitBuffers(pipe, 1);
        if (!window.failed) ServerReturner(pipe, window, servers, p, tensors).Run();
        MOE_SYNC_ALL();
        pipe->Reset();

        Buffer block;
        window.InitBuffers(pipe, 1);
        pipe->InitBuffer(block, kBlockBytes);
        if (!window.failed)
            servers.TellMates(MOE_FLAG("done"), window, block.Get<uint32_t>(), kDoneOffset, epoch,
                              MarkOf(p));
        WaitForMates(pipe, window, servers, p, tensors.performance_info);
        ServerSum<X> sum(pipe, window, p, tensors);
        for (uint32_t i = 1; i < topology.servers && !window.failed; ++i) {
            uint32_t server = (topology.server + i) % topology.servers;
            sum.Run(server, servers.output + OutputSums(window, p, server));
        }
        MOE_SYNC_ALL();
        window.LoadFailures();
        MOE_SYNC(MTE2_S);
        window.ShareFailure();  // or a tag would announce sums that another core has not made
        if (!window.failed) {
            Send(pipe, window, servers, p, tensors);
            sum.Run(topology.server,
                    window.Data(window.rank,
                                InputSumsOffset(window.bytes, p, topology, topology.server)));
        }
        MOE_SYNC_ALL();
        pipe->Reset();

        window.InitBuffers(pipe, 1);
        OwnerSum<X> owner(pipe, window, servers, p, tensors, epoch, active);
        owner.Wait();
        if (!window.failed) owner.Run();
        if (window.core == 0 && !window.failed)
            window.WriteState(window.dispatch_epoch, epoch, window.tp_epoch, kLastCombine);
    }

    __aicore__ inline uint64_t OutputSums(const Window& window, const Parameters& p,
                                          uint32_t server) const {
        return OutputThird(window.bytes, 2) + server * SumsBytes(p);
    }

    // Nothing since the last combine tells that its rows and sums have been read everywhere.
    __aicore__ inline void WaitForRelease(TPipe* pipe, Window& window, const Servers& servers,
                                          const Parameters& p, uint64_t performance_info) {
        RdmaPost post;
        Buffer block;
        window.InitBuffers(pipe, 1);
        post.InitBuffers(pipe);
        pipe->InitBuffer(block, kBlockBytes);
        if (!window.failed) {
            servers.TellMates(MOE_FLAG("ready"), window, block.Get<uint32_t>(), kReadyOffset,
                              window.epoch, 0);
            servers.TellRail(MOE_FLAG("ready"), window, post, TagSource::kReady, kReadyOffset,
                             window.epoch);
        }
        Waited waited(window, Servers::Measured(window, p));
        waited.Watch(pipe, MOE_FLAG("readiness"), kReadyOffset, 1, Share{0, window.ranks},
                     window.epoch);
        servers.UntilMates(waited);
        servers.UntilRail(waited);
        waited.MergeInto(performance_info, p.waits);
        servers.WaitForShare(MOE_FLAG("readiness"), window, kReadyOffset, window.epoch);
        AscendC::SyncAll<true>();  // nothing to drain
        window.LoadFailures();
        MOE_SYNC(MTE2_S);
        window.ShareFailure();  // or a core would overwrite what another has not seen released
        pipe->Reset();
    }

    // Every core: the rows that it sums come from all of them.
    __aicore__ inline void WaitForMates(TPipe* pipe, Window& window, const Servers& servers,
                                        const Parameters& p, uint64_t performance_info) {
        Waited waited(window, Servers::Measured(window, p));
        waited.Watch(pipe, MOE_FLAG("rows"), kDoneOffset, 1, Share{0, window.ranks}, window.epoch);
        servers.UntilMates(waited);
        waited.MergeInto(performance_info, p.waits);
        for (uint32_t i = 0; i < servers.topology.per_server && !window.failed; ++i) {
            uint32_t mate =
                servers.Mate((servers.topology.number + i) % servers.topology.per_server);
            LocalTensor<uint32_t> done = window.Wait(
                MOE_FLAG("rows"), kDoneOffset + mate * kBlockBytes, 1, 1, mate, window.epoch);
            if (!window.failed) window.Compare(done, kTagWords, MarkOf(p), mate);
            MOE_SYNC(S_MTE2);
        }
    }

    // The sums for the servers whose queue pairs are this core's: head and rows, and the tag.
    __aicore__ inline void Send(TPipe* pipe, Window& window, const Servers& servers,
                                const Parameters& p, const HierarchyCombineTensors& t) {
        const Topology& topology = servers.topology;
        if (window.core >= topology.servers) return;
        RdmaPost post;
        Buffer head_buffer, sent_buffer;
        post.InitBuffers(pipe);
        pipe->InitBuffer(head_buffer, kBlockBytes);
        pipe->InitBuffer(sent_buffer, 4 * SentWords(p));
        LocalTensor<uint32_t> head = head_buffer.Get<uint32_t>(),
                              sent = sent_buffer.Get<uint32_t>();
        for (uint32_t server = window.core; server < topology.servers; server += window.cores) {
            if (server == topology.server) continue;
            Load(sent,
                 At<uint32_t>(t.ep_send_counts +
                              4ull * (HandleRelayed(p, window.ranks) + server * SentWords(p))),
                 SentWords(p));
            MOE_SYNC(MTE2_S);
            const uint32_t tokens = TokensOf(sent, p);
            for (uint32_t i = 0; i < kBlockWords; ++i) head.SetValue(i, 0);
            head.SetValue(kSumsMark, MarkOf(p));
            head.SetValue(kSumsTokens, tokens);
            MOE_SYNC(S_MTE3);
            const uint64_t from = OutputSums(window, p, server) + kSumsHead;
            Store(At<uint32_t>(servers.output + from), head, kBlockWords);
            QueuePair pair = servers.Queue(post, server);
            post.Post(window, pair, from,
                      InputSumsOffset(window.bytes, p, topology, topology.server) + kSumsHead,
                      kBlockBytes + tokens * SumBytes(p));
            post.PostTag(MOE_FLAG("sums"), window, pair,
                         TagSourceOffset(TagSource::kDone, 0, server),
                         kDoneOffset + window.rank * kBlockBytes, window.epoch);
        }
    }
};

}  // namespace ascend_moe
