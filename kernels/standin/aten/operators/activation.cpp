// The gated activation, alone and between dequantisation and quantisation, and per-token
// quantisation.
//
// Sources: ops-nn, activation/swi_glu, quant/dynamic_quant/op_kernel/dynamic_quant.h,
// quant/dequant_swiglu_quant/op_kernel/dequant_swiglu_quant.h (A2, A3).
#include "operator.h"

namespace standin {
namespace {

// silu(gate) * up in fp32.
Tensor Gated(const Tensor& gate, const Tensor& up) { return at::silu(gate) * up; }

Work SwiGlu(const Tensor& x, int64_t dim, const Tensor& y) {
    TORCH_CHECK(dim >= -x.dim() && dim < x.dim() && x.size(dim) % 2 == 0, "dim=", dim,
                " of x, shape ", x.sizes(), ", must be a dimension with an even size");
    return [=] {
        const Tensors halves = Float(x).chunk(2, dim);
        y.copy_(Gated(halves[0], halves[1]));
    };
}

Work SwiGluGrad(const Tensor& grad, const Tensor& x, int64_t dim, const Tensor& out) {
    TORCH_CHECK(dim >= -x.dim() && dim < x.dim() && x.size(dim) % 2 == 0, "dim=", dim,
                " of x, shape ", x.sizes(), ", must be a dimension with an even size");
    return [=] {
        const Tensors halves = Float(x).chunk(2, dim);
        const Tensor sigmoid = halves[0].sigmoid();
        const Tensor slope = sigmoid * (1 + halves[0] * (1 - sigmoid));
        out.copy_(
            at::cat({Float(grad) * halves[1] * slope, Float(grad) * at::silu(halves[0])}, dim));
    };
}

// ---- per-token quantisation

// Rows of `factors` repeated so that row i of the result belongs to row i of x. `ends` are the
// prefix sums of the groups.
Tensor ByGroup(const Tensor& factors, const Tensor& ends, int64_t rows) {
    const Tensor row = at::arange(rows);
    const Tensor group = at::searchsorted(ends.to(at::kLong), row, false, /*right=*/true);
    return factors.index_select(0, group.clamp_max(factors.size(0) - 1));
}

// Eight int4 in each int32, the first in the lowest bits.
Tensor PackInt4(const Tensor& values) {
    const Tensor nibbles = values.to(at::kInt).bitwise_and(15);
    const Tensor octets = nibbles.view({nibbles.size(0), nibbles.size(1) / 8, 8});
    Tensor packed = at::zeros({octets.size(0), octets.size(1)}, at::kInt);
    for (int64_t i = 0; i < 8; ++i)
        packed.bitwise_or_(octets.select(2, i).bitwise_left_shift(4 * i));
    return packed;
}

// Symmetric: factor = limit / max|row|, y = round(x * factor), scale = 1 / factor: two divisions,
// as dispatch does. Otherwise scale = (max - min) / range, offset = limit - max / scale.
Work DynamicQuant(const Tensor& x, const Tensor& smooth_scales, const Tensor& group_index,
                  bool symmetric, const std::string& quant_mode, const Tensor& y,
                  const Tensor& scale, const Tensor& offset) {
    TORCH_CHECK(quant_mode == "pertoken", "quant_mode='", quant_mode,
                "', the virtual NPU has 'pertoken', as A2 and A3");
    const bool int4 = y.scalar_type() == at::kInt;
    TORCH_CHECK(int4 || y.scalar_type() == at::kChar, "y has type ", y.scalar_type(),
                ", must be int8, or int32 for eight int4");
    TORCH_CHECK(x.dim() > 1, "x has shape ", x.sizes(), ", must have more than one dimension");
    const int64_t width = x.size(-1);
    if (Given(smooth_scales)) {
        const int64_t groups = Given(group_index) ? group_index.numel() : 1;
        TORCH_CHECK(smooth_scales.numel() == groups * width, "smooth_scales has shape ",
                    smooth_scales.sizes(), ", x has ", width, " columns and there are ", groups,
                    " groups");
    }
    return [=] {
        const float limit = int4 ? 7.0f : 127.0f;
        Tensor rows = Float(x).reshape({-1, width});
        if (Given(smooth_scales) && Given(group_index)) {
            rows = rows * Float(ByGroup(smooth_scales, group_index, rows.size(0)));
        } else if (Given(smooth_scales)) {
            rows = rows * Float(smooth_scales).view({1, width});
        }
        Tensor quantised;
        if (symmetric) {
            // One division: a number over a tensor would be two roundings in ATen.
            const Tensor most = rows.abs().amax(1, /*keepdim=*/true);
            const Tensor factor = at::full_like(most, limit) / most;
            quantised = ToInt8(rows * factor);
            scale.copy_(factor.reciprocal().view(scale.sizes()));
        } else {
            const Tensor most = rows.amax(1, true);
            const Tensor step = ((most - rows.amin(1, true)) / (2 * limit + 1)).clamp_min(1e-12f);
            const Tensor shift = limit - most / step;
            quantised = ToInt8(rows * step.reciprocal() + shift);
            scale.copy_(step.view(scale.sizes()));
            offset.copy_(shift.view(offset.sizes()));
        }
        y.copy_((int4 ? PackInt4(quantised) : quantised).view(y.sizes()));
    };
}

// ---- dequantisation, activation, quantisation

struct Activation {
    int64_t mode;  // 0 silu; 1 clamped, even and odd columns; 2 clamped, halves
    double limit, alpha, bias;
};

// (gate, up) by the mode; activate_left says which half is the gate.
Tensor Activate(const Tensor& x, bool activate_left, const Activation& how) {
    Tensor gate, up;
    if (how.mode == 1) {
        gate = x.slice(1, 0, x.size(1), 2);
        up = x.slice(1, 1, x.size(1), 2);
    } else {
        const Tensors halves = x.chunk(2, 1);
        gate = halves[activate_left ? 0 : 1];
        up = halves[activate_left ? 1 : 0];
    }
    if (how.mode == 0) return Gated(gate, up);
    gate = gate.clamp_max(how.limit);
    up = up.clamp(-how.limit, how.limit);
    return gate * (gate * how.alpha).sigmoid() * (up + how.bias);
}

// Row g of a parameter that has one row per group, or the whole of one that has none.
Tensor OfGroup(const Tensor& parameter, int64_t group, int64_t groups) {
    const Tensor rows = Float(parameter).view({groups, -1});
    return rows.slice(0, group, group + 1);
}

Work DequantSwigluQuant(const Tensor& x, const Tensor& weight_scale, const Tensor& activation_scale,
                        const Tensor& bias, const Tensor& quant_scale, const Tensor& quant_offset,
                        const Tensor& group_index, bool activate_left,
                        const std::string& quant_mode, int64_t mode, double limit, double alpha,
                        double glu_bias, const Tensor& y, const Tensor& scale) {
    const bool integers = x.scalar_type() == at::kInt;
    const bool dynamic = quant_mode == "dynamic";
    TORCH_CHECK(dynamic || quant_mode == "static", "quant_mode='", quant_mode,
                "' must be static or dynamic");
    TORCH_CHECK(mode >= 0 && mode <= 2, "swiglu_mode=", mode, " must be 0, 1 or 2");
    TORCH_CHECK(y.scalar_type() == at::kChar, "y has type ", y.scalar_type(), ", must be int8");
    TORCH_CHECK(integers || (!Given(activation_scale) && !Given(bias)),
                "activation_scale and bias need an x of int32");
    TORCH_CHECK(!Given(group_index) || group_index.scalar_type() == at::kLong,
                "group_index has type ", group_index.scalar_type(), ", must be int64");
    const int64_t groups = Given(group_index) ? group_index.numel() : 1;
    const int64_t width = x.size(-1);
    const auto check = [&](const char* name, const Tensor& parameter, int64_t columns) {
        if (!Given(parameter)) return;
        TORCH_CHECK(parameter.numel() == groups * columns || parameter.numel() == groups, name,
                    " has shape ", parameter.sizes(), " for ", groups, " groups of ", columns,
                    " columns");
    };
    check("weight_scale", weight_scale, width);
    check("bias", bias, width);
    check("quant_scale", quant_scale, width / 2);
    check("quant_offset", quant_offset, width / 2);
    const Activation how{mode, limit, alpha, glu_bias};
    return [=] {
        const Tensor rows = x.reshape({-1, width});
        const Tensor out = y.view({-1, width / 2});
        const Tensor row_scale =
            Given(activation_scale) ? Float(activation_scale).view({-1, 1}) : Tensor();
        int64_t start = 0;
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t count =
                Given(group_index) ? group_index.select(0, g).item<int64_t>() : rows.size(0);
            TORCH_CHECK(count >= 0 && start + count <= rows.size(0), "group_index: group ", g,
                        " has ", count, " rows from row ", start, ", x has ", rows.size(0));
            if (count == 0) continue;
            Tensor values = rows.slice(0, start, start + count);
            if (integers && Given(bias) && bias.scalar_type() == at::kInt)
                values = values + bias.view({groups, -1}).slice(0, g, g + 1);
            values = Float(values);
            if (Given(weight_scale)) values = values * OfGroup(weight_scale, g, groups);
            if (row_scale.defined()) values = values * row_scale.slice(0, start, start + count);
            if (Given(bias) && bias.scalar_type() != at::kInt)
                values = values + OfGroup(bias, g, groups);
            Tensor active = Activate(values, activate_left, how);
            if (dynamic) {
                if (Given(quant_scale)) active = active * OfGroup(quant_scale, g, groups);
                const Tensor step = active.abs().amax(1, true) * (1.0f / 127.0f);
                scale.view({-1}).slice(0, start, start + count).copy_(step.view({-1}));
                active = active / step;
            } else {
                if (Given(quant_scale)) active = active / OfGroup(quant_scale, g, groups);
                if (Given(quant_offset)) active = active + OfGroup(quant_offset, g, groups);
            }
            out.slice(0, start, start + count).copy_(ToInt8(active));
            start += count;
        }
    };
}

}  // namespace
}  // namespace standin

