// aten operators on the virtual NPU: run by torch's own CPU kernels, on the memory and in the
// streams of the device.
//
// torch_npu registers a kernel for every aten operator it supports; each ends in an aclnn function
// that does not exist here. This library replaces them all (except allocation, views and copies) by
// one boxed kernel that works as a device does:
//
//   1. run the operator on meta tensors: gives the shapes of the outputs without any data,
//   2. allocate the outputs on the device,
//   3. queue a task on the current stream: wrap the device memory of all tensors as CPU tensors,
//   run the CPU kernel,
//      store its results into the outputs.
//
// So operators are asynchronous and can be captured into a graph, as on hardware. Where the shapes
// depend on the data or there is no meta kernel (nonzero, unique, ..) the kernel waits for the
// stream instead and runs at once, which is impossible during a capture, also as on hardware.
//
// An exception in step 3 is one of the data (an index out of range): the stream stops, as after an
// exception of an AI core. What can be known before is refused by the call (probe.h).
//
// Only this folder includes torch headers. Loaded by aclInit, when torch_npu is complete.
#include <torch/library.h>

#include <set>

#include "probe.h"
#include "seed.h"
#include "torch_npu/csrc/core/npu/NPUStream.h"

namespace standin::aten {
namespace {

// torch_npu's own kernels for these work: they allocate, make views, or end in one of the
// stand-in's copies.
const std::set<std::string>& KeptOperators() {
    static const std::set<std::string> kept = {
        "aten::copy_",
        "aten::_copy_from",
        "aten::_copy_from_and_resize",
        "aten::_to_copy",
        "aten::empty",
        "aten::empty_strided",
        "aten::empty_like",
        "aten::new_empty_strided",
        "aten::set_",
        "aten::resize_",
        "aten::resize_as_",
        "aten::as_strided",
        "aten::view",
        "aten::contiguous",
        "aten::clone",
        "aten::_local_scalar_dense",
        "aten::is_pinned",
        "aten::_pin_memory",
        "aten::record_stream",
        "aten::zero_",
    };
    return kept;
}

// ---- one call
// -------------------------------------------------------------------------------------------------------

at::Tensor MetaOf(const at::Tensor& tensor) {
    if (!tensor.defined() || IsNumber(tensor)) return tensor;
    const auto options = tensor.options().device(at::kMeta).pinned_memory(false);
    return at::empty_strided(tensor.sizes(), tensor.strides(), options);
}

// The argument that return value `index` is, for in-place and out= operators: (T, .., Tensor(a!)
// self) -> Tensor(a!).
int AliasedArgument(const c10::FunctionSchema& schema, size_t index) {
    const c10::AliasInfo* returned = schema.returns()[index].alias_info();
    if (returned == nullptr) return -1;
    for (size_t i = 0; i < schema.arguments().size(); ++i) {
        const c10::AliasInfo* argument = schema.arguments()[i].alias_info();
        if (argument != nullptr && argument->beforeSets() == returned->beforeSets())
            return static_cast<int>(i);
    }
    return -1;
}

// The stack of a call in which device tensors are CPU tensors over the same memory. Made once, used
// each time the task runs.
class CpuCall {
 public:
    CpuCall(const OperatorHandle& op, const std::vector<IValue>& arguments, c10::Device device)
        : op_(op), arguments_(arguments), generator_(GeneratorArgument(op.schema())) {
        if (generator_ >= 0) seed_.emplace(arguments[generator_], device);
        for (IValue& value : arguments_) {
            value =
                MapTensors(MoveOther(value, at::kCPU), [&](const at::Tensor& tensor) -> at::Tensor {
                    if (!OnDevice(tensor)) return tensor;
                    slots_.emplace_back(tensor);
                    // A placeholder that remembers which slot it stands for.
                    return at::empty({static_cast<int64_t>(slots_.size()) - 1, 0},
                                     at::TensorOptions().device(at::kMeta));
                });
        }
    }

    Stack Run() const {
        Stack stack;
        for (const IValue& value : arguments_) {
            stack.push_back(MapTensors(value, [&](const at::Tensor& tensor) {
                return tensor.defined() && tensor.is_meta() ? slots_[tensor.size(0)].AsCpu()
                                                            : tensor;
            }));
        }
        if (seed_.has_value()) stack[generator_] = seed_->CpuGenerator();
        RunOn(op_, stack);
        return stack;
    }

