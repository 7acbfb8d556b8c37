// Random operators follow the generator of the device: torch.npu.manual_seed, get_rng_state,
// torch.Generator(device="npu").
//
// torch_npu's generator has a seed and an offset that each call moves on, as the Philox generator
// of the kernels needs them (op-plugin, 517f2e7d: op_plugin/ops/opapi/NormalKernelNpuOpApi.cpp and
// its siblings). Here the two numbers seed a CPU generator that lives for one call. So equal seeds
// give equal numbers, but not those of hardware. In a graph the numbers lie in device memory and a
// replay reads them anew.
#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include "tensors.h"
#include "torch_npu/csrc/aten/NPUGeneratorImpl.h"

namespace standin::aten {

// How far a call moves the offset on (op-plugin: PHILOX_DEFAULT_NUM).
constexpr uint64_t kOffsetOfCall = 10;

// Which argument is the generator, or -1: an operator without one is not random or is made of
// others that are.
inline int GeneratorArgument(const c10::FunctionSchema& schema) {
    const auto& arguments = schema.arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
        c10::TypePtr type = arguments[i].type();
        if (const auto optional = type->cast<c10::OptionalType>())
            type = optional->getElementType();
        if (type->kind() == c10::TypeKind::GeneratorType) return static_cast<int>(i);
    }
    return -1;
}

class Seed {
 public:
    // Moves the generator on. Raises, as torch_npu does, when it is not one of an NPU.
    Seed(const IValue& generator, c10::Device device) {
        const std::optional<at::Generator> given =
            generator.isGenerator() ? std::optional(generator.toGenerator()) : std::nullopt;
        auto* npu = at::get_generator_or_default<at_npu::NPUGeneratorImpl>(
            given, at_npu::detail::getDefaultNPUGenerator(device.index()));
        std::lock_guard<std::mutex> lock(npu->mutex_);
        const at_npu::PhiloxNpuState state = npu->philox_npu_state(kOffsetOfCall);
        if (state.captured_) {
            captured_ = {DeviceTensor(*state.seed_.ptr), DeviceTensor(*state.offset_.ptr)};
            offset_ = state.offset_intragraph_;
        } else {
            seed_ = state.seed_.val;
            offset_ = state.offset_.val;
        }
    }

    at::Generator CpuGenerator() const {
        uint64_t seed = seed_, offset = offset_;
        if (!captured_.empty()) {
            seed += captured_[0].AsCpu().item<int64_t>();
            offset += captured_[1].AsCpu().item<int64_t>();
        }
        return at::detail::createCPUGenerator(Mix(Mix(seed) + offset));
    }

 private:
    // The Mersenne twister takes 32 bits of its seed: all bits must go into those (splitmix64).
    static uint64_t Mix(uint64_t x) {
        x += 0x9e3779b97f4a7c15;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
        return x ^ (x >> 31);
    }

    uint64_t seed_ = 0;
    uint64_t offset_ = 0;
    std::vector<DeviceTensor> captured_;  // seed and offset; empty outside of a capture
};

}  // namespace standin::aten
