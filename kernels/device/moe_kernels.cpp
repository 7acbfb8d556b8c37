// Entry points. Vector cores only, SyncAll, batch schedule mode, 1..48 blocks: docs/kernels.md
// section 9.
#include "combine.h"
#include "dispatch.h"
#include "first_steps.h"
#include "hierarchy/combine.h"
#include "hierarchy/dispatch.h"
#include "hierarchy/open.h"
#include "measure.h"
#include "meet.h"
#include "mesh/combine.h"
#include "mesh/dispatch.h"
#include "mesh/open.h"
#include "open.h"
#include "pack.h"
#include "ping_pong.h"
#include "tell.h"

namespace {

__aicore__ inline uint64_t Address(GM_ADDR at) { return reinterpret_cast<uint64_t>(at); }

}  // namespace

extern "C" MOE_KERNEL void ascend_moe_cores(GM_ADDR report, ascend_moe::CoresProbe probe) {
    AscendC::TPipe pipe;
    ascend_moe::CoresKernel().Run(&pipe, report, probe);
}

extern "C" MOE_KERNEL void ascend_moe_row(GM_ADDR context, GM_ADDR row, GM_ADDR received,
                                          ascend_moe::RowProbe probe) {
    AscendC::TPipe pipe;
    ascend_moe::RowKernel().Run(&pipe, context, row, received, probe);
}

extern "C" MOE_KERNEL void ascend_moe_measure(GM_ADDR context, GM_ADDR report,
                                              ascend_moe::Measuring wanted) {
    AscendC::TPipe pipe;
    ascend_moe::MeasureKernel().Run(&pipe, context, report, wanted);
}

extern "C" MOE_KERNEL void ascend_moe_ping_pong(GM_ADDR context, GM_ADDR tables, GM_ADDR start,
                                                GM_ADDR received, ascend_moe::PingPong probe) {
    AscendC::TPipe pipe;
    ascend_moe::PingPongKernel().Run(&pipe, context, tables, start, received, probe);
}

extern "C" MOE_KERNEL void ascend_moe_meet(GM_ADDR context, ascend_moe::Meeting meeting) {
    AscendC::TPipe pipe;
    ascend_moe::MeetKernel().Run(&pipe, context, meeting);
}

extern "C" MOE_KERNEL void ascend_moe_open(GM_ADDR context, ascend_moe::Meeting meeting) {
    AscendC::TPipe pipe;
    ascend_moe::OpenKernel().Run(&pipe, context, meeting);
}

extern "C" MOE_KERNEL void ascend_moe_tell(GM_ADDR context, ascend_moe::Telling telling) {
    AscendC::TPipe pipe;
    ascend_moe::TellKernel().Run(&pipe, context, telling);
}

extern "C" MOE_KERNEL void ascend_moe_pack(GM_ADDR source, GM_ADDR target,
                                           ascend_moe::Packing packing) {
    AscendC::TPipe pipe;
    ascend_moe::PackKernel().Run(&pipe, source, target, packing);
}

// In full mesh, by windows alone or over several servers of A2, an operator has the same operands;
// what A2 does not have is null there.
#define MOE_DISPATCH_ENTRY(name, Kernel)                                                     \
    extern "C" MOE_KERNEL void name(                                                         \
        GM_ADDR context, GM_ADDR x, GM_ADDR expert_ids, GM_ADDR scales, GM_ADDR mask,        \
        GM_ADDR elastic_info, GM_ADDR expand_x, GM_ADDR dynamic_scales, GM_ADDR assist_info, \
        GM_ADDR expert_token_nums, GM_ADDR ep_recv_counts, GM_ADDR tp_recv_counts,           \
        GM_ADDR performance_info, GM_ADDR workspace, ascend_moe::Parameters parameters) {    \
        AscendC::TPipe pipe;                                                                 \
        ascend_moe::DispatchTensors tensors{Address(x),                                      \
                                            Address(expert_ids),                             \
                                            Address(scales),                                 \
                                            Address(mask),                                   \
                                            Address(elastic_info),                           \
                                            Address(expand_x),                               \
                                            Address(dynamic_scales),                         \
                                            Address(assist_info),                            \
                                            Address(expert_token_nums),                      \
                                            Address(ep_recv_counts),                         \
                                            Address(tp_recv_counts),                         \
                                            Address(performance_info),                       \
                                            Address(workspace)};                             \
        ascend_moe::Kernel().Run(&pipe, context, tensors, parameters);                       \
    }