 private:
    const OperatorHandle op_;
    std::vector<IValue> arguments_;
    const int generator_;
    std::optional<Seed> seed_;
    std::vector<DeviceTensor> slots_;
};

c10::Device DeviceOfCall(const std::vector<IValue>& arguments) {
    for (const IValue& value : arguments) {
        std::optional<c10::Device> device;
        ForEachTensor(value, [&](const at::Tensor& tensor) {
            if (!device.has_value() && OnDevice(tensor)) device = tensor.device();
        });
        if (device.has_value()) return *device;
        if (value.isDevice() && value.toDevice().has_index()) return value.toDevice();
    }
    return c10::Device(c10::DeviceType::PrivateUse1, c10_npu::getCurrentNPUStream().device_index());
}

// The shapes of the results, or nothing when they cannot be known without the data.
std::optional<Stack> MetaResults(const OperatorHandle& op, const std::vector<IValue>& arguments,
                                 Stack* meta_arguments) {
    for (const IValue& value : arguments) {
        meta_arguments->push_back(MapTensors(MoveOther(value, at::kMeta), MetaOf));
    }
    for (const c10::Argument& result : op.schema().returns()) {
        const c10::TypePtr& type = result.type();
        const bool tensors = type->isSubtypeOf(*c10::TensorType::get()) ||
                             type->isSubtypeOf(*c10::ListType::ofTensors());
        if (!tensors) return std::nullopt;
    }
    Stack stack = *meta_arguments;
    try {
        RunOn(op, stack);
    } catch (const std::exception&) {
        return std::nullopt;  // an illegal call fails again, with its own message, when it runs on
                              // the CPU
    }
    return stack;
}

at::Tensor AllocateLike(const at::Tensor& tensor, c10::Device device) {
    if (!tensor.defined()) return tensor;
    return at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(device));
}

void CollectTensors(const IValue& value, std::vector<at::Tensor>* tensors) {
    ForEachTensor(value, [&](const at::Tensor& tensor) { tensors->push_back(tensor); });
}

// Where the CPU kernel's results go; undefined and in-place results need no copy.
using Store = std::pair<size_t, DeviceTensor>;

void StoreResults(const Stack& results, const std::vector<Store>& stores) {
    std::vector<at::Tensor> tensors;
    for (const IValue& value : results) CollectTensors(value, &tensors);
    for (const auto& [index, target] : stores) target.AsCpu().copy_(tensors.at(index));
}

// in-place results: the meta kernel may have resized an out= tensor.
void ResizeAsMeta(const IValue& argument, const IValue& meta) {
    if (!argument.isTensor() || !argument.toTensor().defined()) return;
    const at::Tensor& tensor = argument.toTensor();
    if (tensor.sizes() != meta.toTensor().sizes()) tensor.resize_(meta.toTensor().sizes());
}

void RunAsynchronously(const OperatorHandle& op, const std::vector<IValue>& arguments,
                       const Stack& meta_arguments, const Stack& meta_results, aclrtStream stream,
                       Stack* stack) {
    const c10::Device device = DeviceOfCall(arguments);
    Stack results;
    std::vector<Store> stores;
    size_t position = 0;
    for (size_t i = 0; i < meta_results.size(); ++i) {
        const int aliased = AliasedArgument(op.schema(), i);
        std::vector<at::Tensor> outputs;
        if (aliased >= 0) {
            ResizeAsMeta(arguments[aliased], meta_arguments[aliased]);
            results.push_back(arguments[aliased]);
            CollectTensors(arguments[aliased], &outputs);
            position += outputs.size();
            continue;
        }
        results.push_back(MapTensors(meta_results[i],
                                     [&](const at::Tensor& t) { return AllocateLike(t, device); }));
        CollectTensors(results.back(), &outputs);
        for (const at::Tensor& output : outputs) {
            if (output.defined()) stores.emplace_back(position, DeviceTensor(output));
            ++position;
        }
    }
    // An operator without results (a foreach) may still write to its arguments; CpuCall covers
    // that.
    const CpuCall call(op, arguments, device);
    const std::string* name = &op.schema().name();
    standin::Launch(stream, name->c_str(), [call, stores, name] {
        try {
            StoreResults(call.Run(), stores);
            return ACL_SUCCESS;
        } catch (const std::exception& error) {
            return standin::Fail(ACL_ERROR_RT_AICORE_EXCEPTION, "%s: %s", name->c_str(),
                                 error.what());
        }
    });
    torch::jit::drop(*stack, op.schema().arguments().size());
    stack->insert(stack->end(), results.begin(), results.end());
}

void RunAtOnce(const OperatorHandle& op, const std::vector<IValue>& arguments, aclrtStream stream,
               Stack* stack) {
    const int error = aclrtSynchronizeStream(stream);
    TORCH_CHECK(error == ACL_SUCCESS, op.schema().name(),
                " needs the data of its arguments, but waiting for them failed: error code is ",
                error, ", ", aclGetRecentErrMsg());
    const c10::Device device = DeviceOfCall(arguments);
    Stack results = CpuCall(op, arguments, device).Run();
    for (size_t i = 0; i < results.size(); ++i) {
        const int aliased = AliasedArgument(op.schema(), i);
        if (aliased >= 0) {
            TORCH_CHECK(!results[i].isTensor() ||
                            results[i].toTensor().sizes() == arguments[aliased].toTensor().sizes(),
                        op.schema().name(),
                        ": an out= tensor whose size depends on the data must have its final size");
            results[i] = arguments[aliased];
            continue;
        }
        results[i] = MapTensors(results[i], [&](const at::Tensor& result) {
            at::Tensor output = AllocateLike(result, device);
            if (output.defined()) DeviceTensor(output).AsCpu().copy_(result);
            return output;
        });
    }
    torch::jit::drop(*stack, op.schema().arguments().size());
    stack->insert(stack->end(), results.begin(), results.end());
}

void RunByCpuKernel(const OperatorHandle& op, Stack* stack) {
    const std::vector<IValue> arguments = Arguments(op, *stack);
    Stack meta_arguments;
    const std::optional<Stack> meta_results = MetaResults(op, arguments, &meta_arguments);
    // Asking for the raw stream waits until torch_npu's task queue has handed over what was called
    // before.
    const aclrtStream stream = c10_npu::getCurrentNPUStream().stream();
    if (meta_results.has_value()) {
        RefuseUnknownTypes(op, arguments, *meta_results, GeneratorArgument(op.schema()));
        RunAsynchronously(op, arguments, meta_arguments, *meta_results, stream, stack);
    } else {
        RunAtOnce(op, arguments, stream, stack);
    }
}

// For operators that are compositions of others but have a kernel of torch_npu at the autograd
// level, which would go past the replaced kernels: the composition itself, as on any device without
// one.
void RunComposition(const OperatorHandle& op, Stack* stack) {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::AutogradCPU), stack);
}