using standin::Handle;
using standin::Text;

ACLNN(aclnnSwiGlu, (Handle x, int64_t dim, Handle y), SwiGlu, x, dim, y)
ACLNN(aclnnSwiGluGrad, (Handle grad, Handle x, int64_t dim, Handle out), SwiGluGrad, grad, x, dim,
      out)

// dst_type says again what y is.
ACLNN(aclnnDynamicQuant, (Handle x, Handle smooth_scales, Handle y, Handle scale), DynamicQuant, x,
      smooth_scales, Handle{}, true, "pertoken", y, scale, Handle{})
ACLNN(aclnnDynamicQuantV2,
      (Handle x, Handle smooth_scales, Handle group_index, int64_t, Handle y, Handle scale,
       Handle offset),
      DynamicQuant, x, smooth_scales, group_index, offset == nullptr, "pertoken", y, scale, offset)
ACLNN(aclnnDynamicQuantV3,
      (Handle x, Handle smooth_scales, Handle group_index, int64_t, bool symmetric, Text quant_mode,
       Handle y, Handle scale, Handle offset),
      DynamicQuant, x, smooth_scales, group_index, symmetric, quant_mode, y, scale, offset)
ACLNN(aclnnDynamicQuantV4,
      (Handle x, Handle smooth_scales, Handle group_index, int64_t, bool symmetric, Text quant_mode,
       float, Handle y, Handle scale, Handle offset),
      DynamicQuant, x, smooth_scales, group_index, symmetric, quant_mode, y, scale, offset)

ACLNN(aclnnDequantSwigluQuant,
      (Handle x, Handle weight_scale, Handle activation_scale, Handle bias, Handle quant_scale,
       Handle quant_offset, Handle group_index, bool activate_left, Text quant_mode, Handle y,
       Handle scale),
      DequantSwigluQuant, x, weight_scale, activation_scale, bias, quant_scale, quant_offset,
      group_index, activate_left, quant_mode, int64_t{0}, 0.0, 0.0, 0.0, y, scale)
// dst_type, round_mode and activate_dim are of Ascend 950; op-plugin passes their defaults.
ACLNN(aclnnDequantSwigluQuantV2,
      (Handle x, Handle weight_scale, Handle activation_scale, Handle bias, Handle quant_scale,
       Handle quant_offset, Handle group_index, bool activate_left, Text quant_mode, int64_t, Text,
       int64_t, int64_t swiglu_mode, double clamp_limit, double glu_alpha, double glu_bias,
       Handle y, Handle scale),
      DequantSwigluQuant, x, weight_scale, activation_scale, bias, quant_scale, quant_offset,
      group_index, activate_left, quant_mode, swiglu_mode, clamp_limit, glu_alpha, glu_bias, y,
      scale)