#define MOE_COMBINE_ENTRY(name, Kernel)                                                            \
    extern "C" MOE_KERNEL void name(GM_ADDR context, GM_ADDR expand_x, GM_ADDR expert_ids,         \
                                    GM_ADDR assist_info, GM_ADDR ep_send_counts,                   \
                                    GM_ADDR expert_scales, GM_ADDR tp_send_counts, GM_ADDR mask,   \
                                    GM_ADDR shared_expert_x, GM_ADDR elastic_info, GM_ADDR ori_x,  \
                                    GM_ADDR const_expert_alpha_1, GM_ADDR const_expert_alpha_2,    \
                                    GM_ADDR const_expert_v, GM_ADDR out, GM_ADDR performance_info, \
                                    GM_ADDR workspace, ascend_moe::Parameters parameters) {        \
        AscendC::TPipe pipe;                                                                       \
        ascend_moe::CombineTensors tensors{Address(expand_x),                                      \
                                           Address(expert_ids),                                    \
                                           Address(assist_info),                                   \
                                           Address(ep_send_counts),                                \
                                           Address(expert_scales),                                 \
                                           Address(tp_send_counts),                                \
                                           Address(mask),                                          \
                                           Address(shared_expert_x),                               \
                                           Address(elastic_info),                                  \
                                           Address(ori_x),                                         \
                                           Address(const_expert_alpha_1),                          \
                                           Address(const_expert_alpha_2),                          \
                                           Address(const_expert_v),                                \
                                           Address(out),                                           \
                                           Address(performance_info),                              \
                                           Address(workspace)};                                    \
        ascend_moe::Kernel().Run(&pipe, context, tensors, parameters);                             \
    }

MOE_DISPATCH_ENTRY(ascend_moe_dispatch, DispatchKernel)
MOE_COMBINE_ENTRY(ascend_moe_combine, CombineKernel)
MOE_DISPATCH_ENTRY(ascend_moe_mesh_dispatch, MeshDispatchKernel)
MOE_COMBINE_ENTRY(ascend_moe_mesh_combine, MeshCombineKernel)

extern "C" MOE_KERNEL void ascend_moe_hierarchy_open(GM_ADDR context, ascend_moe::Meeting meeting) {
    AscendC::TPipe pipe;
    ascend_moe::HierarchyOpenKernel().Run(&pipe, context, meeting);
}

extern "C" MOE_KERNEL void ascend_moe_hierarchy_dispatch(
    GM_ADDR context, GM_ADDR x, GM_ADDR expert_ids, GM_ADDR expert_scales, GM_ADDR mask,
    GM_ADDR expand_x, GM_ADDR dynamic_scales, GM_ADDR expert_token_nums, GM_ADDR ep_recv_counts,
    GM_ADDR expand_scales, GM_ADDR performance_info, GM_ADDR workspace,
    ascend_moe::Parameters parameters) {
    AscendC::TPipe pipe;
    ascend_moe::HierarchyDispatchTensors tensors{Address(x),
                                                 Address(expert_ids),
                                                 Address(expert_scales),
                                                 Address(mask),
                                                 Address(expand_x),
                                                 Address(dynamic_scales),
                                                 Address(expert_token_nums),
                                                 Address(ep_recv_counts),
                                                 Address(expand_scales),
                                                 Address(performance_info),
                                                 Address(workspace)};
    ascend_moe::HierarchyDispatchKernel().Run(&pipe, context, tensors, parameters);
}

extern "C" MOE_KERNEL void ascend_moe_hierarchy_combine(GM_ADDR context, GM_ADDR expand_x,
                                                        GM_ADDR ep_send_counts,
                                                        GM_ADDR expand_scales, GM_ADDR mask,
                                                        GM_ADDR out, GM_ADDR performance_info,
                                                        ascend_moe::Parameters parameters) {
    AscendC::TPipe pipe;
    ascend_moe::HierarchyCombineTensors tensors{Address(expand_x),      Address(ep_send_counts),
                                                Address(expand_scales), Address(mask),
                                                Address(out),           Address(performance_info)};
    ascend_moe::HierarchyCombineKernel().Run(&pipe, context, tensors, parameters);
}

extern "C" MOE_KERNEL void ascend_moe_mesh_open(GM_ADDR context, ascend_moe::Meeting meeting) {
    AscendC::TPipe pipe;
    ascend_moe::MeshOpenKernel().Run(&pipe, context, meeting);
}
