// Tokens to the order of their experts, and back with their weights.
//
// Sources: ops-transformer moe/moe_token_permute/README.md, moe/moe_token_unpermute; op-plugin
// test/test_custom_ops/test_npu_moe_token_permute_and_unpermute.py; op-plugin
// docs/zh/custom_APIs/torch_npu/torch_npu-npu_moe_finalize_routing.md.
#include "operator.h"

namespace standin {
namespace {

// sorted[i] is the row of flat (token, k) number i; rows beyond permuted are dropped.
Work TokenPermute(const Tensor& tokens, const Tensor& indices, bool padded, const Tensor& permuted,
                  const Tensor& sorted) {
    TORCH_CHECK(!padded, "padded_mode is not available on the virtual NPU");
    const int64_t topk = indices.dim() == 1 ? 1 : indices.size(1);
    TORCH_CHECK(indices.size(0) == tokens.size(0) && topk <= 512, "indices has shape ",
                indices.sizes(), ", must be (", tokens.size(0), ", at most 512)");
    return [=] {
        const Tensor order = indices.reshape({-1}).argsort(/*stable=*/true);
        sorted.copy_(order.argsort().view(sorted.sizes()));
        const Tensor first = order.slice(0, 0, permuted.size(0));
        permuted.copy_(tokens.index_select(0, first.div(topk, "floor")));
    };
}

// Row i of the result: the rows sorted[i * K + k] of `permuted`, each times probs[i, k], added in
// fp32, k ascending. A dropped row counts as zero.
Work TokenUnpermute(const Tensor& permuted, const Tensor& sorted, const Tensor& probs, bool padded,
                    const Tensor& out) {
    TORCH_CHECK(!padded, "padded_mode is not available on the virtual NPU");
    const int64_t topk = Given(probs) ? probs.size(1) : 1;
    TORCH_CHECK(sorted.numel() == out.size(0) * topk, "sorted_indices has ", sorted.numel(),
                " elements, must have ", out.size(0) * topk);
    return [=] {
        const Tensor places = sorted.to(at::kLong).view({-1, topk});
        Tensor sum = at::zeros(out.sizes(), at::kFloat);
        for (int64_t k = 0; k < topk && permuted.size(0) > 0; ++k) {
            const Tensor place = places.select(1, k);
            const Tensor kept = place.lt(permuted.size(0)).unsqueeze(1);
            Tensor rows = Float(permuted.index_select(0, place.clamp_max(permuted.size(0) - 1)));
            if (Given(probs)) rows = rows * Float(probs.slice(1, k, k + 1));
            sum += at::where(kept, rows, 0.0);
        }
        out.copy_(sum);
    };
}

// out = skip1 + skip2 + sum over k of scales[i, k] * (row + bias[expert]). drop_pad_mode: bit 0, a
// place of -1 is no row; bit 1, places are stored token by token instead of column by column.
Work FinalizeRouting(const Tensor& rows, const Tensor& places, const Tensor& skip1,
                     const Tensor& skip2, const Tensor& bias, const Tensor& scales,
                     const Tensor& experts, const Tensor& unavailable, int64_t drop_pad_mode,
                     const Tensor& out) {
    TORCH_CHECK(drop_pad_mode >= 0 && drop_pad_mode <= 3, "drop_pad_mode=", drop_pad_mode,
                " must be in [0, 3]");
    TORCH_CHECK(!Given(unavailable),
                "zero, copy and constant experts are not available on the virtual NPU");
    TORCH_CHECK(!Given(bias) || Given(experts), "bias needs expert_for_source_row");
    TORCH_CHECK(Given(skip1) || !Given(skip2), "skip2 needs skip1");
    const int64_t tokens = out.size(0);
    TORCH_CHECK(tokens > 0 && places.numel() % tokens == 0, "expanded_src_to_dst_row has ",
                places.numel(), " elements for ", tokens, " rows");
    const int64_t topk = places.numel() / tokens;
    return [=] {
        const Tensor flat = rows.reshape({-1, rows.size(-1)});
        const Tensor table =
            drop_pad_mode < 2 ? places.view({topk, tokens}).t() : places.view({tokens, topk});
        Tensor sum = at::zeros(out.sizes(), at::kFloat);
        if (Given(skip1)) sum += Float(skip1);
        if (Given(skip2)) sum += Float(skip2);
        for (int64_t k = 0; k < topk; ++k) {
            const Tensor place = table.select(1, k).to(at::kLong);
            Tensor term = Float(flat.index_select(0, place.clamp_min(0)));
            term = at::where(place.ge(0).unsqueeze(1), term, 0.0);
            if (Given(bias)) term = term + Float(bias.index_select(0, experts.select(1, k)));
            if (Given(scales)) term = term * Float(scales.slice(1, k, k + 1));
            sum += term;
        }
        out.copy_(sum);
    };
}

}  // namespace
}  // namespace standin

using standin::Handle;
using standin::Integers;

// num_out_tokens says again how many rows there are.
ACLNN(aclnnMoeTokenPermute,
      (Handle tokens, Handle indices, int64_t, bool padded, Handle permuted, Handle sorted),
      TokenPermute, tokens, indices, padded, permuted, sorted)
ACLNN(aclnnMoeTokenUnpermute,
      (Handle permuted, Handle sorted, Handle probs, bool padded, Integers, Handle out),
      TokenUnpermute, permuted, sorted, probs, padded, out)

ACLNN(aclnnMoeFinalizeRouting,
      (Handle rows, Handle skip1, Handle skip2, Handle bias, Handle scales, Handle places,
       Handle experts, Handle out),
      FinalizeRouting, rows, places, skip1, skip2, bias, scales, experts, Handle{}, int64_t{0}, out)
ACLNN(aclnnMoeFinalizeRoutingV2,
      (Handle rows, Handle places, Handle skip1, Handle skip2, Handle bias, Handle scales,
       Handle experts, int64_t drop_pad_mode, Handle out),
      FinalizeRouting, rows, places, skip1, skip2, bias, scales, experts, Handle{}, drop_pad_mode,
      out)
// x and the ranges are of zero, copy and constant experts, which torch_npu does not pass on.
ACLNN(aclnnMoeFinalizeRoutingV4,
      (Handle rows, Handle places, Handle skip1, Handle skip2, Handle bias, Handle scales,
       Handle experts, Handle x, Handle, Handle, Handle, int64_t drop_pad_mode, Integers, Integers,
       Integers, int64_t, Handle out),
      FinalizeRouting, rows, places, skip1, skip2, bias, scales, experts, x, drop_pad_mode, out)
