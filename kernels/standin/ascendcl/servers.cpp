// Servers: the devices are split evenly, in order, over ASCEND_MOE_VNPU_SERVERS of them.
//
// A server has 8 devices on A2 and 16 on A3, or fewer: then it is played in part. A core reaches
// the memory of another device over HCCS: on A2 within a server, on A3 within a super-pod. Asked
// for by number, the servers of A3 are super-pods of their own, joined as those of A2 are by RDMA
// alone. Without the variable one server after the other is filled, on A3 all in one super-pod.
#include "servers.h"

#include <cstdlib>

#include "soc.h"
#include "standin.h"

namespace standin {
namespace {

constexpr const char* kServers = "ASCEND_MOE_VNPU_SERVERS";

// 0: nobody asked. Read anew each time, as it may change until a program uses the first device.
int64_t Asked() { return IntegerOption(kServers, 0); }

}  // namespace

uint32_t DeviceCount() {
    return static_cast<uint32_t>(IntegerOption("ASCEND_MOE_VNPU_DEVICES", 16));
}

std::string WrongSplit() {
    const int64_t asked = Asked();
    const char* text = getenv(kServers);
    if (text == nullptr || *text == '\0') return "";
    const std::string wish = std::string(kServers) + "=" + text;
    if (asked < 1 || DeviceCount() % asked != 0)
        return wish + ": " + std::to_string(DeviceCount()) + " devices cannot be split so";
    if (DeviceCount() / asked > CurrentSoc().devices_of_server)
        return wish + ": " + std::to_string(DeviceCount() / asked) +
               " devices on each, a server of " + CurrentSoc().product + " has " +
               std::to_string(CurrentSoc().devices_of_server);
    return "";
}

Place PlaceOf(int device) {
    const uint32_t asked = WrongSplit().empty() ? static_cast<uint32_t>(Asked()) : 0;
    const uint32_t on_each = asked == 0 ? CurrentSoc().devices_of_server : DeviceCount() / asked;
    const uint32_t server = static_cast<uint32_t>(device) / on_each;
    const bool one_pod = asked == 0 && CurrentSoc().joins_servers;
    return {server, one_pod ? 0 : server};
}

}  // namespace standin
