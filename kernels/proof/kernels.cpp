// The device kernels inside the simulator, and the sizes that follow from their parameters.
#include "device/moe_kernels.cpp"
#include "register.h"

HOSTSIM_KERNEL(ascend_moe_cores);
HOSTSIM_KERNEL(ascend_moe_row);
HOSTSIM_KERNEL(ascend_moe_measure);
HOSTSIM_KERNEL(ascend_moe_ping_pong);
HOSTSIM_KERNEL(ascend_moe_meet);
HOSTSIM_KERNEL(ascend_moe_open);
HOSTSIM_KERNEL(ascend_moe_tell);
HOSTSIM_KERNEL(ascend_moe_pack);
HOSTSIM_KERNEL(ascend_moe_dispatch);
HOSTSIM_KERNEL(ascend_moe_combine);
HOSTSIM_KERNEL(ascend_moe_hierarchy_open);
HOSTSIM_KERNEL(ascend_moe_hierarchy_dispatch);
HOSTSIM_KERNEL(ascend_moe_hierarchy_combine);
HOSTSIM_KERNEL(ascend_moe_mesh_open);
HOSTSIM_KERNEL(ascend_moe_mesh_dispatch);
HOSTSIM_KERNEL(ascend_moe_mesh_combine);

extern "C" {

uint32_t moe_parameter_bytes() { return sizeof(ascend_moe::Parameters); }
uint32_t moe_context_bytes() { return sizeof(ascend_moe::Context); }
uint64_t moe_dispatch_bytes(const ascend_moe::Parameters* p, uint32_t ranks) {
    return ascend_moe::DispatchBytes(*p, ranks);
}
uint64_t moe_counts_bytes(const ascend_moe::Parameters* p, uint32_t ranks) {
    return ascend_moe::CountsBytes(*p, ranks);
}
uint64_t moe_combine_bytes(const ascend_moe::Parameters* p) { return ascend_moe::CombineBytes(*p); }
uint64_t moe_window_bytes(uint64_t dispatch_bytes, uint64_t combine_bytes) {
    return ascend_moe::WindowBytes(dispatch_bytes, combine_bytes);
}
uint64_t moe_tp_window_bytes(uint32_t hidden, uint32_t cores) {
    return ascend_moe::TpWindowBytes(hidden, cores);
}
uint64_t moe_dispatch_workspace(const ascend_moe::Parameters* p) {
    return ascend_moe::DispatchWorkspace(*p);
}
uint64_t moe_combine_workspace(const ascend_moe::Parameters* p) {
    return ascend_moe::CombineWorkspace(*p);
}

// Of rank 0 of a group in `servers` servers: the sizes are those of all ranks.
static ascend_moe::Topology TopologyOf(uint32_t servers, uint32_t per_server) {
    return ascend_moe::Topology{servers, per_server, 0, 0};
}
uint32_t moe_hierarchy_context_bytes() { return sizeof(ascend_moe::HierarchyContext); }
uint64_t moe_hierarchy_dispatch_bytes(const ascend_moe::Parameters* p, uint32_t servers,
                                      uint32_t per_server) {
    return ascend_moe::HierarchyDispatchBytes(*p, TopologyOf(servers, per_server));
}
uint64_t moe_hierarchy_combine_bytes(const ascend_moe::Parameters* p, uint32_t servers,
                                     uint32_t per_server) {
    return ascend_moe::HierarchyCombineBytes(*p, TopologyOf(servers, per_server));
}
uint64_t moe_hierarchy_output_bytes(const ascend_moe::Parameters* p, uint32_t servers,
                                    uint32_t per_server) {
    return ascend_moe::OutputIndexOffset(*p, TopologyOf(servers, per_server), servers);
}
uint64_t moe_hierarchy_window_bytes(uint64_t dispatch_bytes, uint64_t combine_bytes) {
    return ascend_moe::HierarchyWindowBytes(dispatch_bytes, combine_bytes);
}
uint64_t moe_hierarchy_workspace(const ascend_moe::Parameters* p) {
    return ascend_moe::HierarchyDispatchWorkspace(*p);
}
uint32_t moe_hierarchy_handle_words(const ascend_moe::Parameters* p, uint32_t servers,
                                    uint32_t per_server) {
    return ascend_moe::HandleWords(*p, TopologyOf(servers, per_server), servers * per_server);
}

uint64_t moe_mesh_dispatch_bytes(const ascend_moe::Parameters* p, uint32_t servers,
                                 uint32_t per_server) {
    return ascend_moe::MeshDispatchBytes(*p, per_server, servers * per_server);
}
uint64_t moe_mesh_combine_bytes(const ascend_moe::Parameters* p, uint32_t servers,
                                uint32_t per_server) {
    return ascend_moe::MeshCombineBytes(*p, servers * per_server);
}
uint64_t moe_mesh_window_bytes(uint64_t dispatch_bytes, uint64_t combine_bytes) {
    return ascend_moe::MeshWindowBytes(dispatch_bytes, combine_bytes);
}
}
