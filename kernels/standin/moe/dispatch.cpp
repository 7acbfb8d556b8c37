// Dispatch: every pair becomes a row on the rank that holds its expert.
//
// A receiver orders its rows by (local expert, source rank, token, slot); counts and prefix sums
// follow from that order. Rows behind the last received one are not written. Sources of the rules:
// the A3 and A2 full-mesh kernels of ops-transformer (moe_distribute_dispatch_v2.h,
// moe_distribute_dispatch_a2.h). Hierarchy differs in the handle alone, see server_sum.h.
#include <cstring>

#include "../../op_api/entry/world.h"
#include "numerics.h"
#include "operators.h"
#include "pairs.h"
#include "post.h"

namespace ascend_moe {
namespace {

constexpr const char* kOp = "npu_moe_distribute_dispatch_v2";

// The words of a posted pair: 5 each, behind the start of every destination (ranks + 1 words).
constexpr int kPairWords = 5;
enum PairWord { kLocalExpert, kToken, kSlot, kScale, kWeight };

class Dispatch {
 public:
    int Resolve(const DispatchArguments& call) {
        call_ = call;
        const std::pair<const Tensor*, DeviceTensor*> tensors[] = {
            {&call.x, &x_},
            {&call.expert_ids, &expert_ids_},
            {&call.scales, &scales_},
            {&call.x_active_mask, &x_active_mask_},
            {&call.expert_scales, &expert_scales_},
            {&call.performance_info, &performance_info_},
            {&call.expand_x, &expand_x_},
            {&call.dynamic_scales, &dynamic_scales_},
            {&call.assist_info_for_combine, &assist_info_},
            {&call.expert_token_nums, &expert_token_nums_},
            {&call.ep_recv_counts, &ep_recv_counts_},
            {&call.tp_recv_counts, &tp_recv_counts_},
            {&call.expand_scales, &expand_scales_},
        };
        for (const auto& [tensor, resolved] : tensors) {
            const int status = DeviceTensor::Resolve(kOp, *tensor, resolved);
            if (status != ACL_SUCCESS) return status;
        }
        return ACL_SUCCESS;
    }

    int Run() const {
        if (packed()) return RunAs<int32_t>();
        return x_.type() == ACL_BF16 ? RunAs<BFloat16>() : RunAs<Float16>();
    }

 private:
    struct Outgoing {
        std::vector<int32_t> words;
        std::vector<char> rows;
        int64_t count = 0;
    };
    struct Received {
        int64_t rows = 0;
        std::vector<int32_t> prefix;  // inclusive, per (local expert, source rank)
        std::vector<int64_t> per_expert;
    };

    template <typename Element>
    int RunAs() const {
        const World world = World::Of(call_.attributes);
        const Routing routing(world, call_.attributes, expert_ids_, x_active_mask_);
        const Agreement agreement = AgreementOf(world, routing);
        const Outgoing outgoing =
            routing.problem.empty() ? Pack<Element>(world, routing) : Outgoing();

        Exchange ep(call_.attributes.group_ep, kOp);
        int status = ep.Post(agreement, outgoing.words, outgoing.rows.data(), outgoing.count,
                             RowBytes(), routing.problem);
        if (status != ACL_SUCCESS) return status;
        std::string problem;
        const Received own = Receive(ep, world, &problem);
        status = ep.Finish(problem);
        if (status != ACL_SUCCESS) return status;
        ep.TellWaits(performance_info_, world.a2);

        if (world.ordinals()) {
            const std::vector<int32_t> ordinals = routing.Ordinals();
            for (size_t i = 0; i < ordinals.size(); ++i)
                assist_info_.Store<int32_t>(i, ordinals[i]);
        }
        return call_.attributes.tp_world_size == 2 ? AppendPeer(agreement, own)
                                                   : StoreCounts(own, 0);
    }

    bool quantises() const { return call_.quant_mode == 2; }
    int64_t hidden() const { return x_.size(1); }
    // int32 x: eight int4 in a word, each token with its scale; both travel as they are.
    bool packed() const { return x_.type() == ACL_INT32; }
    int64_t RowBytes() const {
        return quantises() ? hidden() : hidden() * static_cast<int64_t>(aclDataTypeSize(x_.type()));
    }

