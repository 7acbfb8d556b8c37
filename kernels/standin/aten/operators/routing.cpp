// Which experts a token goes to, and its rows in the order of the experts.
//
// Sources: op-plugin docs/zh/custom_APIs/torch_npu/torch_npu-npu_moe_{gating_top_k, init_routing,
// init_routing_v2}.md (their equivalent Python); ops-transformer
// moe/moe_gating_top_k/docs/aclnnMoeGatingTopK.md; for a row that is finished, op-plugin
// test/test_custom_ops/test_npu_moe_gating_top_k_softmax.py.
#include <limits>
#include <tuple>

#include "operator.h"

namespace standin {
namespace {

// Values and indices of the k largest of each row; of equal ones the first.
std::tuple<Tensor, Tensor> TopK(const Tensor& values, int64_t k) {
    const Tensor order = values.argsort(/*stable=*/true, /*dim=*/-1, /*descending=*/true);
    const Tensor indices = order.slice(-1, 0, k);
    return {values.gather(-1, indices), indices};
}

// ---- npu_moe_gating_top_k

struct Gating {
    int64_t k, k_group, group_count, group_select_mode, renorm, norm_type;
    double scaling, eps;
};

Tensor Normalised(const Tensor& x, int64_t norm_type) {
    switch (norm_type) {
        case 0:
            return x.softmax(-1);
        case 1:
            return x.sigmoid();
        default:
            return at::softplus(x).sqrt();
    }
}

// Groups that are not among the best k_group fall out.
Tensor WithinGroups(const Tensor& scores, const Gating& how) {
    const Tensor groups = scores.view({scores.size(0), how.group_count, -1});
    const Tensor merit =
        how.group_select_mode == 0 ? groups.amax(-1) : std::get<0>(TopK(groups, 2)).sum(-1);
    const Tensor best = std::get<1>(TopK(merit, how.k_group));
    const Tensor out = at::ones_like(merit, at::kBool).scatter(1, best, 0);
    return groups.masked_fill(out.unsqueeze(-1), -std::numeric_limits<float>::infinity())
        .view(scores.sizes());
}

Work GatingTopK(const Tensor& x, const Tensor& bias, const Tensor& input_ids, const Tensor& tid2eid,
                int64_t k, int64_t k_group, int64_t group_count, int64_t group_select_mode,
                int64_t renorm, int64_t norm_type, bool out_flag, double scaling, double eps,
                const Tensor& y, const Tensor& expert_idx, const Tensor& out) {
    TORCH_CHECK(x.dim() == 2 && x.size(1) <= 2048, "x has shape ", x.sizes(),
                ", must be (tokens, experts) with at most 2048 experts");
    const int64_t experts = x.size(1);
    TORCH_CHECK(group_count > 0 && experts % group_count == 0 &&
                    experts / group_count > group_select_mode &&
                    (experts / group_count + 31) / 32 * 32 * group_count <= 2048,
                "group_count=", group_count, " does not divide ", experts,
                " experts into groups that are large enough and, rounded up to 32, at most 2048");
    TORCH_CHECK(k_group >= 1 && k_group <= group_count, "k_group=", k_group, " must be in [1, ",
                group_count, "]");
    TORCH_CHECK(k >= 1 && k <= experts / group_count * k_group, "k=", k, " must be in [1, ",
                experts / group_count * k_group, "]");
    TORCH_CHECK(group_select_mode == 0 || group_select_mode == 1,
                "group_select_mode=", group_select_mode, " must be 0 or 1");
    TORCH_CHECK(norm_type >= 0 && norm_type <= 2, "norm_type=", norm_type, " must be 0, 1 or 2");
    TORCH_CHECK(renorm == 0 || renorm == 1, "renorm=", renorm, " must be 0 or 1");
    const Gating how{k, k_group, group_count, group_select_mode, renorm, norm_type, scaling, eps};
    return [=] {
        const Tensor scores = Normalised(Float(x), how.norm_type);
        Tensor indices;
        if (Given(input_ids)) {
            indices = tid2eid.index_select(0, input_ids).to(at::kLong);
        } else {
            Tensor merit = Given(bias) ? scores + Float(bias) : scores;
            if (how.group_count > 1) merit = WithinGroups(merit, how);
            indices = std::get<1>(TopK(merit, how.k));
        }
        Tensor weights = scores.gather(1, indices);
        if (how.norm_type != 0 || how.renorm == 1)
            weights = weights / (weights.sum(1, /*keepdim=*/true) + how.eps);
        y.copy_(weights * how.scaling);
        expert_idx.copy_(indices);
        if (out_flag) out.copy_(scores);
    };
}

// ---- npu_moe_gating_top_k_softmax

// renorm 0: softmax over all, then the best; 1: the best, then softmax over them. A finished row
// gets the expert that does not exist.
Work GatingTopKSoftmax(const Tensor& x, const Tensor& finished, int64_t k, int64_t renorm,
                       const Tensor& y, const Tensor& expert_idx, const Tensor& row_idx,
                       const Tensor& softmax_out) {
    const int64_t experts = x.size(-1);
    TORCH_CHECK(k >= 1 && k <= std::min<int64_t>(experts, 1024), "k=", k, " must be in [1, ",
                std::min<int64_t>(experts, 1024), "]");
    return [=] {
        const Tensor rows = Float(x).reshape({-1, experts});
        const Tensor scores = renorm == 0 ? rows.softmax(-1) : rows;
        auto [weights, indices] = TopK(scores, k);
        if (renorm == 1) weights = weights.softmax(-1);
        if (Given(finished)) indices = indices.masked_fill(finished.reshape({-1, 1}), experts);
        y.copy_(weights.view(y.sizes()));
        expert_idx.copy_(indices.view(expert_idx.sizes()));
        if (Given(row_idx)) {
            const Tensor numbers = at::arange(rows.size(0) * k).view({k, rows.size(0)}).t();
            row_idx.copy_(numbers.reshape(row_idx.sizes()));
        }
        if (Given(softmax_out)) softmax_out.copy_(scores.view(softmax_out.sizes()));
    };
}

// ---- npu_moe_init_routing

// The first generation: a source row is given for each (token, k), column by column.
Work InitRouting(const Tensor& x, const Tensor& row_idx, const Tensor& expert_idx,
                 const Tensor& expanded_x, const Tensor& expanded_row_idx,
                 const Tensor& expanded_expert_idx) {
    return [=] {
        const Tensor experts = expert_idx.reshape({-1});
        const Tensor order = experts.argsort(/*stable=*/true);
        const Tensor source = row_idx.reshape({-1}).to(at::kLong).index_select(0, order);
        expanded_expert_idx.copy_(experts.index_select(0, order));
        expanded_row_idx.scatter_(0, source, at::arange(source.numel(), at::kInt));
        const Tensor first = source.slice(0, 0, expanded_x.size(0));
        expanded_x.copy_(x.index_select(0, first.remainder(x.size(0))));
    };
}

struct InitRoutingCall {
    int64_t active_num, capacity, expert_num, drop_pad_mode, tokens_num_type;
    bool tokens_num;
    int64_t quant_mode, first, last, row_idx_type;  // experts [first, last)
};

// int8 rows and, for per-token quantisation, their scales.
void StoreRows(const InitRoutingCall& call, Tensor rows, const Tensor& smooth, const Tensor& scale,
               const Tensor& offset, const Tensor& expanded_x, const Tensor& expanded_scale) {
    if (call.quant_mode == -1) {
        expanded_x.copy_(rows);
    } else if (call.quant_mode == 0) {
        const Tensor half = rows.to(at::kHalf) * scale.to(at::kHalf) + offset.to(at::kHalf);
        expanded_x.copy_(ToInt8(Float(half)));
    } else {
        rows = Float(rows);
        if (smooth.defined()) rows = rows * smooth;
        const Tensor step = rows.abs().amax(1, /*keepdim=*/true) / 127;
        expanded_x.copy_(ToInt8(rows / step));
        expanded_scale.copy_(step.view(-1));
    }
}

// How many rows each expert got: prefix sums, counts, or (expert, count) pairs of those with any.
void StoreCounts(const InitRoutingCall& call, const Tensor& experts, const Tensor& target) {
    const Tensor counts = (experts - call.first).bincount({}, call.last - call.first);
    if (call.drop_pad_mode == 1 || call.tokens_num_type == 1) {
        target.copy_(counts);
    } else if (call.tokens_num_type == 0) {
        target.copy_(counts.cumsum(0));
    } else {
        const Tensor busy = counts.nonzero().view(-1);
        const Tensor pairs = at::stack({busy + call.first, counts.index_select(0, busy)}, 1);
        target.slice(0, 0, pairs.size(0)).copy_(pairs);
        if (pairs.size(0) < target.size(0)) target.select(0, pairs.size(0)).zero_();
    }
}

Work InitRoutingV3(const Tensor& x, const Tensor& expert_idx, const Tensor& scale,
                   const Tensor& offset, int64_t active_num, int64_t capacity, int64_t expert_num,
                   int64_t drop_pad_mode, int64_t tokens_num_type, bool tokens_num,
                   int64_t quant_mode, const std::vector<int64_t>& range, int64_t row_idx_type,
                   const Tensor& expanded_x, const Tensor& expanded_row_idx, const Tensor& counts,
                   const Tensor& expanded_scale) {
    TORCH_CHECK(quant_mode >= -1 && quant_mode <= 1, "quant_mode=", quant_mode,
                ", the virtual NPU has -1 (none), 0 (static) and 1 (dynamic)");
    TORCH_CHECK(drop_pad_mode == 0 || drop_pad_mode == 1, "drop_pad_mode=", drop_pad_mode,
                " must be 0 or 1");
    TORCH_CHECK(tokens_num_type >= 0 && tokens_num_type <= 2,
                "expert_tokens_num_type=", tokens_num_type, " must be 0, 1 or 2");
    TORCH_CHECK(row_idx_type == 0 || row_idx_type == 1, "row_idx_type=", row_idx_type,
                " must be 0 or 1");
    TORCH_CHECK(quant_mode != 0 || (Given(scale) && Given(offset)),
                "quant_mode 0 needs scale and offset");
    const int64_t first = range.empty() ? 0 : range[0];
    const int64_t last = range.empty() ? expert_num : range[1];
    TORCH_CHECK(first >= 0 && first < last && last <= expert_num, "active_expert_range [", first,
                ", ", last, ") must lie in [0, ", expert_num, ")");
    TORCH_CHECK(drop_pad_mode == 0 || (first == 0 && last == expert_num && capacity > 0),
                "drop_pad_mode 1 needs all experts and expert_capacity above 0");
    const InitRoutingCall call{active_num, capacity,   expert_num, drop_pad_mode, tokens_num_type,
                               tokens_num, quant_mode, first,      last,          row_idx_type};
    return [=] {
        const int64_t topk = expert_idx.size(1);
        const Tensor experts = expert_idx.reshape({-1}).to(at::kLong);
        const Tensor active = experts.ge(call.first).logical_and(experts.lt(call.last));
        const int64_t available = active.sum().item<int64_t>();
        const Tensor order =
            experts.masked_fill(active.logical_not(), call.expert_num).argsort(/*stable=*/true);
        const Tensor picked = order.slice(0, 0, available);  // flat (token, k), by expert
        const Tensor picked_experts = experts.index_select(0, picked);
        if (call.tokens_num && Given(counts)) StoreCounts(call, picked_experts, counts);

        Tensor source = picked;  // of each row that is written
        Tensor place = at::arange(available);
        if (call.drop_pad_mode == 1) {
            const Tensor starts =
                at::searchsorted(picked_experts, picked_experts, /*out_int32=*/false);
            const Tensor within = place - starts;
            const Tensor kept = within.lt(call.capacity).nonzero().view(-1);
            source = picked.index_select(0, kept);
            place = (picked_experts * call.capacity + within).index_select(0, kept);
        } else if (call.active_num > 0) {
            source = picked.slice(0, 0, std::min(call.active_num, available));
        }
        if (call.row_idx_type == 1 && call.drop_pad_mode == 0) {
            expanded_row_idx.slice(0, 0, available).copy_(picked);
        } else {
            const Tensor& rows = call.drop_pad_mode == 1 ? source : picked;
            expanded_row_idx.fill_(-1).scatter_(0, rows, place.to(at::kInt));
        }

        const Tensor token = source.div(topk, "floor");
        const Tensor written = experts.index_select(0, source);
        Tensor smooth;
        if (call.quant_mode == 1 && Given(scale))
            smooth = scale.size(0) == 1 ? scale : scale.index_select(0, written - call.first);
        const Tensor rows = x.index_select(0, token);
        if (call.drop_pad_mode == 0) {
            const auto head = [&](const Tensor& t) { return t.slice(0, 0, source.numel()); };
            StoreRows(call, rows, smooth, scale, offset, head(expanded_x), head(expanded_scale));
            if (call.quant_mode == -1 && Given(scale))
                head(expanded_scale).copy_(scale.index_select(0, token));
            return;
        }
        const Tensor flat = expanded_x.view({-1, x.size(1)});
        const Tensor kept_rows = at::empty({source.numel(), x.size(1)}, flat.options());
        const Tensor kept_scale = at::zeros({source.numel()}, at::kFloat);
        StoreRows(call, rows, smooth, scale, offset, kept_rows, kept_scale);
        flat.zero_().index_copy_(0, place, kept_rows);
        if (call.quant_mode == -1 && Given(scale)) kept_scale.copy_(scale.index_select(0, token));
        if (Given(expanded_scale))
            expanded_scale.view(-1).zero_().index_copy_(0, place, kept_scale);
    };
}

// Between the two: counts of type int32, and what each expert would have got without a limit.
Work InitRoutingV2(const Tensor& x, const Tensor& expert_idx, int64_t active_num, int64_t capacity,
                   int64_t expert_num, int64_t drop_pad_mode, int64_t count_kind,
                   bool before_capacity, const Tensor& expanded_x, const Tensor& expanded_row_idx,
                   const Tensor& counts, const Tensor& counts_before) {
    const Tensor unused = at::empty({0}, at::kFloat);
    const Work route = InitRoutingV3(
        x, expert_idx, Tensor(), Tensor(), active_num, capacity, expert_num, drop_pad_mode,
        /*tokens_num_type=*/count_kind == 1 ? 0 : 1, count_kind != 0, /*quant_mode=*/-1,
        {0, expert_num}, /*row_idx_type=*/0, expanded_x, expanded_row_idx, counts, unused);
    return [=] {
        route();
        if (before_capacity && Given(counts_before))
            counts_before.copy_(expert_idx.reshape({-1}).bincount({}, expert_num));
    };
}

}  // namespace
}  // namespace standin

