// Matrix products with a weight per group of rows, and products of int8 with their scales.
//
//   fp16, bf16, fp32   y = x @ w + bias, added up in fp32, one cast at the end
//   int8               y = (x @ w + bias) * scale * per_token_scale + bias, x @ w exact in int32;
//                      an int32 bias is the first, a float one the second
//   fp16/bf16 @ int8   y = x @ ((w + antiquant_offset) * antiquant_scale) + bias
//
// Sources: op-plugin docs/zh/custom_APIs/torch_npu/torch_npu-npu_grouped_matmul.md (formulas 1 to
// 4) and torch_npu-npu_quant_matmul.md; ops-nn
// quant/trans_quant_param_v2/docs/aclnnTransQuantParamV2.md (a scale of 64 bits).
#include "operator.h"

namespace standin {
namespace {

bool IsInt8(const Tensor& tensor) { return tensor.scalar_type() == at::kChar; }

// The exact product of int8 matrices, as int32. fp32 adds up to 1024 products without rounding:
// 1024 * 128 * 128 = 2^24.
Tensor ExactProduct(const Tensor& x, const Tensor& weight) {
    constexpr int64_t kExact = 1024;
    Tensor sum;
    for (int64_t k = 0; k < x.size(-1); k += kExact) {
        const int64_t end = std::min(k + kExact, x.size(-1));
        const Tensor part =
            at::matmul(Float(x.slice(-1, k, end)), Float(weight.slice(-2, k, end))).to(at::kInt);
        sum = sum.defined() ? sum.add_(part) : part;
    }
    return sum;
}

// A scale of 64 bits holds the upper 19 bits of a float in its lower half and, in bits 37 to 45, an
// offset.
Tensor ScaleOf(const Tensor& scale) {
    if (scale.scalar_type() != at::kLong) return Float(scale);
    return scale.bitwise_and(0xffffffffLL).to(at::kInt).view(at::kFloat);
}
Tensor OffsetOf(const Tensor& scale) {
    const Tensor bits = scale.bitwise_right_shift(37).bitwise_and(0x1ff);
    return Float(at::where(bits.gt(255), bits - 512, bits));
}
Tensor Encoded(const Tensor& scale, const Tensor& offset) {
    const Tensor upper =
        Float(scale).contiguous().view(at::kInt).bitwise_and(~0x1fff).to(at::kLong);
    Tensor bits = upper.bitwise_and(0xffffffffLL).bitwise_or(int64_t{1} << 46);
    if (Given(offset)) {
        const Tensor field =
            Float(offset).round().clamp(-256, 255).to(at::kLong).bitwise_and(0x1ff);
        bits = bits.bitwise_and(0x4000ffffffffLL).bitwise_or(field.bitwise_left_shift(37));
    }
    return bits;
}

// What belongs to one product; undefined where it is absent. Shapes broadcast over (M, N).
struct Terms {
    Tensor bias, scale, row_scale, offset, antiquant_scale, antiquant_offset;
};

Tensor Product(const Tensor& x, const Tensor& weight, const Terms& terms) {
    Tensor y;
    if (IsInt8(x)) {
        y = ExactProduct(x, weight);
        const bool integer_bias = terms.bias.defined() && terms.bias.scalar_type() == at::kInt;
        if (integer_bias) y = y + terms.bias;
        if (!terms.scale.defined()) return y;
        y = Float(y) * ScaleOf(terms.scale);
        if (terms.row_scale.defined()) y = y * Float(terms.row_scale);
        if (integer_bias) return y;
    } else {
        Tensor factors = Float(weight);
        if (terms.antiquant_offset.defined()) factors = factors + Float(terms.antiquant_offset);
        if (terms.antiquant_scale.defined()) factors = factors * Float(terms.antiquant_scale);
        y = at::matmul(Float(x), factors);
    }
    return terms.bias.defined() ? y + Float(terms.bias) : y;
}

void Store(const Tensor& target, const Tensor& y, const Tensor& offset) {
    if (!IsInt8(target)) {
        target.copy_(y);
        return;
    }
    target.copy_(ToInt8(offset.defined() ? y.round() + offset : y));
}

Tensor Activate(const Tensor& y, int64_t type) {
    switch (type) {
        case 1:
            return y.relu();
        case 2:
            return at::gelu(y, "tanh");
        case 4:
            return y * (y * 1.702).sigmoid();
        case 5:
            return at::silu(y);
        default:
            return y;
    }
}

void CheckTypes(const Tensor& x, const Tensor& weight, const Tensor& y, bool scaled,
                bool antiquantised) {
    const bool int8 = IsInt8(x) && IsInt8(weight);
    const bool plain = x.is_floating_point() && weight.scalar_type() == x.scalar_type();
    const bool pseudo = x.is_floating_point() && IsInt8(weight) && antiquantised;
    TORCH_CHECK(int8 || plain || pseudo, "x of type ", x.scalar_type(), " with weight of type ",
                weight.scalar_type(), antiquantised ? "" : " without antiquant_scale",
                ": the virtual NPU has float16, bfloat16, float32, int8 x int8 with scale, and "
                "float16 or bfloat16 x int8 with antiquant_scale");
    TORCH_CHECK(!int8 || scaled || y.scalar_type() == at::kInt, "int8 products of type ",
                y.scalar_type(), " need a scale");
}

// ---- npu_grouped_matmul

struct Grouped {
    Tensors x, weight, bias, scale, antiquant_scale, antiquant_offset, row_scale, y;
    Tensor group_list;  // undefined when there is none, or when it was given as numbers
    std::vector<int64_t> ends;
    int64_t group_type, group_list_type, act_type;