    Agreement AgreementOf(const World& world, const Routing& routing) const {
        return {1,
                world.ranks,
                world.moe_experts,
                world.shared_experts,
                world.shared_ranks,
                hidden(),
                routing.topk(),
                MaxBatch(call_.attributes, routing.batch()),
                call_.quant_mode,
                0,
                x_.type(),
                call_.attributes.tp_world_size};
    }

    // Rows, scales and weights of all pairs, in the order of their receivers.
    template <typename Element>
    Outgoing Pack(const World& world, const Routing& routing) const {
        const std::vector<Pair> pairs = routing.Pairs();
        const std::vector<Element> x = x_.Load<Element>();
        const std::vector<float> smooth = scales_.Load<float>();
        const std::vector<float> weights = expert_scales_.Load<float>();
        Outgoing outgoing;
        outgoing.count = pairs.size();
        outgoing.rows.resize(pairs.size() * RowBytes());
        outgoing.words.assign(world.ranks + 1, 0);
        for (const Pair& pair : pairs) ++outgoing.words[pair.destination + 1];
        for (int64_t r = 0; r < world.ranks; ++r) outgoing.words[r + 1] += outgoing.words[r];
        for (size_t i = 0; i < pairs.size(); ++i) {
            const Pair& pair = pairs[i];
            const Element* row = x.data() + pair.token * hidden();
            char* target = outgoing.rows.data() + i * RowBytes();
            float scale = 0.0f;
            if (quantises()) {
                const float* factors =
                    smooth.empty() ? nullptr : smooth.data() + pair.scale_row * hidden();
                scale = QuantiseRow(row, factors, hidden(), reinterpret_cast<int8_t*>(target));
            } else {
                memcpy(target, row, RowBytes());
                if (packed()) scale = smooth[pair.token];
            }
            const bool weighted = !weights.empty() && pair.slot < routing.topk();
            const float weight =
                weighted
                    ? weights[pair.token * routing.topk() + routing.column(pair.token, pair.slot)]
                    : 0.0f;
            outgoing.words.insert(outgoing.words.end(), {pair.local_expert, pair.token, pair.slot,
                                                         BitsOf(scale), BitsOf(weight)});
        }
        return outgoing;
    }

    // Takes this rank's rows from all windows, local expert by local expert, source by source.
    Received Receive(const Exchange& exchange, const World& world, std::string* problem) const {
        const int64_t rank = call_.attributes.ep_rank_id;
        const int64_t experts = world.experts_on(rank);
        Received received;
        received.per_expert.assign(experts, 0);
        std::vector<PostedRows> posted;
        std::vector<int32_t>
            next;  // per source: its first pair for this rank that has not been taken
        for (int64_t source = 0; source < world.ranks; ++source) {
            posted.push_back(exchange.From(source));
            next.push_back(posted.back().words[rank]);
        }
        for (int64_t expert = 0; expert < experts; ++expert) {
            for (int64_t source = 0; source < world.ranks; ++source) {
                const int32_t* words = posted[source].words;
                const int32_t end = words[rank + 1];
                for (int32_t& pair = next[source]; pair < end; ++pair) {
                    const int32_t* about = words + world.ranks + 1 + pair * kPairWords;
                    if (about[kLocalExpert] != expert) break;
                    if (received.rows >= expand_x_.size(0)) {
                        *problem = "expand_x has room for " + std::to_string(expand_x_.size(0)) +
                                   " rows, more arrived";
                        return received;
                    }
                    StoreRow(received.rows, posted[source].rows + pair * RowBytes());
                    StoreRowInfo(world, received.rows, source, about);
                    ++received.rows;
                    ++received.per_expert[expert];
                }
                received.prefix.push_back(static_cast<int32_t>(received.rows));
            }
        }
        return received;
    }

    void StoreRow(int64_t row, const char* values) const {
        if (quantises()) {
            expand_x_.StoreRow(row, reinterpret_cast<const int8_t*>(values));
        } else if (packed()) {
            expand_x_.StoreRow(row, reinterpret_cast<const int32_t*>(values));
        } else {
            expand_x_.StoreRow(row, reinterpret_cast<const uint16_t*>(values));
        }
    }