// The same one level below, for random operators that take no generator: what they are made of
// does. native_dropout's kernel for the CPU is such a composition, too.
void RunRandomComposition(const OperatorHandle& op, Stack* stack) {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
}

bool IsRandomComposition(const OperatorHandle& op) {
    return op.hasTag(at::Tag::nondeterministic_seeded) && GeneratorArgument(op.schema()) < 0 &&
           (!op.hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
            op.schema().name() == "aten::native_dropout");
}

// ---- registration
// ---------------------------------------------------------------------------------------------------

bool ReturnsView(const c10::FunctionSchema& schema) {
    for (const c10::Argument& result : schema.returns()) {
        if (result.alias_info() != nullptr && !result.alias_info()->isWrite()) return true;
    }
    return false;
}

// Overriding is the purpose, so torch's warning about each overridden kernel is dropped.
class Silence : public c10::WarningHandler {
    void process(const c10::Warning&) override {}
};

class Registration {
 public:
    Registration() {
        Silence silence;
        c10::WarningUtils::WarningHandlerGuard guard(&silence);
        for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
            const auto op = c10::Dispatcher::singleton().findSchema(name);
            if (!op.has_value() || name.name.rfind("aten::", 0) != 0) continue;
            if (KeptOperators().count(name.name) == 0) Replace(*op, name);
        }
    }

 private:
    void Replace(const OperatorHandle& op, const c10::OperatorName& name) {
        const std::string overload = name.overload_name.empty() ? "" : "." + name.overload_name;
        const std::string full = name.name + overload;
        const auto has = [&op](c10::DispatchKey key) { return op.hasKernelForDispatchKey(key); };
        if (has(c10::DispatchKey::AutogradPrivateUse1) &&
            has(c10::DispatchKey::CompositeImplicitAutograd) && !has(c10::DispatchKey::CPU)) {
            autograd_.impl(full.c_str(),
                           torch::CppFunction::makeFromBoxedFunction<&RunComposition>());
        }
        if (!has(c10::DispatchKey::PrivateUse1) || ReturnsView(op.schema())) return;
        device_.impl(full.c_str(),
                     IsRandomComposition(op)
                         ? torch::CppFunction::makeFromBoxedFunction<&RunRandomComposition>()
                         : torch::CppFunction::makeFromBoxedFunction<&RunByCpuKernel>());
    }

    torch::Library device_{torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__,
                           __LINE__};
    torch::Library autograd_{torch::Library::IMPL, "aten", c10::DispatchKey::AutogradPrivateUse1,
                             __FILE__, __LINE__};
};

// Leaked: the kernels must stay until the process ends.
const Registration* const registration = new Registration();

}  // namespace
}  // namespace standin::aten