    // One weight of three dimensions holds all groups.
    bool one_weight() const { return weight.size() == 1 && weight[0].dim() == 3; }
    int64_t groups() const {
        return one_weight() ? weight[0].size(0) : static_cast<int64_t>(weight.size());
    }
    // The part of a parameter that belongs to group g.
    Tensor Of(const Tensors& parameter, int64_t g) const {
        if (parameter.empty() || !Given(parameter[0])) return Tensor();
        if (parameter.size() == weight.size() && !one_weight()) return parameter[g];
        return parameter[0].dim() == 1 && groups() == 1 ? parameter[0] : parameter[0].select(0, g);
    }
    Terms TermsOf(int64_t g) const {
        return {Of(bias, g), Of(scale, g),           Tensor(),
                Tensor(),    Of(antiquant_scale, g), Of(antiquant_offset, g)};
    }
    Tensor Weight(int64_t g) const { return one_weight() ? weight[0].select(0, g) : weight[g]; }
};

struct Segment {
    int64_t group, start, end;  // along the axis that is grouped
};

// What the group list says: cumulative sums, sizes, or (group, size) pairs.
std::vector<Segment> SegmentsOf(const Grouped& call, int64_t length) {
    std::vector<int64_t> numbers = call.ends;
    if (Given(call.group_list)) {
        const Tensor flat = call.group_list.to(at::kLong).contiguous().view({-1});
        numbers.assign(flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel());
    }
    std::vector<Segment> segments;
    int64_t start = 0;
    const size_t step = call.group_list_type == 2 ? 2 : 1;
    for (size_t i = 0; i < numbers.size(); i += step) {
        const int64_t group = step == 2 ? numbers[i] : static_cast<int64_t>(i);
        const int64_t end = call.group_list_type == 0 ? numbers[i] : start + numbers[i + step - 1];
        TORCH_CHECK(end >= start, "group_list falls at entry ", i / step);
        TORCH_CHECK(end <= length, "group_list reaches ", end, " at entry ", i / step,
                    ", there are ", length);
        TORCH_CHECK(group >= 0 && group < call.groups(), "group_list names group ", group, " of ",
                    call.groups());
        segments.push_back({group, start, end});
        start = end;
    }
    return segments;
}

// Rows are grouped. Rows behind the last group are not written, as on hardware.
void MultiplyRows(const Grouped& call) {
    std::vector<Segment> segments;
    int64_t rows = 0;
    for (const Tensor& x : call.x) rows += x.size(0);
    if (call.x.size() == 1 && (Given(call.group_list) || !call.ends.empty())) {
        segments = SegmentsOf(call, rows);
    } else {
        int64_t start = 0;
        for (size_t i = 0; i < call.x.size(); ++i) {
            segments.push_back({static_cast<int64_t>(i), start, start + call.x[i].size(0)});
            start += call.x[i].size(0);
        }
    }
    for (const auto& [group, start, end] : segments) {
        if (end == start) continue;
        const Tensor x = call.x.size() == 1 ? call.x[0].slice(0, start, end) : call.x[group];
        const Tensor y = call.y.size() == 1 ? call.y[0].slice(0, start, end) : call.y[group];
        Terms terms = call.TermsOf(group);
        if (!call.row_scale.empty() && Given(call.row_scale[0])) {
            const Tensor row_scale = call.row_scale.size() == 1
                                         ? call.row_scale[0].slice(0, start, end)
                                         : call.row_scale[group];
            terms.row_scale = row_scale.reshape({-1, 1});
        }
        const Tensor offset =
            IsInt8(y) && terms.scale.scalar_type() == at::kLong ? OffsetOf(terms.scale) : Tensor();
        Store(y, Activate(Product(x, call.Weight(group), terms), call.act_type), offset);
    }
}

// The axis that is added up is grouped: x (M, K), weight (K, N), one product (M, N) for each group.
void MultiplyColumns(const Grouped& call) {
    const Tensor& x = call.x[0];
    std::vector<Segment> segments;
    int64_t start = 0;
    Tensor list = call.group_list.to(at::kLong);
    for (int64_t g = 0; g < list.size(0); ++g) {
        const int64_t number = list.select(0, g).item<int64_t>();
        const int64_t end = call.group_list_type == 0 ? number : start + number;
        TORCH_CHECK(end >= start && end <= x.size(1), "group_list reaches ", end, " at entry ", g,
                    ", K is ", x.size(1));
        const Tensor y = call.y.size() == 1 ? call.y[0].select(0, g) : call.y[g];
        y.copy_(Product(x.slice(1, start, end), call.weight[0].slice(0, start, end), Terms{}));
        start = end;
    }
}

Work GroupedMatmul(const Tensors& x, const Tensors& weight, const Tensors& bias,
                   const Tensors& scale, const Tensors& offset, const Tensors& antiquant_scale,
                   const Tensors& antiquant_offset, const Tensors& row_scale,
                   const Tensor& group_list, const std::vector<int64_t>& ends, int64_t group_type,
                   int64_t group_list_type, int64_t act_type, const Tensors& y) {
    const Grouped call{x,         weight, bias,       scale, antiquant_scale, antiquant_offset,
                       row_scale, y,      group_list, ends,  group_type,      group_list_type,
                       act_type};
    TORCH_CHECK(!x.empty() && !weight.empty() && !y.empty(), "x, weight and y must not be empty");
    TORCH_CHECK(offset.empty(), "offset must be None");
    TORCH_CHECK(group_list_type >= 0 && group_list_type <= 2, "group_list_type=", group_list_type,
                " must be 0, 1 or 2");
    TORCH_CHECK(group_list_type != 2 || (IsInt8(x[0]) && group_type == 0),
                "group_list_type=2 needs int8 x and weight and group_type 0");
    TORCH_CHECK(act_type == 0 || (act_type <= 5 && act_type != 3 && !row_scale.empty()),
                "act_type=", act_type,
                " must be 0, 1, 2, 4 or 5, and needs per_token_scale unless it is 0");
    TORCH_CHECK(!Given(group_list) || group_list.scalar_type() == at::kLong, "group_list has type ",
                group_list.scalar_type(), ", must be int64");
    CheckTypes(x[0], weight[0], y[0], !scale.empty(), !antiquant_scale.empty());
    if (group_type == 2) {
        TORCH_CHECK(
            x.size() == 1 && weight.size() == 1 && x[0].is_floating_point() && Given(group_list),
            "group_type=2 needs one x, one weight, a group_list and no quantisation");
        return [=] { MultiplyColumns(call); };
    }
    TORCH_CHECK(x.size() == 1 || x.size() == weight.size(), "x has ", x.size(), " tensors, weight ",
                weight.size());
    for (int64_t g = 0; g < call.groups(); ++g) {
        const Tensor& left = x.size() == 1 ? x[0] : x[g];
        TORCH_CHECK(left.size(-1) == call.Weight(g).size(-2), "x has shape ", left.sizes(),
                    ", the weight of group ", g, " has ", call.Weight(g).sizes());
    }
    TORCH_CHECK(x.size() > 1 || call.groups() == 1 || Given(group_list) || !ends.empty(),
                "one x for ", call.groups(), " groups needs a group_list");
    return [=] { MultiplyRows(call); };
}

// ---- npu_quant_matmul

Work QuantMatmul(const Tensor& x1, const Tensor& x2, const Tensor& x1_scale, const Tensor& x2_scale,
                 const Tensor& y_scale, const Tensor& x2_offset, const Tensor& bias,
                 bool transpose_x1, bool transpose_x2, int64_t group_size, const Tensor& out) {
    TORCH_CHECK(IsInt8(x1) && IsInt8(x2), "x1 of type ", x1.scalar_type(), " with x2 of type ",
                x2.scalar_type(), ": the virtual NPU has int8 x int8");
    TORCH_CHECK(!Given(y_scale) && group_size == 0,
                "y_scale and group_sizes are not available on the virtual NPU");
    const Tensor left = transpose_x1 ? x1.transpose(-1, -2) : x1;
    const Tensor right = transpose_x2 ? x2.transpose(-1, -2) : x2;
    TORCH_CHECK(left.size(-1) == right.size(-2), "x1 has shape ", left.sizes(), ", x2 has ",
                right.sizes());
    const int64_t columns = right.size(-1);
    TORCH_CHECK(!Given(x2_scale) || x2_scale.numel() == 1 || x2_scale.numel() == columns,
                "scale has shape ", x2_scale.sizes(), ", must have 1 or ", columns, " elements");
    TORCH_CHECK(!Given(x1_scale) || x1_scale.numel() == left.size(-2), "pertoken_scale has shape ",
                x1_scale.sizes(), ", must have ", left.size(-2), " elements");
    return [=] {
        Terms terms;
        if (Given(bias)) terms.bias = bias;
        if (out.scalar_type() != at::kInt) terms.scale = x2_scale;
        if (Given(x1_scale)) terms.row_scale = x1_scale.reshape({-1, 1});
        Tensor offset;
        if (IsInt8(out) && x2_scale.scalar_type() == at::kLong) offset = OffsetOf(x2_scale);
        if (Given(x2_offset)) offset = Float(x2_offset);
        Store(out, Product(left, right, terms), offset);
    };
}

Work TransQuantParam(const Tensor& scale, const Tensor& offset, const Tensor& out) {
    return [=] { out.copy_(Encoded(scale, offset).expand_as(out)); };
}

}  // namespace
}  // namespace standin

