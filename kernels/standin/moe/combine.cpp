// Combine: expert outputs go home and are summed by weight.
//
// Per token, in fp32, each product rounded before it is added, and one rounding at the end:
//
//   slots 0 .. K-1   MoE row * weight; zero expert: nothing; copy expert: ori_x * weight; const
//   expert: see BlendConstant slots K ..       shared expert rows, unweighted shared_expert_x
//   unweighted, last
//
// In hierarchy instead: see server_sum.h.
//
// A row's place is told on A3 by the triples (source, token, slot) in assist_info_for_combine, on
// A2 and in the first generation by the sender's ordinals together with the prefix sums. Rows of
// inactive tokens become zero. Sources: moe_distribute_combine_v2.h, moe_distribute_combine_a2.h of
// ops-transformer.
#include <algorithm>

#include "../../op_api/entry/world.h"
#include "numerics.h"
#include "operators.h"
#include "pairs.h"
#include "post.h"
#include "server_sum.h"

namespace ascend_moe {
namespace {

constexpr const char* kOp = "npu_moe_distribute_combine_v2";
constexpr int kPlaceWords = 4;  // of a row in hierarchy: source, token, place, weight

class Combine {
 public:
    int Resolve(const CombineArguments& call) {
        call_ = call;
        const std::pair<const Tensor*, DeviceTensor*> tensors[] = {
            {&call.expand_x, &expand_x_},
            {&call.expert_ids, &expert_ids_},
            {&call.assist_info_for_combine, &assist_info_},
            {&call.ep_send_counts, &ep_send_counts_},
            {&call.expert_scales, &expert_scales_},
            {&call.tp_send_counts, &tp_send_counts_},
            {&call.x_active_mask, &x_active_mask_},
            {&call.expand_scales, &expand_scales_},
            {&call.shared_expert_x, &shared_expert_x_},
            {&call.ori_x, &ori_x_},
            {&call.const_expert_alpha_1, &alpha_1_},
            {&call.const_expert_alpha_2, &alpha_2_},
            {&call.const_expert_v, &constant_},
            {&call.performance_info, &performance_info_},
            {&call.out, &out_},
        };
        for (const auto& [tensor, resolved] : tensors) {
            const int status = DeviceTensor::Resolve(kOp, *tensor, resolved);
            if (status != ACL_SUCCESS) return status;
        }
        return ACL_SUCCESS;
    }

    int Run() const { return expand_x_.type() == ACL_BF16 ? RunAs<BFloat16>() : RunAs<Float16>(); }

 private:
    template <typename Element>
    int RunAs() const {
        const World world = World::Of(call_.attributes);
        const Routing routing(world, call_.attributes, expert_ids_, x_active_mask_);
        const Agreement agreement = AgreementOf(world, routing);
        const std::vector<int32_t> prefix = Prefix(world);
        std::string problem = routing.problem;
        const int64_t own = prefix.back();
        if (problem.empty() && (own < 0 || own > expand_x_.size(0))) {
            problem = "ep_send_counts says " + std::to_string(own) +
                      " rows were received, expand_x has " + std::to_string(expand_x_.size(0));
        }
        if (problem.empty() && !std::is_sorted(prefix.begin(), prefix.end()))
            problem = "ep_send_counts falls, prefix sums never do";
        std::vector<Element> rows;
        if (problem.empty()) rows = expand_x_.LoadRows<Element>(0, own);
        if (call_.attributes.tp_world_size == 2) {
            const int status = AddPeer(agreement, own, problem, &rows);
            if (status != ACL_SUCCESS) return status;
        }
        if (call_.comm_quant_mode == 2 && !world.hierarchy()) {
            for (size_t row = 0; row < rows.size(); row += hidden())
                ThroughCommQuant(rows.data() + row, hidden());
        }

        std::vector<int32_t> words = prefix;
        if (world.hierarchy() && problem.empty()) {
            words = WeightedPlaces(world, prefix, &problem);
        } else if (!world.ordinals() && problem.empty()) {
            words = Triples(own, &problem);
        }
        Exchange ep(call_.attributes.group_ep, kOp);
        int status =
            ep.Post(agreement, words, rows.data(), rows.size() / std::max<int64_t>(hidden(), 1),
                    hidden() * sizeof(Element), problem);
        if (status != ACL_SUCCESS) return status;
        if (world.hierarchy()) {
            SumByServer<Element>(ep, world, routing, &problem);
        } else {
            const std::vector<const Element*> places =
                world.ordinals() ? PlacesByOrdinal<Element>(ep, world, routing, &problem)
                                 : PlacesByTriple<Element>(ep, world, routing, &problem);
            if (problem.empty()) Sum(world, routing, places);
        }
        status = ep.Finish(problem);
        if (status == ACL_SUCCESS) ep.TellWaits(performance_info_, world.a2);
        return status;
    }

