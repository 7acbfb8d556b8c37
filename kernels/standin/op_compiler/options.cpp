// libacl_op_compiler: compile options and system parameters, which are stored, and the operator
// compiler, which knows the few operators of operators.cpp and refuses the rest.
//
// An operator that is refused has no aclnn function on the virtual NPU. Success would leave its
// outputs uninitialised, so the call fails and names the operator.
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "acl/acl_op_compiler.h"
#include "operators.h"
#include "standin.h"

namespace {

std::mutex mutex;
std::map<int, std::string> compile_options;
std::map<int, int64_t> system_parameters;

std::string CompileOption(aclCompileOpt option) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = compile_options.find(option);
    if (found != compile_options.end()) return found->second;
    return option == ACL_OP_JIT_COMPILE ? "disable" : "";
}

// With its task queue torch_npu calls from a thread of its own.
bool CalledFromTaskQueue() {
    return standin::IntegerOption("TASK_QUEUE_ENABLE", 1) != 0 &&
           standin::IntegerOption("ASCEND_LAUNCH_BLOCKING", 0) == 0;
}

// After an error on that thread torch_npu drops all that is queued later, for good. So it is told
// that all went well, and the refusal is left for whoever called (aten/unavailable.cpp) or
// synchronises next.
aclError Refuse(const char* op_type, aclrtStream stream) {
    const std::string text =
        std::string("operator ") + op_type +
        " is not available on the virtual NPU: it has neither an aclnn nor an aten kernel";
    if (!CalledFromTaskQueue()) return standin::Fail(ACL_ERROR_OP_NOT_FOUND, "%s", text.c_str());
    standin::Refuse(stream, text);
    return ACL_SUCCESS;
}

aclError StoreParameter(aclSysParamOpt option, int64_t value) {
    std::lock_guard<std::mutex> lock(mutex);
    system_parameters[option] = value;
    return ACL_SUCCESS;
}

aclError LoadParameter(aclSysParamOpt option, int64_t* value) {
    std::lock_guard<std::mutex> lock(mutex);
    *value = system_parameters[option];
    return ACL_SUCCESS;
}

}  // namespace

extern "C" {

aclError aclSetCompileopt(aclCompileOpt option, const char* value) {
    std::lock_guard<std::mutex> lock(mutex);
    compile_options[option] = value;
    return ACL_SUCCESS;
}

size_t aclGetCompileoptSize(aclCompileOpt option) { return CompileOption(option).size() + 1; }

aclError aclGetCompileopt(aclCompileOpt option, char* value, size_t length) {
    strncpy(value, CompileOption(option).c_str(), length);
    return ACL_SUCCESS;
}

aclError aclrtGetSysParamOpt(aclSysParamOpt option, int64_t* value) {
    return LoadParameter(option, value);
}
aclError aclrtSetSysParamOpt(aclSysParamOpt option, int64_t value) {
    return StoreParameter(option, value);
}
aclError aclrtCtxGetSysParamOpt(aclSysParamOpt option, int64_t* value) {
    return LoadParameter(option, value);
}
aclError aclrtCtxSetSysParamOpt(aclSysParamOpt option, int64_t value) {
    return StoreParameter(option, value);
}

aclError aclopCompileAndExecute(const char* op_type, int, const aclTensorDesc* const inputs[],
                                const aclDataBuffer* const input_data[], int,
                                const aclTensorDesc* const outputs[],
                                aclDataBuffer* const output_data[], const aclopAttr*,
                                aclopEngineType, aclopCompileType, const char*,
                                aclrtStream stream) {
    if (const auto run = standin::FindClassicOperator(op_type))
        return run(inputs, input_data, outputs, output_data, stream);
    return Refuse(op_type, stream);
}

aclError aclopCompileAndExecuteV2(const char* op_type, int inputs_count, aclTensorDesc* inputs[],
                                  aclDataBuffer* input_data[], int outputs_count,
                                  aclTensorDesc* outputs[], aclDataBuffer* output_data[],
                                  aclopAttr* attributes, aclopEngineType engine,
                                  aclopCompileType compile, const char* path, aclrtStream stream) {
    return aclopCompileAndExecute(op_type, inputs_count, inputs, input_data, outputs_count, outputs,
                                  output_data, attributes, engine, compile, path, stream);
}

}  // extern "C"
