// HCCL's structure of a group on A2, see mesh.cpp.
#pragma once

#include "communicator.h"

namespace standin {

// Whether this algorithm asks for what the operators of A2 call hierarchy.
bool IsHierarchy(const std::string& algorithm);
// HCCL does so before it builds the links of a group that spans servers.
void ClearBuffers(Communicator& communicator);
// In device memory; 0 without memory.
uint64_t MakeMesh(Communicator& communicator, bool hierarchy);

}  // namespace standin
