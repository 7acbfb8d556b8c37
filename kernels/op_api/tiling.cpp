// See tiling.h: full mesh, by windows alone or over several servers of A2. The operands are the
// same; kernels, windows and what is in the handle are not.
#include "tiling.h"

#include "device/mesh/abi.h"
#include "plan_builder.h"
#include "served.h"
#include "tuning.h"

namespace ascend_moe {
namespace {

bool OverServers(const Group& group) { return group.form() == Form::kMesh; }

uint64_t DispatchWindow(const Parameters& p, const Group& group) {
    const uint32_t ranks = group.ep_windows().ranks;
    if (!OverServers(group)) return WindowBytes(DispatchBytes(p, ranks), 0);
    return MeshWindowBytes(MeshDispatchBytes(p, group.topology().per_server, ranks), 0);
}
uint64_t CombineWindow(const Parameters& p, const Group& group) {
    if (!OverServers(group)) return WindowBytes(0, CombineBytes(p));
    return MeshWindowBytes(0, MeshCombineBytes(p, group.ep_windows().ranks));
}

// A triple for each row, or the place of each own pair.
int CheckHandle(const char* op, const Tensor& handle, const Parameters& p, const Group& group) {
    const int64_t words = OverServers(group) ? int64_t{p.batch} * p.topk : 3 * int64_t{p.capacity};
    return CheckRoom(op, "assist_info_for_combine", handle, words);
}

}  // namespace

int Tile(const DispatchArguments& call, const std::shared_ptr<const Group>& group, Plan* plan) {
    if (group->form() == Form::kHierarchy) return TileHierarchy(call, group, plan);
    const char* op = DispatchCall::kOperator;
    const Attributes& a = call.attributes;
    const World world = World::Of(a);
    Parameters p = Common(a, world, call.expert_ids, call.x_active_mask, call.x,
                          call.performance_info, *group);
    p.quant = call.quant_mode == 2;
    p.smooth = p.quant && call.scales.present;
    p.cumulative_counts = call.expert_token_nums_type == 0;
    p.capacity = static_cast<uint32_t>(call.expand_x.shape[0]);

    int status = CheckServed(op, world, p, a, call.elastic_info);
    const auto need = [&](const Parameters& sized) { return DispatchWindow(sized, *group); };
    if (status == ACL_SUCCESS) status = CheckWindow(op, group->ep_windows(), p, a, need);
    const Kernel kernel = OverServers(*group) ? Kernel::kMeshDispatch : Kernel::kDispatch;
    const uint32_t blocks = Blocks(kernel, p, a);
    if (status == ACL_SUCCESS) status = CheckTpWindow(op, group->tp_windows(), p, blocks);
    if (status == ACL_SUCCESS) status = CheckHandle(op, call.assist_info_for_combine, p, *group);
    if (status == ACL_SUCCESS && HasScales(p))
        status = CheckRoom(op, "dynamic_scales", call.dynamic_scales, p.capacity);
    if (status == ACL_SUCCESS && p.tp)
        status = CheckRoom(op, "tp_recv_counts", call.tp_recv_counts, 2);
    if (status != ACL_SUCCESS) return status;

    PlanBuilder build(op, group, plan);
    // With TP and expert_scales torch_npu leaves no room for the peer's half of the counts.
    const Operand counts = build.Out("ep_recv_counts", call.ep_recv_counts);
    const uint64_t count_bytes = sizeof(int32_t) * a.ep_world_size *
                                 world.experts_on(a.ep_rank_id, call.elastic_info.present) *
                                 (p.tp ? 2 : 1);
    const bool short_counts = counts.bytes < count_bytes;
    const Operand written = short_counts ? build.Scratch(counts.name, count_bytes) : counts;
    Launch launch{
        kernel,
        blocks,
        {ContextOf(*group), build.In("x", call.x), build.In("expert_ids", call.expert_ids),
         build.In("scales", call.scales), build.In("x_active_mask", call.x_active_mask),
         build.In("elastic_info", call.elastic_info), build.Out("expand_x", call.expand_x),
         build.Out("dynamic_scales", call.dynamic_scales),
         build.Out("assist_info_for_combine", call.assist_info_for_combine),
         build.Out("expert_token_nums", call.expert_token_nums), written,
         build.Out("tp_recv_counts", call.tp_recv_counts),
         build.Out("performance_info", call.performance_info),
         build.Scratch("workspace", group->form() == Form::kMesh ? DispatchWorkspace(p) : 0)},
        {},
        group};
    launch.Pass(p);
    plan->launches.push_back(std::move(launch));
    if (short_counts) build.Copy(written, counts);
    return build.status();
}

int Tile(const CombineArguments& call, const std::shared_ptr<const Group>& group, Plan* plan) {
    if (group->form() == Form::kHierarchy) return TileHierarchy(call, group, plan);
    const char* op = CombineCall::kOperator;
    const Attributes& a = call.attributes;
    const World world = World::Of(a);
    Parameters p = Common(a, world, call.expert_ids, call.x_active_mask, call.expand_x,
                          call.performance_info, *group);
    p.comm_quant = call.comm_quant_mode == 2;
    p.shared_x = call.shared_expert_x.present;
    p.capacity = static_cast<uint32_t>(call.expand_x.shape[0]);

    int status = CheckServed(op, world, p, a, call.elastic_info);
    const auto need = [&](const Parameters& sized) { return CombineWindow(sized, *group); };
    if (status == ACL_SUCCESS) status = CheckWindow(op, group->ep_windows(), p, a, need);
    const Kernel kernel = OverServers(*group) ? Kernel::kMeshCombine : Kernel::kCombine;
    const uint32_t blocks = Blocks(kernel, p, a);
    if (status == ACL_SUCCESS) status = CheckTpWindow(op, group->tp_windows(), p, blocks);
    if (status == ACL_SUCCESS) status = CheckHandle(op, call.assist_info_for_combine, p, *group);
    if (status == ACL_SUCCESS)
        status = CheckRoom(op, "expert_scales", call.expert_scales, int64_t{p.batch} * p.topk);
    if (status != ACL_SUCCESS) return status;

    PlanBuilder build(op, group, plan);
    Launch launch{kernel,
                  blocks,
                  {ContextOf(*group), build.In("expand_x", call.expand_x),
                   build.In("expert_ids", call.expert_ids),
                   build.In("assist_info_for_combine", call.assist_info_for_combine),
                   build.In("ep_send_counts", call.ep_send_counts),
                   build.In("expert_scales", call.expert_scales),
                   build.In("tp_send_counts", call.tp_send_counts),
                   build.In("x_active_mask", call.x_active_mask),
                   build.In("shared_expert_x", call.shared_expert_x),
                   build.In("elastic_info", call.elastic_info), build.In("ori_x", call.ori_x),
                   build.In("const_expert_alpha_1", call.const_expert_alpha_1),
                   build.In("const_expert_alpha_2", call.const_expert_alpha_2),
                   build.In("const_expert_v", call.const_expert_v), build.Out("x", call.out),
                   build.Out("performance_info", call.performance_info),
                   build.Scratch("workspace", CombineWorkspace(p))},
                  {},
                  group};
    launch.Pass(p);
    plan->launches.push_back(std::move(launch));
    return build.status();
}

}  // namespace ascend_moe