    int64_t hidden() const { return expand_x_.size(1); }

    Agreement AgreementOf(const World& world, const Routing& routing) const {
        return {2,
                world.ranks,
                world.moe_experts,
                world.shared_experts,
                world.shared_ranks,
                hidden(),
                routing.topk(),
                MaxBatch(call_.attributes, routing.batch()),
                0,
                call_.comm_quant_mode,
                expand_x_.type(),
                call_.attributes.tp_world_size};
    }

    std::vector<int32_t> Prefix(const World& world) const {
        std::vector<int32_t> counts = ep_send_counts_.Load<int32_t>();
        counts.resize(world.ranks * world.experts_on(call_.attributes.ep_rank_id));
        return counts;
    }

    std::vector<int32_t> Triples(int64_t own, std::string* problem) const {
        std::vector<int32_t> triples = assist_info_.Load<int32_t>();
        if (static_cast<int64_t>(triples.size()) < 3 * own) {
            *problem = "assist_info_for_combine has " + std::to_string(triples.size()) +
                       " elements, " + std::to_string(own) + " rows need " +
                       std::to_string(3 * own);
            return {};
        }
        triples.resize(3 * own);
        return triples;
    }

    // Hierarchy: (source, token, place, weight) of each own row, from the tables that dispatch
    // wrote behind the prefix sums.
    std::vector<int32_t> WeightedPlaces(const World& world, const std::vector<int32_t>& prefix,
                                        std::string* problem) const {
        const int64_t own = prefix.back();
        const std::vector<int32_t> counts = ep_send_counts_.Load<int32_t>();
        const std::vector<float> weights = expand_scales_.Load<float>();
        const int64_t room = (counts.size() - prefix.size()) / 2;
        if (own > room || own > static_cast<int64_t>(weights.size())) {
            *problem = "ep_send_counts says " + std::to_string(own) +
                       " rows were received, its tables have room for " + std::to_string(room) +
                       " and expand_scales has " + std::to_string(weights.size());
            return {};
        }
        std::vector<int32_t> words;
        words.reserve(kPlaceWords * own);
        size_t slot = 0;
        for (int64_t row = 0; row < own; ++row) {
            while (prefix[slot] <= row) ++slot;
            const int32_t* place = counts.data() + prefix.size() + 2 * row;
            words.insert(words.end(), {static_cast<int32_t>(slot % world.ranks), place[0], place[1],
                                       BitsOf(weights[row])});
        }
        return words;
    }

    // tp_world_size 2: both members of a pair hold both members' rows, own first. The two copies of
    // a row are added in fp32 and rounded before anything else.
    template <typename Element>
    int AddPeer(const Agreement& agreement, int64_t own, std::string problem,
                std::vector<Element>* rows) const {
        const int64_t peer_rank = 1 - call_.attributes.tp_rank_id;
        const int64_t copies = tp_send_counts_.Load<int32_t>()[peer_rank];
        if (problem.empty() && (copies < 0 || own + copies > expand_x_.size(0))) {
            problem = "tp_send_counts says " + std::to_string(copies) +
                      " rows came from the TP peer, expand_x has " +
                      std::to_string(expand_x_.size(0)) + " of which " + std::to_string(own) +
                      " are own";
        }
        std::vector<Element> peers_copies;
        if (problem.empty()) peers_copies = expand_x_.LoadRows<Element>(own, own + copies);
        Exchange tp(call_.attributes.group_tp, kOp);
        const int status = tp.Post(agreement, {}, peers_copies.data(), problem.empty() ? copies : 0,
                                   hidden() * sizeof(Element), problem);
        if (status != ACL_SUCCESS) return status;
        const PostedRows posted = tp.From(peer_rank);
        if (posted.row_count != own) {
            problem = "the TP peer holds " + std::to_string(posted.row_count) +
                      " copies of this rank's " + std::to_string(own) + " rows";
        } else {
            const Element* copy = reinterpret_cast<const Element*>(posted.rows);
            for (size_t i = 0; i < rows->size(); ++i) {
                (*rows)[i] = Element(static_cast<float>((*rows)[i]) + static_cast<float>(copy[i]));
            }
        }
        return tp.Finish(problem);
    }

