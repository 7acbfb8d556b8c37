// A structure that HCCL keeps in device memory, written by offsets. The stand-in counts bytes,
// because the library under test declares the structures: sharing them would prove nothing.
//
// For tests only: ASCEND_MOE_VNPU_HCCL_PATCH=NAME:OFFSET:BYTES:VALUE spoils a field of every
// structure of that name; several are separated by commas.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace standin {

class Structure {
 public:
    Structure(const char* name, size_t bytes, char fill = 0) : name_(name), bytes_(bytes, fill) {}

    template <typename T>
    void Set(size_t offset, T value) {
        memcpy(bytes_.data() + offset, &value, sizeof(value));
    }
    void SetText(size_t offset, const std::string& text) {
        memcpy(bytes_.data() + offset, text.c_str(), text.size() + 1);
    }
    size_t size() const { return bytes_.size(); }
    // Its address there; 0 without memory. Kept as long as the process: HCCL keeps it as long as
    // the communicator.
    uint64_t ToDevice();

 private:
    void Spoil();

    const std::string name_;
    std::vector<char> bytes_;
};

// Zeroed device memory, kept alike; 0 without memory.
uint64_t DeviceMemory(size_t bytes);

}  // namespace standin
