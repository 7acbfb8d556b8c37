// See check.h.
#include "check.h"

#include <initializer_list>

#include "../report.h"

namespace ascend_moe {
namespace {

// Collects the first failure; later checks are skipped.
class Checker {
 public:
    explicit Checker(const char* op) : op_(op) {}

    int status() const { return status_; }
    bool ok() const { return status_ == ACL_SUCCESS; }

    template <typename... Values>
    void Require(bool condition, int code, const char* format, Values... values) {
        if (!ok() || condition) return;
        const std::string full = std::string("%s: ") + format;
        // The formats are literals of this file; the compiler checks them at Fail for the common
        // part only.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
        status_ = Fail(code, full.c_str(), op_, values...);
#pragma GCC diagnostic pop
    }

    void Present(const char* name, const Tensor& tensor) {
        Require(tensor.present, kNullPointer, "%s must not be None", name);
    }

    void Type(const char* name, const Tensor& tensor, std::initializer_list<aclDataType> allowed) {
        if (!tensor.present) return;
        bool found = false;
        for (aclDataType type : allowed) found = found || tensor.type == type;
        Require(found, kBadParameter, "%s has data type %d, which is not supported", name,
                tensor.type);
    }

    void Shape(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
        if (!tensor.present) return;
        Tensor expected;
        expected.present = true;
        expected.shape = shape;
        Require(tensor.shape == shape, kInnerError, "%s has shape %s, must be %s", name,
                tensor.Text().c_str(), expected.Text().c_str());
    }

    void AtLeast(const char* name, const Tensor& tensor, int64_t elements) {
        if (!tensor.present) return;
        Require(tensor.elements() >= elements, kInnerError,
                "%s has shape %s, needs at least %ld elements", name, tensor.Text().c_str(),
                elements);
    }

    void Range(const char* name, int64_t value, int64_t low, int64_t high) {
        Require(value >= low && value <= high, kInnerError, "%s=%ld, must be in [%ld, %ld]", name,
                value, low, high);
    }

