// How the devices that are played are split over servers.
#pragma once

#include <cstdint>
#include <string>

namespace standin {

uint32_t DeviceCount();

// Why the devices cannot stand as ASCEND_MOE_VNPU_SERVERS says; empty: they can.
std::string WrongSplit();

}  // namespace standin