using standin::Handle;
using standin::Integers;

ACLNN(aclnnMoeGatingTopK,
      (Handle x, Handle bias, int64_t k, int64_t k_group, int64_t group_count,
       int64_t group_select_mode, int64_t renorm, int64_t norm_type, bool out_flag, double scaling,
       double eps, Handle y, Handle expert_idx, Handle out),
      GatingTopK, x, bias, Handle{}, Handle{}, k, k_group, group_count, group_select_mode, renorm,
      norm_type, out_flag, scaling, eps, y, expert_idx, out)
ACLNN(aclnnMoeGatingTopKV2,
      (Handle x, Handle bias, Handle input_ids, Handle tid2eid, int64_t k, int64_t k_group,
       int64_t group_count, int64_t group_select_mode, int64_t renorm, int64_t norm_type,
       bool out_flag, double scaling, double eps, Handle y, Handle expert_idx, Handle out),
      GatingTopK, x, bias, input_ids, tid2eid, k, k_group, group_count, group_select_mode, renorm,
      norm_type, out_flag, scaling, eps, y, expert_idx, out)

ACLNN(aclnnMoeGatingTopKSoftmax,
      (Handle x, Handle finished, int64_t k, Handle y, Handle expert_idx, Handle row_idx),
      GatingTopKSoftmax, x, finished, k, int64_t{0}, y, expert_idx, row_idx, Handle{})