 private:
    const char* const op_;
    int status_ = ACL_SUCCESS;
};

void CheckServers(Checker& check, const Attributes& a, const World& world) {
    if (!world.hierarchy()) return;
    check.Require(a.ep_world_size % world.path->ranks_per_server == 0, kInnerError,
                  "ep_world_size=%ld, hierarchy needs whole servers of %ld ranks", a.ep_world_size,
                  world.path->ranks_per_server);
    check.Require(a.shared_expert_rank_num == 0, kInnerError,
                  "shared_expert_rank_num=%ld, hierarchy has no shared-expert ranks",
                  a.shared_expert_rank_num);
    check.Require(a.zero_expert_num + a.copy_expert_num + a.const_expert_num == 0, kInnerError,
                  "hierarchy has no zero, copy or const experts");
    check.Require(a.tp_world_size != 2, kInnerError, "tp_world_size=2, hierarchy has no TP");
}

void CheckAttributes(Checker& check, const Attributes& a) {
    check.Range("ep_world_size", a.ep_world_size, 1, INT32_MAX);
    check.Range("ep_rank_id", a.ep_rank_id, 0, a.ep_world_size - 1);
    check.Range("shared_expert_rank_num", a.shared_expert_rank_num, 0, a.ep_world_size - 1);
    if (a.shared_expert_rank_num > 0) {
        check.Require(
            a.shared_expert_num > 0 && a.shared_expert_rank_num % a.shared_expert_num == 0,
            kInnerError, "shared_expert_rank_num=%ld must be a multiple of shared_expert_num=%ld",
            a.shared_expert_rank_num, a.shared_expert_num);
    } else {
        check.Require(a.shared_expert_num == 0 || a.shared_expert_num == 1, kInnerError,
                      "shared_expert_num=%ld needs shared ranks, shared_expert_rank_num is 0",
                      a.shared_expert_num);
    }
    check.Range("moe_expert_num", a.moe_expert_num, 1, INT32_MAX);
    check.Require(a.moe_expert_num % (a.ep_world_size - a.shared_expert_rank_num) == 0, kInnerError,
                  "moe_expert_num=%ld must be a multiple of the %ld ranks that hold MoE experts",
                  a.moe_expert_num, a.ep_world_size - a.shared_expert_rank_num);
    check.Range("tp_world_size", a.tp_world_size, 0, 2);
    check.Range("tp_rank_id", a.tp_rank_id, 0, a.tp_world_size == 2 ? 1 : 0);
    check.Require(a.expert_shard_type == 0, kInnerError, "expert_shard_type=%ld, must be 0",
                  a.expert_shard_type);
    for (int64_t count : {a.zero_expert_num, a.copy_expert_num, a.const_expert_num}) {
        check.Range("zero_expert_num, copy_expert_num, const_expert_num", count, 0, INT32_MAX);
    }
}

// Shapes of the tokens: batch, hidden, top-k. global_bs and the mask refer to them.
void CheckBatch(Checker& check, const Attributes& a, const Tensor& ids, const Tensor& mask) {
    check.Present("expert_ids", ids);
    check.Type("expert_ids", ids, {ACL_INT32});
    check.Require(ids.shape.size() == 2, kInnerError, "expert_ids has shape %s, must be (BS, K)",
                  ids.Text().c_str());
    if (!check.ok()) return;
    const int64_t batch = ids.shape[0];
    const int64_t topk = ids.shape[1];
    check.Require(topk > 0, kInnerError, "expert_ids has shape %s: K must not be 0",
                  ids.Text().c_str());
    check.Require(
        a.global_bs == 0 ||
            (a.global_bs % a.ep_world_size == 0 && a.global_bs >= batch * a.ep_world_size),
        kInnerError,
        "global_bs=%ld must be 0 or max_bs * ep_world_size, with BS=%ld and ep_world_size=%ld",
        a.global_bs, batch, a.ep_world_size);
    check.Type("x_active_mask", mask, {ACL_BOOL});
    if (mask.present && mask.shape.size() == 2) {
        check.Shape("x_active_mask", mask, {batch, topk});
    } else {
        check.Shape("x_active_mask", mask, {batch});
    }
}

// Who takes it at all is for the library to say. Its contents are on the device, for the kernel.
void CheckElastic(Checker& check, const Attributes& a, const World& world, const Tensor& info) {
    check.Require(!info.present || !world.hierarchy(), kInnerError,
                  "elastic_info is given, which hierarchy does not have");
    check.Require(!info.present || a.tp_world_size != 2, kInnerError,
                  "elastic_info is given, which TP does not have");
    constexpr int64_t kHeadWords = 4, kTables = 2;
    check.Type("elastic_info", info, {ACL_INT32});
    check.Shape("elastic_info", info, {kHeadWords + kTables * a.ep_world_size});
}

}  // namespace

int CheckAttributes(const char* op, const Attributes& attributes) {
    Checker check(op);
    CheckAttributes(check, attributes);
    return check.status();
}

int CheckGroup(const char* op, const char* parameter, const std::string& name, int64_t size,
               int64_t rank, const Membership* membership) {
    Checker check(op);
    check.Require(membership != nullptr, kBadParameter,
                  "%s '%s' is not the name of a communicator of this process", parameter,
                  name.c_str());
    if (!check.ok()) return check.status();
    check.Require(membership->ranks == size && membership->rank == rank, kBadParameter,
                  "%s is a group of %u ranks in which this is rank %u, the call says %ld and %ld",
                  parameter, membership->ranks, membership->rank, size, rank);
    return check.status();
}

int Check(const DispatchArguments& call, const World& world) {
    Checker check(DispatchCall::kOperator);
    const Attributes& a = call.attributes;
    check.Present("x", call.x);
    check.Type("x", call.x, {ACL_BF16, ACL_FLOAT16, ACL_INT32});
    check.Require(call.x.shape.size() == 2, kInnerError, "x has shape %s, must be (BS, H)",
                  call.x.Text().c_str());
    CheckServers(check, a, world);
    if (check.ok()) CheckBatch(check, a, call.expert_ids, call.x_active_mask);
    if (!check.ok()) return check.status();
    const int64_t batch = call.x.shape[0];
    const int64_t hidden = call.x.shape[1];
    const int64_t topk = call.expert_ids.shape[1];
    check.Shape("expert_ids", call.expert_ids, {batch, topk});
    check.Require(call.quant_mode == 0 || call.quant_mode == 2, kInnerError,
                  "quant_mode=%ld, must be 0 or 2", call.quant_mode);
    check.Range("expert_token_nums_type", call.expert_token_nums_type, 0, 1);
    const bool packed = call.x.type == ACL_INT32;
    check.Require(!packed || (world.a2 && !world.hierarchy() && call.quant_mode == 0), kInnerError,
                  "int32 x (packed int4) needs A2, full mesh and quant_mode 0");
    check.Require(packed == call.scales.present || call.quant_mode == 2, kInnerError,
                  "scales must be None when quant_mode is 0, and a scale per token with int32 x");
    check.Type("scales", call.scales, {ACL_FLOAT});
    if (packed) {
        check.Shape("scales", call.scales, {batch});
    } else {
        check.Shape("scales", call.scales, {world.shared_experts + world.moe_experts, hidden});
    }
    check.Type("expert_scales", call.expert_scales, {ACL_FLOAT});
    check.Shape("expert_scales", call.expert_scales, {batch, topk});
    check.Require(call.expert_scales.present || !world.hierarchy(), kNullPointer,
                  "expert_scales must not be None in hierarchy");
    check.Require(!call.scales.present || !world.hierarchy(), kInnerError,
                  "scales must be None in hierarchy");
    CheckElastic(check, a, world, call.elastic_info);
    check.Type("performance_info", call.performance_info, {ACL_INT64});
    check.Shape("performance_info", call.performance_info, {a.ep_world_size});

    const int64_t experts = world.experts_on(a.ep_rank_id, call.elastic_info.present);
    check.Type("expand_x", call.expand_x, {call.quant_mode == 2 ? ACL_INT8 : call.x.type});
    check.Require(call.expand_x.shape.size() == 2 && call.expand_x.shape[1] == hidden, kInnerError,
                  "expand_x has shape %s, must be (A, %ld)", call.expand_x.Text().c_str(), hidden);
    check.AtLeast("expert_token_nums", call.expert_token_nums, experts);
    // Hierarchy: the handle of each row follows the counts.
    const int64_t tables =
        world.hierarchy() && call.expand_x.shape.size() == 2 ? 2 * call.expand_x.shape[0] : 0;
    check.AtLeast("ep_recv_counts", call.ep_recv_counts, a.ep_world_size * experts + tables);
    check.AtLeast("assist_info_for_combine", call.assist_info_for_combine,
                  world.ordinals() ? batch * topk : 0);
    return check.status();
}

int Check(const CombineArguments& call, const World& world) {
    Checker check(CombineCall::kOperator);
    const Attributes& a = call.attributes;
    check.Present("expand_x", call.expand_x);
    check.Type("expand_x", call.expand_x, {ACL_BF16, ACL_FLOAT16});
    check.Require(call.expand_x.shape.size() == 2, kInnerError,
                  "expand_x has shape %s, must be (A, H)", call.expand_x.Text().c_str());
    CheckServers(check, a, world);
    if (check.ok()) CheckBatch(check, a, call.expert_ids, call.x_active_mask);
    if (!check.ok()) return check.status();
    const int64_t batch = call.expert_ids.shape[0];
    const int64_t topk = call.expert_ids.shape[1];
    const int64_t hidden = call.expand_x.shape[1];
    check.Present("assist_info_for_combine", call.assist_info_for_combine);
    check.Type("assist_info_for_combine", call.assist_info_for_combine, {ACL_INT32});
    check.AtLeast("assist_info_for_combine", call.assist_info_for_combine,
                  world.ordinals() ? batch * topk : 0);
    check.Require(call.expand_scales.present || !world.hierarchy(), kNullPointer,
                  "expand_scales must not be None in hierarchy");
    check.Present("ep_send_counts", call.ep_send_counts);
    check.Type("ep_send_counts", call.ep_send_counts, {ACL_INT32});
    check.AtLeast("ep_send_counts", call.ep_send_counts,
                  a.ep_world_size * world.experts_on(a.ep_rank_id, call.elastic_info.present));
    check.Present("expert_scales", call.expert_scales);
    check.Type("expert_scales", call.expert_scales, {ACL_FLOAT});
    if (call.expert_scales.elements() > 0 || batch == 0)
        check.Shape("expert_scales", call.expert_scales, {batch, topk});
    check.Require(call.comm_quant_mode == 0 || call.comm_quant_mode == 2, kInnerError,
                  "comm_quant_mode=%ld, must be 0 or 2", call.comm_quant_mode);
    check.Require(a.tp_world_size != 2 || call.tp_send_counts.present, kInnerError,
                  "tp_send_counts must not be None when tp_world_size is 2");
    if (a.tp_world_size == 2) check.AtLeast("tp_send_counts", call.tp_send_counts, 2);
    check.Type("shared_expert_x", call.shared_expert_x, {call.expand_x.type});
    if (call.shared_expert_x.present) {
        check.Require(call.shared_expert_x.elements() == batch * hidden, kInnerError,
                      "shared_expert_x has shape %s, must hold BS * H = %ld elements",
                      call.shared_expert_x.Text().c_str(), batch * hidden);
    }
    CheckElastic(check, a, world, call.elastic_info);
    check.Require(call.ori_x.present || a.copy_expert_num + a.const_expert_num == 0, kInnerError,
                  "ori_x must not be None with copy or const experts");
    check.Type("ori_x", call.ori_x, {call.expand_x.type});
    check.Shape("ori_x", call.ori_x, {batch, hidden});
    const std::pair<const char*, const Tensor*> constants[] = {
        {"const_expert_alpha_1", &call.const_expert_alpha_1},
        {"const_expert_alpha_2", &call.const_expert_alpha_2},
        {"const_expert_v", &call.const_expert_v}};
    for (const auto& [name, tensor] : constants) {
        check.Require(tensor->present || a.const_expert_num == 0, kInnerError,
                      "%s must not be None with const experts", name);
        check.Type(name, *tensor, {call.expand_x.type});
        if (a.const_expert_num > 0) check.Shape(name, *tensor, {a.const_expert_num, hidden});
    }
    check.Type("performance_info", call.performance_info, {ACL_INT64});
    check.Shape("performance_info", call.performance_info, {a.ep_world_size});
    check.Type("x", call.out, {call.expand_x.type});
    check.Shape("x", call.out, {batch, hidden});
    return check.status();
}

}  // namespace ascend_moe
