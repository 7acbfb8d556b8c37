// Registers a kernel entry point under its own name, whatever its number of arguments. A GM_ADDR is
// one word of a launch; a struct that is passed by value takes as many as it needs.
#pragma once

#include <array>
#include <cstring>
#include <utility>

#include "api/types.h"
#include "hostsim.h"

namespace hostsim {

template <typename Argument>
constexpr uint32_t kWords = (sizeof(Argument) + 7) / 8;

template <typename Argument>
Argument Read(const uint64_t* words) {
    static_assert(std::is_trivially_copyable_v<Argument>);
    Argument value;
    std::memcpy(&value, words, sizeof(value));
    return value;
}

template <auto kernel, typename... Arguments, size_t... index>
void CallWith(const uint64_t* words, void (*)(Arguments...), std::index_sequence<index...>) {
    [[maybe_unused]] uint32_t next = 0;
    [[maybe_unused]] std::array<uint32_t, sizeof...(Arguments)> at{};
    ((at[index] = next, next += kWords<Arguments>), ...);
    kernel(Read<Arguments>(words + at[index])...);
}

template <auto kernel, typename... Arguments>
struct Registration {
    Registration(const char* name, void (*)(Arguments...)) {
        hostsim_register(name, (kWords<Arguments> + ... + 0), [](const uint64_t* words) {
            CallWith<kernel>(words, static_cast<void (*)(Arguments...)>(kernel),
                             std::index_sequence_for<Arguments...>{});
        });
    }
};

}  // namespace hostsim

#define HOSTSIM_KERNEL(name)                          \
    static const auto registration_of_##name = [] {   \
        return MakeRegistration<&name>(#name, &name); \
    }()

template <auto kernel, typename... Arguments>
hostsim::Registration<kernel, Arguments...> MakeRegistration(const char* name,
                                                             void (*function)(Arguments...)) {
    return hostsim::Registration<kernel, Arguments...>(name, function);
}
