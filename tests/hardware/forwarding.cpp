// Calls through kernels/op_api/stock.cpp, for test_stock.py.
#include <cstdarg>
#include <cstdio>

#include "report.h"
#include "stock.h"

namespace ascend_moe {

static char text[1024];

int Fail(int status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return status;
}

}  // namespace ascend_moe

using ascend_moe::CombineCall;
using ascend_moe::DispatchCall;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char* last_text() { return ascend_moe::text; }
EXPORT const char* library() {
    static std::string path;
    path = ascend_moe::StockLibrary(DispatchCall::kAclnn);
    return path.c_str();
}

EXPORT int dispatch(int64_t zero_experts, bool waits) {
    DispatchCall call;
    call.attributes.group_ep = "the group";
    call.attributes.moe_expert_num = 32;
    call.attributes.zero_expert_num = zero_experts;
    call.quant_mode = 2;
    call.expand_scales = reinterpret_cast<aclTensor*>(0x77);
    if (waits) call.performance_info = reinterpret_cast<aclTensor*>(0x88);
    uint64_t bytes = 0;
    aclOpExecutor* executor = nullptr;
    const int status = Forward(call, &bytes, &executor);
    if (status != 0) return status;
    return ascend_moe::ForwardRun(DispatchCall::kAclnn, nullptr, bytes, executor, nullptr);
}

EXPORT int combine(bool with_ori_x) {
    CombineCall call;
    call.attributes.group_ep = "another";
    call.attributes.moe_expert_num = 8;
    call.comm_quant_mode = 2;
    call.out = reinterpret_cast<aclTensor*>(0x99);
    if (with_ori_x) call.ori_x = reinterpret_cast<aclTensor*>(0x55);
    uint64_t bytes = 0;
    aclOpExecutor* executor = nullptr;
    return Forward(call, &bytes, &executor);
}
