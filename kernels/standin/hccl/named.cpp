// Part of each library of CANN 9 in offer.cpp: the handle and the own buffer of a communicator.
#include "offer.h"

extern "C" {

HcclResult HcclCommGetHandleWithName(const char* name, HcclComm* comm) {
    const auto communicator = standin::Named(name);
    if (communicator == nullptr)
        return standin::Wrong("HcclCommGetHandleWithName", "no communicator of that name");
    *comm = communicator.get();
    return HCCL_SUCCESS;
}

HcclResult HcclGetHcclBuffer(HcclComm comm, void** address, uint64_t* bytes) {
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr) return standin::Wrong("HcclGetHcclBuffer", "no communicator");
    const standin::Window window = communicator->window(communicator->rank());
    *address = window.device_address;
    *bytes = window.bytes;
    return HCCL_SUCCESS;
}

}  // extern "C"