    // The row of each (token, slot) of this rank in the windows; null where none was sent.
    template <typename Element>
    std::vector<const Element*> PlacesByTriple(const Exchange& exchange, const World& world,
                                               const Routing& routing, std::string* problem) const {
        const int64_t slots = routing.topk() + world.shared_experts;
        std::vector<const Element*> places(routing.batch() * slots, nullptr);
        for (int64_t rank = 0; rank < world.ranks; ++rank) {
            const PostedRows posted = exchange.From(rank);
            for (int64_t row = 0; row < posted.row_count; ++row) {
                const int32_t* triple = posted.words + 3 * row;
                const int64_t token = triple[1];
                const int64_t slot = triple[2];
                if (triple[0] != call_.attributes.ep_rank_id || token < 0 ||
                    token >= routing.batch())
                    continue;
                const bool exists = slot >= 0 && slot < slots;
                if (!exists || places[token * slots + slot] != nullptr) {
                    *problem = WrongRow("assist_info_for_combine", rank, row, token, slot, exists);
                    return places;
                }
                places[token * slots + slot] =
                    reinterpret_cast<const Element*>(posted.rows) + row * hidden();
            }
        }
        RequireRows(routing, world, places, problem);
        return places;
    }

    // An active pair without a row would make the hardware wait for ever.
    template <typename Element>
    static void RequireRows(const Routing& routing, const World& world,
                            const std::vector<const Element*>& places, std::string* problem) {
        const int64_t slots = routing.topk() + world.shared_experts;
        for (int64_t i = 0; i < routing.batch() * slots; ++i) {
            const int64_t token = i / slots;
            const int64_t slot = i % slots;
            const bool travels =
                slot < routing.topk()
                    ? routing.active(token, slot) && routing.id(token, slot) < world.moe_experts
                    : routing.active(token);
            if (!travels || places[i] != nullptr) continue;
            *problem = MissingRow(token, slot);
            return;
        }
    }

    template <typename Element>
    std::vector<const Element*> PlacesByOrdinal(const Exchange& exchange, const World& world,
                                                const Routing& routing,
                                                std::string* problem) const {
        const std::vector<int32_t> ordinals = assist_info_.Load<int32_t>();
        const int64_t slots = routing.topk() + world.shared_experts;
        const int64_t self = call_.attributes.ep_rank_id;
        std::vector<const Element*> places(routing.batch() * slots, nullptr);
        int64_t active_tokens = 0;  // so far: all of them go to every shared expert
        for (int64_t token = 0; token < routing.batch(); ++token) {
            for (int64_t slot = 0; slot < slots; ++slot) {
                const bool shared = slot >= routing.topk();
                if (shared ? !routing.active(token) : !routing.active(token, slot)) continue;
                const int64_t expert = shared ? 0 : routing.id(token, slot);
                if (expert >= world.moe_experts) continue;
                const PostedRows posted =
                    exchange.From(shared ? world.rank_of_shared(slot - routing.topk(), self)
                                         : world.rank_of_expert(expert));
                const int64_t entry =
                    (shared ? 0 : expert % world.local_experts()) * world.ranks + self;
                const int64_t ordinal =
                    shared ? active_tokens : ordinals[token * routing.topk() + slot];
                const int64_t row = (entry == 0 ? 0 : posted.words[entry - 1]) + ordinal;
                if (row < 0 || row >= posted.words[entry] || row >= posted.row_count) {
                    *problem = "assist_info_for_combine: token " + std::to_string(token) +
                               ", slot " + std::to_string(slot) +
                               " points behind the rows of its expert";
                    return places;
                }
                places[token * slots + slot] =
                    reinterpret_cast<const Element*>(posted.rows) + row * hidden();
            }
            if (routing.active(token)) ++active_tokens;
        }
        return places;
    }

