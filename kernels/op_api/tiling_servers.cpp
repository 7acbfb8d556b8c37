// See tiling.h: hierarchy, in several servers. The handle lies behind the counts, so
// assist_info_for_combine is neither written nor read.
#include "plan_builder.h"
#include "served.h"
#include "tuning.h"

namespace ascend_moe {
namespace {

// Whether the path looks at a mask for more than its shape.
Parameters WithMask(Parameters p, const World& world) {
    if (world.path->mask_ignored) p.mask = Mask::kNone;
    return p;
}

int CheckHandle(const char* op, const char* name, const Tensor& counts, const Parameters& p,
                const Group& group) {
    const uint32_t ranks = group.ep_windows().ranks;
    return CheckRoom(op, name, counts, HandleWords(p, group.topology(), ranks));
}

}  // namespace

int TileHierarchy(const DispatchArguments& call, const std::shared_ptr<const Group>& group,
                  Plan* plan) {
    const char* op = DispatchCall::kOperator;
    const Attributes& a = call.attributes;
    const World world = World::Of(a);
    Parameters p = WithMask(Common(a, world, call.expert_ids, call.x_active_mask, call.x,
                                   call.performance_info, *group),
                            world);
    p.quant = call.quant_mode == 2;
    p.cumulative_counts = call.expert_token_nums_type == 0;
    p.capacity = static_cast<uint32_t>(call.expand_x.shape[0]);

    int status = CheckServed(op, world, p, a, call.elastic_info);
    const auto need = [&](const Parameters& sized) {
        return HierarchyWindowBytes(HierarchyDispatchBytes(sized, group->topology()), 0);
    };
    if (status == ACL_SUCCESS) status = CheckWindow(op, group->ep_windows(), p, a, need);
    if (status == ACL_SUCCESS)
        status = CheckHandle(op, "ep_recv_counts", call.ep_recv_counts, p, *group);
    if (status == ACL_SUCCESS)
        status = CheckRoom(op, "expand_scales", call.expand_scales, p.capacity);
    if (status == ACL_SUCCESS && p.quant)
        status = CheckRoom(op, "dynamic_scales", call.dynamic_scales, p.capacity);
    if (status != ACL_SUCCESS) return status;

    PlanBuilder build(op, group, plan);
    Launch launch{
        Kernel::kHierarchyDispatch,
        Blocks(Kernel::kHierarchyDispatch, p, a),
        {ContextOf(*group), build.In("x", call.x), build.In("expert_ids", call.expert_ids),
         build.In("expert_scales", call.expert_scales),
         build.In("x_active_mask", call.x_active_mask), build.Out("expand_x", call.expand_x),
         build.Out("dynamic_scales", call.dynamic_scales),
         build.Out("expert_token_nums", call.expert_token_nums),
         build.Out("ep_recv_counts", call.ep_recv_counts),
         build.Out("expand_scales", call.expand_scales),
         build.Out("performance_info", call.performance_info),
         build.Scratch("workspace", HierarchyDispatchWorkspace(p))},
        {},
        group};
    launch.Pass(p);
    plan->launches.push_back(std::move(launch));
    return build.status();
}

int TileHierarchy(const CombineArguments& call, const std::shared_ptr<const Group>& group,
                  Plan* plan) {
    const char* op = CombineCall::kOperator;
    const Attributes& a = call.attributes;
    const World world = World::Of(a);
    Parameters p = WithMask(Common(a, world, call.expert_ids, call.x_active_mask, call.expand_x,
                                   call.performance_info, *group),
                            world);
    p.comm_quant = call.comm_quant_mode == 2;
    p.shared_x = call.shared_expert_x.present;
    p.capacity = static_cast<uint32_t>(call.expand_x.shape[0]);

    int status = CheckServed(op, world, p, a, call.elastic_info);
    const auto need = [&](const Parameters& sized) {
        return HierarchyWindowBytes(0, HierarchyCombineBytes(sized, group->topology()));
    };
    if (status == ACL_SUCCESS) status = CheckWindow(op, group->ep_windows(), p, a, need);
    if (status == ACL_SUCCESS)
        status = CheckHandle(op, "ep_send_counts", call.ep_send_counts, p, *group);
    if (status == ACL_SUCCESS)
        status = CheckRoom(op, "expand_scales", call.expand_scales, p.capacity);
    if (status != ACL_SUCCESS) return status;

    PlanBuilder build(op, group, plan);
    Launch launch{Kernel::kHierarchyCombine,
                  Blocks(Kernel::kHierarchyCombine, p, a),
                  {ContextOf(*group), build.In("expand_x", call.expand_x),
                   build.In("ep_send_counts", call.ep_send_counts),
                   build.In("expand_scales", call.expand_scales),
                   build.In("x_active_mask", call.x_active_mask), build.Out("x", call.out),
                   build.Out("performance_info", call.performance_info)},
                  {},
                  group};
    launch.Pass(p);
    plan->launches.push_back(std::move(launch));
    return build.status();
}

}  // namespace ascend_moe