using standin::Handle;
using standin::HandleList;
using standin::Integers;

// The first generation has no group type: rows, by their cumulative sums, which are numbers.
ACLNN(aclnnGroupedMatmul,
      (HandleList x, HandleList weight, HandleList bias, HandleList scale, HandleList offset,
       HandleList antiquant_scale, HandleList antiquant_offset, Integers ends, int64_t,
       HandleList y),
      GroupedMatmul, x, weight, bias, scale, offset, antiquant_scale, antiquant_offset,
      HandleList{}, Handle{}, ends, int64_t{0}, int64_t{0}, int64_t{0}, y)
// The lists between group_list and split_item are reserved, as the last two.
ACLNN(aclnnGroupedMatmulV4,
      (HandleList x, HandleList weight, HandleList bias, HandleList scale, HandleList offset,
       HandleList antiquant_scale, HandleList antiquant_offset, HandleList per_token_scale,
       Handle group_list, HandleList, HandleList, HandleList, int64_t, int64_t group_type,
       int64_t group_list_type, int64_t act_type, HandleList y, HandleList, HandleList),
      GroupedMatmul, x, weight, bias, scale, offset, antiquant_scale, antiquant_offset,
      per_token_scale, group_list, Integers{}, group_type, group_list_type, act_type, y)
