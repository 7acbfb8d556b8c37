// Registers a kernel entry point under its own name, whatever its number of GM_ADDR arguments.
#pragma once

#include <utility>

#include "api/types.h"
#include "hostsim.h"

namespace hostsim {

template <auto kernel, typename... Arguments, size_t... index>
void CallWith(const uint64_t* arguments, void (*)(Arguments...), std::index_sequence<index...>) {
    static_assert((std::is_same_v<Arguments, GM_ADDR> && ...), "kernel arguments are GM addresses");
    kernel(reinterpret_cast<GM_ADDR>(arguments[index])...);
}

template <auto kernel, typename... Arguments>
struct Registration {
    Registration(const char* name, void (*)(Arguments...)) {
        hostsim_register(name, sizeof...(Arguments), [](const uint64_t* arguments) {
            CallWith<kernel>(arguments, static_cast<void (*)(Arguments...)>(kernel),
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
