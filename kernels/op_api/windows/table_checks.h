// How the readers of HCCL's private tables say what is wrong: table, field, value, limit. An empty
// text says that nothing is.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "windows/by_tiling.h"

namespace ascend_moe {

inline std::string Number(uint64_t value) { return std::to_string(value); }

// "send queue of rank 9: depth 96, must be ..."
inline std::string Wrong(const std::string& of, const char* field, uint64_t value,
                         const std::string& must) {
    return of + ": " + field + " " + Number(value) + ", must be " + must;
}
inline std::string Exactly(const std::string& of, const char* field, uint64_t value,
                           uint64_t must) {
    return value == must ? "" : Wrong(of, field, value, Number(must));
}
inline std::string Address(const std::string& of, const char* field, uint64_t value,
                           uint64_t alignment) {
    if (value != 0 && value % alignment == 0) return "";
    return of + ": " + field + " " + Hex(value) + ", must be an address aligned to " +
           Number(alignment) + " bytes";
}

// The first of them that is not empty.
inline std::string First(std::initializer_list<std::string> problems) {
    for (const std::string& problem : problems) {
        if (!problem.empty()) return problem;
    }
    return "";
}

template <typename T>
std::string Take(const char* what, uint64_t from, size_t count, std::vector<T>* into) {
    into->resize(count);
    return ReadDevice(from, into->data(), count * sizeof(T))
               ? ""
               : std::string(what) + " cannot be read at " + Hex(from);
}
template <typename T>
std::string Take(const char* what, uint64_t from, T* into) {
    return ReadDevice(from, into, sizeof(T))
               ? ""
               : std::string(what) + " cannot be read at " + Hex(from);
}

}  // namespace ascend_moe
