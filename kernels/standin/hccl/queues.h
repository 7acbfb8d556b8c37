// What HCCL has for whoever posts RDMA writes of a group that spans servers. See queues.cpp.
#pragma once

#include "communicator.h"

namespace standin {

// Whether hierarchy on A3 makes a link to that rank.
bool Linked(const Communicator& communicator, uint32_t rank);

// TransportDeviceNormalData of each rank, on A2. Without hierarchy every link is one of RDMA, also
// within a server.
uint64_t MakeRankTable(Communicator& communicator, bool hierarchy, uint64_t* bytes);

// HcclAiRMAInfo and all that hangs on it, which there is with hierarchy alone.
uint64_t MakeQueueTables(Communicator& communicator, uint64_t* bytes);

}  // namespace standin