ACLNN(aclnnMoeGatingTopKSoftmaxV2,
      (Handle x, Handle finished, int64_t k, int64_t renorm, bool, Handle y, Handle expert_idx,
       Handle softmax_out),
      GatingTopKSoftmax, x, finished, k, renorm, y, expert_idx, Handle{}, softmax_out)

// active_num says again how many rows expanded_x has.
ACLNN(aclnnMoeInitRouting,
      (Handle x, Handle row_idx, Handle expert_idx, int64_t, Handle expanded_x,
       Handle expanded_row_idx, Handle expanded_expert_idx),
      InitRouting, x, row_idx, expert_idx, expanded_x, expanded_row_idx, expanded_expert_idx)
ACLNN(aclnnMoeInitRoutingV2,
      (Handle x, Handle expert_idx, int64_t active_num, int64_t capacity, int64_t expert_num,
       int64_t drop_pad_mode, int64_t count_kind, bool before_capacity, Handle expanded_x,
       Handle expanded_row_idx, Handle counts, Handle counts_before),
      InitRoutingV2, x, expert_idx, active_num, capacity, expert_num, drop_pad_mode, count_kind,
      before_capacity, expanded_x, expanded_row_idx, counts, counts_before)
ACLNN(aclnnMoeInitRoutingV3,
      (Handle x, Handle expert_idx, Handle scale, Handle offset, int64_t active_num,
       int64_t capacity, int64_t expert_num, int64_t drop_pad_mode, int64_t tokens_num_type,
       bool tokens_num, int64_t quant_mode, Integers range, int64_t row_idx_type, Handle expanded_x,
       Handle expanded_row_idx, Handle counts, Handle expanded_scale),
      InitRoutingV3, x, expert_idx, scale, offset, active_num, capacity, expert_num, drop_pad_mode,
      tokens_num_type, tokens_num, quant_mode, range, row_idx_type, expanded_x, expanded_row_idx,
      counts, expanded_scale)