// tuning_config is about speed alone.
ACLNN(aclnnGroupedMatmulV5,
      (HandleList x, HandleList weight, HandleList bias, HandleList scale, HandleList offset,
       HandleList antiquant_scale, HandleList antiquant_offset, HandleList per_token_scale,
       Handle group_list, HandleList, HandleList, HandleList, int64_t, int64_t group_type,
       int64_t group_list_type, int64_t act_type, Integers, HandleList y, HandleList, HandleList),
      GroupedMatmul, x, weight, bias, scale, offset, antiquant_scale, antiquant_offset,
      per_token_scale, group_list, Integers{}, group_type, group_list_type, act_type, y)
ACLNN(aclnnGroupedMatmulWeightNz,
      (HandleList x, HandleList weight, HandleList bias, HandleList scale, HandleList offset,
       HandleList antiquant_scale, HandleList antiquant_offset, HandleList per_token_scale,
       Handle group_list, HandleList, HandleList, HandleList, int64_t, int64_t group_type,
       int64_t group_list_type, int64_t act_type, Integers, int64_t, HandleList y, HandleList,
       HandleList),
      GroupedMatmul, x, weight, bias, scale, offset, antiquant_scale, antiquant_offset,
      per_token_scale, group_list, Integers{}, group_type, group_list_type, act_type, y)

