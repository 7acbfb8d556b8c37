// What the stand-in says about the chip it plays: one row per product.
#pragma once

#include <cstdint>

namespace standin {

struct Soc {
    const char* product;  // as in ASCEND_MOE_PRODUCT
    const char* name;     // as returned by aclrtGetSocName; torch_npu knows these names
    uint32_t cube_cores;
    uint32_t vector_cores;
    uint32_t devices_of_server;
    bool joins_servers;  // by HCCS, in a super-pod
};

// ASCEND_MOE_PRODUCT chooses the row; A3 when it is not set.
const Soc& CurrentSoc();

}  // namespace standin