    void StoreRowInfo(const World& world, int64_t row, int64_t source, const int32_t* about) const {
        if (quantises() || packed()) dynamic_scales_.Store<float>(row, FloatOf(about[kScale]));
        if (expert_scales_.present()) expand_scales_.Store<float>(row, FloatOf(about[kWeight]));
        if (world.hierarchy()) {
            // The handle: token and place of each row, behind the prefix sums.
            const int64_t slots = world.ranks * world.experts_on(call_.attributes.ep_rank_id);
            ep_recv_counts_.Store<int32_t>(slots + 2 * row, about[kToken]);
            ep_recv_counts_.Store<int32_t>(slots + 2 * row + 1, about[kSlot]);
            return;
        }
        if (world.ordinals()) return;
        assist_info_.Store<int32_t>(3 * row, static_cast<int32_t>(source));
        assist_info_.Store<int32_t>(3 * row + 1, about[kToken]);
        assist_info_.Store<int32_t>(3 * row + 2, about[kSlot]);
    }

    int StoreCounts(const Received& own, int64_t peer_rows) const {
        for (size_t i = 0; i < own.prefix.size(); ++i)
            ep_recv_counts_.Store<int32_t>(i, own.prefix[i]);
        int64_t total = 0;
        for (size_t expert = 0; expert < own.per_expert.size(); ++expert) {
            const int64_t count = own.per_expert[expert] + peer_rows;  // TP has one expert per rank
            total += count;
            expert_token_nums_.Store<int64_t>(expert,
                                              call_.expert_token_nums_type == 1 ? count : total);
        }
        tp_recv_counts_.Store<int32_t>(call_.attributes.tp_rank_id, static_cast<int32_t>(own.rows));
        return ACL_SUCCESS;
    }

    // tp_world_size 2: the peer's rows behind the own ones, its prefix sums behind the own ones.
    int AppendPeer(const Agreement& agreement, const Received& own) const {
        const int64_t peer_rank = 1 - call_.attributes.tp_rank_id;
        std::vector<int32_t> words = own.prefix;
        std::vector<char> rows;
        for (int64_t row = 0; row < own.rows; ++row) AppendRow(row, &rows);
        const std::vector<float> scales = dynamic_scales_.Load<float>();
        for (int64_t row = 0; quantises() && row < own.rows; ++row)
            words.push_back(BitsOf(scales[row]));

        Exchange tp(call_.attributes.group_tp, kOp);
        int status = tp.Post(agreement, words, rows.data(), own.rows, RowBytes(), "");
        if (status != ACL_SUCCESS) return status;
        const PostedRows peer = tp.From(peer_rank);
        std::string problem;
        if (own.rows + peer.row_count > expand_x_.size(0)) {
            problem = "expand_x has room for " + std::to_string(expand_x_.size(0)) + " rows, " +
                      std::to_string(own.rows + peer.row_count) + " arrived";
        }
        const int64_t slots = own.prefix.size();
        for (int64_t row = 0; problem.empty() && row < peer.row_count; ++row) {
            StoreRow(own.rows + row, peer.rows + row * RowBytes());
            if (quantises())
                dynamic_scales_.Store<float>(own.rows + row, FloatOf(peer.words[slots + row]));
        }
        for (int64_t i = 0; i < slots; ++i)
            ep_recv_counts_.Store<int32_t>(slots + i, peer.words[i]);
        tp_recv_counts_.Store<int32_t>(peer_rank, static_cast<int32_t>(peer.row_count));
        const int64_t peer_rows = peer.row_count;
        status = tp.Finish(problem);
        return status != ACL_SUCCESS ? status : StoreCounts(own, peer_rows);
    }

    void AppendRow(int64_t row, std::vector<char>* rows) const {
        const auto append = [rows](const auto& values) {
            const char* bytes = reinterpret_cast<const char*>(values.data());
            rows->insert(rows->end(), bytes, bytes + values.size() * sizeof(values[0]));
        };
        if (quantises()) {
            append(expand_x_.LoadRows<int8_t>(row, row + 1));
        } else {
            append(expand_x_.LoadRows<uint16_t>(row, row + 1));
        }
    }

    DispatchArguments call_;
    DeviceTensor x_, expert_ids_, scales_, x_active_mask_, expert_scales_, performance_info_;
    DeviceTensor expand_x_, dynamic_scales_, assist_info_, expert_token_nums_, ep_recv_counts_,
        tp_recv_counts_, expand_scales_;
};

}  // namespace

int Plan(const DispatchArguments& arguments, standin::Task* task) {
    Dispatch dispatch;
    const int status = dispatch.Resolve(arguments);
    if (status == ACL_SUCCESS) *task = [dispatch] { return dispatch.Run(); };
    return status;
}

}  // namespace ascend_moe
