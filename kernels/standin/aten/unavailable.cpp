// A torch_npu operator that the virtual NPU does not have is refused by the call itself, by name.
//
// torch_npu learns of it in one of three ways, and none says what is the matter. Without an aclnn
// function it says that libopapi.so lacks it, or that CANN is too old. And where it then turns to a
// classic operator, the refusal comes on the thread of its task queue (op_compiler/options.cpp). So
// all operators of the namespace "npu" pass here on their way to the device: a text of the first
// two kinds is put right, and of the third kind the caller is told before it goes on.
//
// The place is the dispatch key BackendSelect, which every call passes after autograd and which
// torch_npu leaves alone for operators that take a tensor.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "standin.h"
#include "torch_npu/csrc/core/npu/NPUStream.h"

namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::OperatorHandle;

// What torch_npu says when it has looked for an aclnn function in vain.
bool BlamesCann(const std::string& text) {
    for (const char* phrase : {"libopapi", "CANN", "cann version", "there is no aclnn"}) {
        if (text.find(phrase) != std::string::npos) return true;
    }
    return false;
}

void RunOnBackend(const OperatorHandle& op, DispatchKeySet keys, torch::jit::Stack* stack) {
    const DispatchKeySet below =
        keys & DispatchKeySet(DispatchKeySet::FULL_AFTER, DispatchKey::BackendSelect);
    if (!keys.has(DispatchKey::PrivateUse1)) {
        op.redispatchBoxed(below, stack);
        return;
    }
    try {
        op.redispatchBoxed(below, stack);
    } catch (const c10::Error& error) {
        const std::string text = error.what_without_backtrace();
        TORCH_CHECK_NOT_IMPLEMENTED(!BlamesCann(text), "[virtual NPU] operator ",
                                    op.schema().name(),
                                    " is not available on the virtual NPU in this form; torch_npu "
                                    "says: ",
                                    text);
        throw;
    }
    // Asking for the raw stream waits until torch_npu's task queue has handed over this call.
    const std::string refusal = standin::TakeRefusal(c10_npu::getCurrentNPUStream().stream());
    TORCH_CHECK_NOT_IMPLEMENTED(refusal.empty(), "[virtual NPU] ", op.schema().name(), ": ",
                                refusal);
}

class Registration {
 public:
    Registration() {
        for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
            const auto op = c10::Dispatcher::singleton().findSchema(name);
            if (!op.has_value() || name.name.rfind("npu::", 0) != 0) continue;
            if (!op->hasKernelForDispatchKey(DispatchKey::PrivateUse1) ||
                op->hasKernelForDispatchKey(DispatchKey::BackendSelect))
                continue;
            const std::string overload = name.overload_name.empty() ? "" : "." + name.overload_name;
            library_.impl((name.name + overload).c_str(),
                          torch::CppFunction::makeFromBoxedFunction<&RunOnBackend>());
        }
    }

 private:
    torch::Library library_{torch::Library::IMPL, "npu", DispatchKey::BackendSelect, __FILE__,
                            __LINE__};
};

// Leaked: the kernels must stay until the process ends.
const Registration* const registration = new Registration();

}  // namespace
