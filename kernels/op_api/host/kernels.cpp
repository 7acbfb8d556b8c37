// The device kernels, compiled for hostsim.
#include "device/moe_kernels.cpp"
#include "register.h"

HOSTSIM_KERNEL(ascend_moe_cores);
HOSTSIM_KERNEL(ascend_moe_row);
HOSTSIM_KERNEL(ascend_moe_ping_pong);
HOSTSIM_KERNEL(ascend_moe_measure);
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