ACLNN(aclnnQuantMatmulV3,
      (Handle x1, Handle x2, Handle scale, Handle offset, Handle bias, bool transpose_x1,
       bool transpose_x2, Handle out),
      QuantMatmul, x1, x2, Handle{}, scale, Handle{}, offset, bias, transpose_x1, transpose_x2,
      int64_t{0}, out)
ACLNN(aclnnQuantMatmulV4,
      (Handle x1, Handle x2, Handle scale, Handle offset, Handle per_token_scale, Handle bias,
       bool transpose_x1, bool transpose_x2, Handle out),
      QuantMatmul, x1, x2, per_token_scale, scale, Handle{}, offset, bias, transpose_x1,
      transpose_x2, int64_t{0}, out)
// x1_offset and y_offset are of other types than int8.
ACLNN(aclnnQuantMatmulV5,
      (Handle x1, Handle x2, Handle x1_scale, Handle x2_scale, Handle y_scale, Handle,
       Handle x2_offset, Handle, Handle bias, bool transpose_x1, bool transpose_x2,
       int64_t group_size, Handle out),
      QuantMatmul, x1, x2, x1_scale, x2_scale, y_scale, x2_offset, bias, transpose_x1, transpose_x2,
      group_size, out)
ACLNN(aclnnQuantMatmulWeightNz,
      (Handle x1, Handle x2, Handle x1_scale, Handle x2_scale, Handle y_scale, Handle,
       Handle x2_offset, Handle, Handle bias, bool transpose_x1, bool transpose_x2,
       int64_t group_size, Handle out),
      QuantMatmul, x1, x2, x1_scale, x2_scale, y_scale, x2_offset, bias, transpose_x1, transpose_x2,
      group_size, out)

ACLNN(aclnnTransQuantParamV2, (Handle scale, Handle offset, Handle out), TransQuantParam, scale,
      offset, out)
