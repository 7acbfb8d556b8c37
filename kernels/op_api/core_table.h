// On how many cores a launch is fastest in the timed simulator. Made by scripts/generate from
// cores/*.json, which scripts/bench kernels --search makes; see tuning.h. Host code includes
// <cstdint> before.
#pragma once

namespace ascend_moe {

// The operators of a table, and their names in files.
enum class TunedOperator : uint32_t {
    kDispatchInt8,
    kDispatchBf16,
    kCombine,
    kHierarchyDispatchInt8,
    kHierarchyDispatchBf16,
    kHierarchyCombine,
    kMeshDispatchInt8,
    kMeshDispatchBf16,
    kMeshCombine,
};
// clang-format off
constexpr const char* kTunedNames[] = {
    "dispatch_int8",
    "dispatch_bf16",
    "combine",
    "hierarchy_dispatch_int8",
    "hierarchy_dispatch_bf16",
    "hierarchy_combine",
    "mesh_dispatch_int8",
    "mesh_dispatch_bf16",
    "mesh_combine",
};
// clang-format on
constexpr uint32_t kTunedRowsMax = 1048576;

struct CoreChoice {
    TunedOperator op;
    uint32_t ranks, rows, cores;
};

// clang-format off
constexpr CoreChoice kCoresOnA2[] = {
    {TunedOperator::kCombine, 8, 8, 32},
    {TunedOperator::kCombine, 8, 64, 32},
    {TunedOperator::kCombine, 8, 512, 40},
    {TunedOperator::kCombine, 8, 1024, 40},
    {TunedOperator::kDispatchBf16, 8, 8, 40},
    {TunedOperator::kDispatchBf16, 8, 64, 24},
    {TunedOperator::kDispatchBf16, 8, 512, 36},
    {TunedOperator::kDispatchBf16, 8, 1024, 36},
    {TunedOperator::kDispatchInt8, 8, 8, 32},
    {TunedOperator::kDispatchInt8, 8, 64, 40},
    {TunedOperator::kDispatchInt8, 8, 512, 48},
    {TunedOperator::kDispatchInt8, 8, 1024, 48},
    {TunedOperator::kHierarchyCombine, 16, 64, 32},
    {TunedOperator::kHierarchyCombine, 16, 512, 36},
    {TunedOperator::kHierarchyCombine, 32, 64, 24},
    {TunedOperator::kHierarchyCombine, 32, 512, 24},
    {TunedOperator::kHierarchyDispatchBf16, 16, 64, 16},
    {TunedOperator::kHierarchyDispatchBf16, 16, 512, 24},
    {TunedOperator::kHierarchyDispatchBf16, 32, 64, 32},
    {TunedOperator::kHierarchyDispatchBf16, 32, 512, 24},
    {TunedOperator::kHierarchyDispatchInt8, 16, 64, 16},
    {TunedOperator::kHierarchyDispatchInt8, 16, 512, 24},
    {TunedOperator::kHierarchyDispatchInt8, 32, 64, 32},
    {TunedOperator::kHierarchyDispatchInt8, 32, 512, 48},
    {TunedOperator::kMeshCombine, 16, 64, 32},
    {TunedOperator::kMeshCombine, 16, 512, 36},
    {TunedOperator::kMeshCombine, 32, 64, 40},
    {TunedOperator::kMeshCombine, 32, 512, 44},
    {TunedOperator::kMeshDispatchBf16, 16, 64, 32},
    {TunedOperator::kMeshDispatchBf16, 16, 512, 32},
    {TunedOperator::kMeshDispatchBf16, 32, 64, 32},
    {TunedOperator::kMeshDispatchBf16, 32, 512, 32},
    {TunedOperator::kMeshDispatchInt8, 16, 64, 40},
    {TunedOperator::kMeshDispatchInt8, 16, 512, 48},
    {TunedOperator::kMeshDispatchInt8, 32, 64, 40},
    {TunedOperator::kMeshDispatchInt8, 32, 512, 48},
};
// clang-format on

// clang-format off
constexpr CoreChoice kCoresOnA3[] = {
    {TunedOperator::kCombine, 8, 8, 32},
    {TunedOperator::kCombine, 8, 64, 48},
    {TunedOperator::kCombine, 8, 512, 40},
    {TunedOperator::kCombine, 8, 1024, 40},
    {TunedOperator::kCombine, 32, 8, 32},
    {TunedOperator::kCombine, 32, 64, 32},
    {TunedOperator::kCombine, 32, 512, 48},
    {TunedOperator::kCombine, 32, 1024, 44},
    {TunedOperator::kDispatchBf16, 8, 8, 24},
    {TunedOperator::kDispatchBf16, 8, 64, 24},
    {TunedOperator::kDispatchBf16, 8, 512, 32},
    {TunedOperator::kDispatchBf16, 8, 1024, 36},
    {TunedOperator::kDispatchBf16, 32, 8, 40},
    {TunedOperator::kDispatchBf16, 32, 64, 40},
    {TunedOperator::kDispatchBf16, 32, 512, 48},
    {TunedOperator::kDispatchBf16, 32, 1024, 44},
    {TunedOperator::kDispatchInt8, 8, 8, 24},
    {TunedOperator::kDispatchInt8, 8, 64, 40},
    {TunedOperator::kDispatchInt8, 8, 512, 48},
    {TunedOperator::kDispatchInt8, 8, 1024, 48},
    {TunedOperator::kDispatchInt8, 32, 8, 40},
    {TunedOperator::kDispatchInt8, 32, 64, 40},
    {TunedOperator::kDispatchInt8, 32, 512, 48},
    {TunedOperator::kDispatchInt8, 32, 1024, 48},
};
// clang-format on

}  // namespace ascend_moe
