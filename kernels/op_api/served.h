// What our kernels take of a legal call, and the room that it needs. Each returns ACL_SUCCESS, or
// an aclnn status with a text that names parameter, value and limit.
#pragma once

#include <cstdint>  // before abi.h
#include <functional>

#include "device/abi.h"
#include "entry/arguments.h"
#include "entry/world.h"
#include "windows.h"

namespace ascend_moe {

// What the operators have and the kernels do not, on this product, and the sizes that buffers and
// control area are made for.
int CheckServed(const char* op, const World& world, const Parameters& p, const Attributes& a,
                const Tensor& elastic_info, const Tensor& performance_info);
// `need` is of the whole window; the text tells which smaller max_bs would fit.
int CheckWindow(const char* op, const Windows& windows, Parameters p, const Attributes& a,
                const std::function<uint64_t(const Parameters&)>& need);
int CheckTpWindow(const char* op, const Windows& windows, const Parameters& p, uint32_t blocks);
// Of an output.
int CheckRoom(const char* op, const char* name, const Tensor& tensor, int64_t elements);

}  // namespace ascend_moe
