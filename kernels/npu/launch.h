// Starting the kernels on a stream: the only host code that bisheng has to compile.
//
// A launch is asynchronous. `at` are device addresses in the order of the entry points in
// device/moe_kernels.cpp, null for a tensor that is absent; the struct behind them is passed by
// value. Both are read before return.
#pragma once

#include <cstdint>

extern "C" {
// report, CoresProbe
void ascend_moe_launch_cores(uint32_t blocks, void* stream, uint8_t* const* at, const void* value);
// context, row, received, RowProbe
void ascend_moe_launch_row(uint32_t blocks, void* stream, uint8_t* const* at, const void* value);
// context, queue tables, start, received, PingPong
void ascend_moe_launch_ping_pong(uint32_t blocks, void* stream, uint8_t* const* at,
                                 const void* value);
// context, report, Measuring
void ascend_moe_launch_measure(uint32_t blocks, void* stream, uint8_t* const* at,
                               const void* value);
// context, Meeting
void ascend_moe_launch_meet(uint32_t blocks, void* stream, uint8_t* const* at, const void* value);
void ascend_moe_launch_open(uint32_t blocks, void* stream, uint8_t* const* at, const void* value);
// context, Telling
void ascend_moe_launch_tell(uint32_t blocks, void* stream, uint8_t* const* at, const void* value);
// source, target, Packing
void ascend_moe_launch_pack(uint32_t blocks, void* stream, uint8_t* const* at, const void* value);
// context, x, expert_ids, scales, mask, elastic_info, expand_x, dynamic_scales, assist_info,
// expert_token_nums, ep_recv_counts, tp_recv_counts, performance_info, workspace, Parameters
void ascend_moe_launch_dispatch(uint32_t blocks, void* stream, uint8_t* const* at,
                                const void* value);
// context, expand_x, expert_ids, assist_info, ep_send_counts, expert_scales, tp_send_counts, mask,
// shared_expert_x, elastic_info, ori_x, const_expert_alpha_1, const_expert_alpha_2,
// const_expert_v, out, performance_info, workspace, Parameters
void ascend_moe_launch_combine(uint32_t blocks, void* stream, uint8_t* const* at,
                               const void* value);
// In several servers: context, Meeting
void ascend_moe_launch_hierarchy_open(uint32_t blocks, void* stream, uint8_t* const* at,
                                      const void* value);
// context, x, expert_ids, expert_scales, mask, expand_x, dynamic_scales, expert_token_nums,
// ep_recv_counts, expand_scales, performance_info, workspace, Parameters
void ascend_moe_launch_hierarchy_dispatch(uint32_t blocks, void* stream, uint8_t* const* at,
                                          const void* value);
// context, expand_x, ep_send_counts, expand_scales, mask, out, performance_info, Parameters
void ascend_moe_launch_hierarchy_combine(uint32_t blocks, void* stream, uint8_t* const* at,
                                         const void* value);
// Full mesh in several servers: as in one
void ascend_moe_launch_mesh_open(uint32_t blocks, void* stream, uint8_t* const* at,
                                 const void* value);
void ascend_moe_launch_mesh_dispatch(uint32_t blocks, void* stream, uint8_t* const* at,
                                     const void* value);
void ascend_moe_launch_mesh_combine(uint32_t blocks, void* stream, uint8_t* const* at,
                                    const void* value);
}