    // Finds the rows of this rank's tokens, server by server, and adds them in order of their
    // place.
    template <typename Element>
    void SumByServer(const Exchange& exchange, const World& world, const Routing& routing,
                     std::string* problem) const {
        struct Arrived {
            const Element* row = nullptr;
            int64_t server = 0;
            float weight = 0.0f;
        };
        const int64_t topk = routing.topk();
        std::vector<Arrived> arrived(routing.batch() * topk);
        for (int64_t rank = 0; rank < world.ranks && problem->empty(); ++rank) {
            const PostedRows posted = exchange.From(rank);
            for (int64_t row = 0; row < posted.row_count && problem->empty(); ++row) {
                const int32_t* words = posted.words + kPlaceWords * row;
                const int64_t token = words[1];
                const int64_t place = words[2];
                if (words[0] != call_.attributes.ep_rank_id || token < 0 ||
                    token >= routing.batch())
                    continue;
                const bool exists = place >= 0 && place < topk;
                if (!exists || arrived[token * topk + place].row != nullptr) {
                    *problem = WrongRow("ep_send_counts", rank, row, token, place, exists);
                    continue;
                }
                arrived[token * topk + place] = {
                    reinterpret_cast<const Element*>(posted.rows) + row * hidden(),
                    world.server_of(rank), FloatOf(words[3])};
            }
        }
        for (int64_t i = 0; i < routing.batch() * topk && problem->empty(); ++i) {
            if (routing.active(i / topk, i % topk) && arrived[i].row == nullptr)
                *problem = MissingRow(i / topk, i % topk);
        }
        if (!problem->empty()) return;

        ServerSum<Element> sum(hidden(), call_.comm_quant_mode == 2);
        std::vector<Element> rounded(hidden());
        for (int64_t token = 0; token < routing.batch(); ++token) {
            for (int64_t server = 0; server < world.servers(); ++server) {
                for (int64_t place = 0; place < topk; ++place) {
                    const Arrived& one = arrived[token * topk + place];
                    if (routing.active(token, place) && one.server == server)
                        sum.Add(one.row, one.weight);
                }
                sum.Cross();
            }
            sum.Finish(rounded.data());
            out_.StoreRow(token, rounded.data());
        }
    }

    static std::string WrongRow(const char* table, int64_t rank, int64_t row, int64_t token,
                                int64_t slot, bool exists) {
        return std::string(table) + " of rank " + std::to_string(rank) + ": row " +
               std::to_string(row) + " is for token " + std::to_string(token) + ", slot " +
               std::to_string(slot) +
               (exists ? ", which has a row already" : ", which does not exist");
    }

    static std::string MissingRow(int64_t token, int64_t slot) {
        return "no rank has a row for token " + std::to_string(token) + ", slot " +
               std::to_string(slot);
    }

    template <typename Element>
    void Sum(const World& world, const Routing& routing,
             const std::vector<const Element*>& places) const;

