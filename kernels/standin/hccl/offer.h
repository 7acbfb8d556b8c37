// The ways to a communicator's windows that HCCL offers to operator libraries, see offer.cpp.
#pragma once

#include <cstring>

#include "communicator.h"

namespace standin {

// The communicator of this name or handle; null when this process has none.
std::shared_ptr<Communicator> Named(const char* name);
std::shared_ptr<Communicator> OfHandle(HcclComm comm);

// Building links is collective: waits for all ranks, HCCL_CONNECT_TIMEOUT at most, as HCCL does.
HcclResult MeetToBuildLinks(Communicator& communicator, const char* call);

// The product that is played.
bool A2();
// CommTopo of a layer of the rank graph (hcomm:include/hccl/hccl_rank_graph.h:42, v9.0.0).
uint32_t TopologyOf(uint32_t layer);

// A field of what a caller gives, by its offset, as structure.h writes them.
template <typename T>
T Field(const void* structure, size_t offset) {
    T value;
    memcpy(&value, static_cast<const char*>(structure) + offset, sizeof(value));
    return value;
}

// A wrong argument: the text and HCCL_E_PARA.
HcclResult Wrong(const char* call, const char* what);

}  // namespace standin