    CombineArguments call_;
    DeviceTensor expand_x_, expert_ids_, assist_info_, ep_send_counts_, expert_scales_,
        tp_send_counts_, x_active_mask_, expand_scales_, shared_expert_x_, ori_x_, alpha_1_,
        alpha_2_, constant_, performance_info_;
    DeviceTensor out_;
};

template <typename Row>
void AddWeighted(std::vector<float>* total, const Row* row, float weight) {
    for (size_t i = 0; i < total->size(); ++i) {
        const float product = static_cast<float>(row[i]) * weight;
        (*total)[i] += product;
    }
}

template <typename Row>
void AddPlain(std::vector<float>* total, const Row* row) {
    for (size_t i = 0; i < total->size(); ++i) (*total)[i] += static_cast<float>(row[i]);
}

// Sum of a row: the upper half is folded onto the lower until one element is left.
float FoldedSum(std::vector<float> terms) {
    size_t kept = 1;
    while (2 * kept < terms.size()) kept *= 2;
    for (size_t length = terms.size(); length > 1; length = kept, kept /= 2) {
        for (size_t i = 0; i < length - kept; ++i) terms[i] += terms[i + kept];
    }
    return terms[0];
}

// A const expert blends the token with its constant v by the softmax of two scores, alpha_1 . x and
// alpha_2 . x, in the order that const_expert_rows in ascend_moe/reference/combine.py defines.
template <typename Element>
std::vector<float> BlendConstant(const Element* x, const Element* alpha_1, const Element* alpha_2,
                                 const Element* v, int64_t hidden) {
    const auto score = [&](const Element* alpha) {
        std::vector<float> terms(hidden);
        for (int64_t i = 0; i < hidden; ++i)
            terms[i] = static_cast<float>(alpha[i]) * static_cast<float>(x[i]);
        return FoldedSum(std::move(terms));
    };
    const float score_1 = score(alpha_1), score_2 = score(alpha_2);
    const float largest = std::max(score_1, score_2);
    const auto power = [&](float value) {
        return static_cast<float>(std::exp(static_cast<double>(value - largest)));
    };
    const float power_1 = power(score_1), power_2 = power(score_2);
    const float share_1 = power_1 / (power_1 + power_2), share_2 = power_2 / (power_1 + power_2);
    std::vector<float> blend(hidden);
    for (int64_t i = 0; i < hidden; ++i) {
        const float of_x = share_1 * static_cast<float>(x[i]);
        const float of_v = share_2 * static_cast<float>(v[i]);
        blend[i] = of_x + of_v;
    }
    return blend;
}

template <typename Element>
void Combine::Sum(const World& world, const Routing& routing,
                  const std::vector<const Element*>& places) const {
    const int64_t topk = routing.topk();
    const int64_t slots = topk + world.shared_experts;
    const int64_t copies_from = world.moe_experts + call_.attributes.zero_expert_num;
    const int64_t constants_from = copies_from + call_.attributes.copy_expert_num;
    const std::vector<float> weights = expert_scales_.Load<float>();  // empty: no weights
    const std::vector<Element> tokens = ori_x_.Load<Element>();
    const std::vector<Element> alpha_1 = alpha_1_.Load<Element>();
    const std::vector<Element> alpha_2 = alpha_2_.Load<Element>();
    const std::vector<Element> constant = constant_.Load<Element>();
    const std::vector<Element> shared = shared_expert_x_.Load<Element>();
    std::vector<float> total(hidden());
    std::vector<Element> rounded(hidden());
    for (int64_t token = 0; token < routing.batch(); ++token) {
        std::fill(total.begin(), total.end(), 0.0f);
        for (int64_t slot = 0; slot < slots; ++slot) {
            const Element* row = places[token * slots + slot];
            if (slot >= topk) {
                if (row != nullptr) AddPlain(&total, row);
                continue;
            }
            if (!routing.active(token, slot)) continue;
            const int64_t expert = routing.id(token, slot);
            const float weight = weights.empty() ? 1.0f : weights[token * topk + slot];
            const Element* x = tokens.data() + token * hidden();
            if (expert < world.moe_experts) {
                AddWeighted(&total, row, weight);
            } else if (expert >= constants_from) {
                const int64_t at = (expert - constants_from) * hidden();
                const std::vector<float> blend = BlendConstant(
                    x, alpha_1.data() + at, alpha_2.data() + at, constant.data() + at, hidden());
                AddWeighted(&total, blend.data(), weight);
            } else if (expert >= copies_from) {
                AddWeighted(&total, x, weight);
            }
        }
        if (!shared.empty() && routing.active(token))
            AddPlain(&total, shared.data() + token * hidden());
        std::transform(total.begin(), total.end(), rounded.begin(),
                       [](float value) { return Element(value); });
        out_.StoreRow(token, rounded.data());
    }
}

}  // namespace

int Plan(const CombineArguments& arguments, standin::Task* task) {
    Combine combine;
    const int status = combine.Resolve(arguments);
    if (status == ACL_SUCCESS) *task = [combine] { return combine.Run(); };
    return status;
}

}  // namespace ascend_moe
