// libhccl: making, finding and ending communicators.
//
// A communicator is a shared segment (segment.h) and a name that is the same on all ranks and
// unique on the machine, unless the caller configured one. Kernels find it by that name in a table
// of this process. The window of a rank is twice HCCL_BUFFSIZE (the "in" and the "out" buffer of
// HCCL), reserved at once and given memory as it is touched; collectives use its first half as
// scratch, which is why a group of dispatch and combine must not be used for anything else.
#include "communicator.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>

namespace standin {
namespace {

// Shared pointers, because a queued collective keeps its communicator alive. Leaked: used from
// static destructors.
struct Registry {
    std::mutex mutex;
    std::map<HcclComm, std::shared_ptr<Communicator>> by_handle;
};

Registry& Communicators() {
    static Registry* registry = new Registry();
    return *registry;
}

std::shared_ptr<Communicator> Lookup(HcclComm handle) {
    Registry& registry = Communicators();
    std::lock_guard<std::mutex> lock(registry.mutex);
    const auto found = registry.by_handle.find(handle);
    return found == registry.by_handle.end() ? nullptr : found->second;
}

// HCCL_BUFFSIZE: up to ten digits, 32 bits, at least 1. With anything else, an empty text too, HCCL
// makes no communicator, even of a size that is configured
// (hcomm:src/platform/common/externalinput.cc:285, 1458, v9.0.0).
bool ReadBufferMegabytes(const HcclCommConfig* config, uint32_t* megabytes) {
    *megabytes = HCCL_COMM_DEFAULT_BUFFSIZE;
    if (const char* text = getenv("HCCL_BUFFSIZE")) {
        constexpr size_t kMostDigits = 10;
        const std::string_view value(text);
        const bool digits = value.size() <= kMostDigits &&
                            value.find_first_not_of("0123456789") == std::string_view::npos;
        const uint64_t number = digits ? strtoull(text, nullptr, 10) : 0;
        if (number < 1 || number > UINT32_MAX) {
            Fail(0,
                 "EI0001: Value %s for environment variable HCCL_BUFFSIZE is invalid. Expected "
                 "value: equal to or greater than 1(MB).",
                 text);
            return false;
        }
        *megabytes = static_cast<uint32_t>(number);
    }
    if (config != nullptr && config->hcclBufferSize != HCCL_COMM_BUFFSIZE_CONFIG_NOT_SET &&
        config->hcclBufferSize != 0) {
        *megabytes = config->hcclBufferSize;
    }
    return true;
}

HcclResult Init(uint32_t size, const HcclRootInfo* root, uint32_t rank,
                const HcclCommConfig* config, HcclComm* comm) {
    if (size == 0 || size > kMaxRanks || rank >= size) {
        Fail(0, "HcclCommInitRootInfo: rank %u of %u", rank, size);
        return HCCL_E_PARA;
    }
    uint32_t buffer_mb = 0;
    if (!ReadBufferMegabytes(config, &buffer_mb)) return HCCL_E_PARA;
    std::string name = root->internal;
    if (config != nullptr && config->hcclCommName[0] != '\0') name = config->hcclCommName;
    auto made = std::make_shared<Communicator>(name, root->internal, rank, size, buffer_mb);
    if (!made->segment().error().empty()) {
        Fail(0, "HcclCommInitRootInfo: rank %u of %u: %s", rank, size,
             made->segment().error().c_str());
        return HCCL_E_INTERNAL;
    }
    Registry& registry = Communicators();
    std::lock_guard<std::mutex> lock(registry.mutex);
    *comm = made.get();
    registry.by_handle[made.get()] = made;
    return HCCL_SUCCESS;
}

}  // namespace

// HCCL keeps a table per device and looks into that of the thread's device. Without a device it
// takes what there is, and what was made without one is found from everywhere (hcomm v9.0.0,
// src/framework/op_base/src/op_base.cc:112-146).
std::shared_ptr<Group> Group::Find(const std::string& name) {
    Registry& registry = Communicators();
    std::lock_guard<std::mutex> lock(registry.mutex);
    for (const auto& [handle, communicator] : registry.by_handle) {
        const bool here = CurrentDevice() < 0 || communicator->device() < 0 ||
                          communicator->device() == CurrentDevice();
        if (here && communicator->name() == name) return communicator;
    }
    return nullptr;
}

Communicator::Communicator(std::string name, const std::string& token, uint32_t rank, uint32_t size,
                           uint32_t buffer_mb)
    : name_(std::move(name)),
      rank_(rank),
      size_(size),
      // A thread that has no device yet: the usual one of its rank.
      segment_(token, rank, size, PlaceOf(device_ < 0 ? static_cast<int>(rank) : device_),
               buffer_mb) {
    if (!segment_.error().empty()) return;
    for (uint32_t r = 0; r < size_; ++r) {
        device_windows_.push_back(MapWindow(segment_.window(r), segment_.mapped_bytes()));
    }
}

Communicator::~Communicator() {
    for (void* window : device_windows_) UnmapWindow(window);
    for (void* window : card_windows_) {
        if (window != nullptr) UnmapWindow(window);
    }
}

Window Communicator::window(uint32_t rank) const {
    return {device_windows_[rank], segment_.window(rank), segment_.window_bytes()};
}

bool Communicator::ReachesAll() const {
    for (uint32_t other = 0; other < size_; ++other) {
        if (!Reaches(other)) return false;
    }
    return true;
}

void* Communicator::AddressForCard(uint32_t rank) {
    if (!Reaches(rank)) return device_windows_[rank];
    card_windows_.resize(size_);
    if (card_windows_[rank] == nullptr)
        card_windows_[rank] = MapWindow(nullptr, segment_.mapped_bytes());
    return card_windows_[rank];
}

void* Communicator::ForCard(const void* device_address, size_t bytes) {
    const char* address = static_cast<const char*>(device_address);
    const size_t size = segment_.mapped_bytes();
    for (uint32_t rank = 0; rank < size_; ++rank) {
        const void* links = card_windows_.empty() ? nullptr : card_windows_[rank];
        for (const void* window : {static_cast<const void*>(device_windows_[rank]), links}) {
            const char* begin = static_cast<const char*>(window);
            if (begin == nullptr || address < begin || bytes > size ||
                static_cast<size_t>(address - begin) > size - bytes)
                continue;
            char* host = segment_.ForCard(rank);
            return host == nullptr ? nullptr : host + (address - begin);
        }
    }
    return nullptr;
}

int Communicator::Broken(const char* what, const std::string& why) {
    async_error_ = HCCL_E_REMOTE;
    // Not SUSPECT_REMOTE_ERROR: for that torch_npu 2.10 and older have a text of their own and
    // leave ours out.
    return Fail(ACL_ERROR_RT_AICPU_EXCEPTION, "%s on rank %u of group %s: %s", what, rank_,
                name_.c_str(), why.c_str());
}

int Communicator::KernelBarrier(const char* what) {
    std::lock_guard<std::mutex> lock(kernel_mutex);
    const std::string problem = segment_.Barrier(kKernels);
    return problem.empty() ? ACL_SUCCESS : Broken(what, problem);
}

HcclResult Enqueue(HcclComm comm, aclrtStream stream, const char* name,
                   std::function<int(Communicator&)> run) {
    const std::shared_ptr<Communicator> communicator = Lookup(comm);
    if (communicator == nullptr) {
        Fail(0, "%s: %p is no communicator", name, comm);
        return HCCL_E_PARA;
    }
    Launch(stream, name, [communicator, run = std::move(run)] {
        std::lock_guard<std::mutex> lock(communicator->collective_mutex);
        return run(*communicator);
    });
    return HCCL_SUCCESS;
}

size_t ElementBytes(HcclDataType type) {
    switch (type) {
        case HCCL_DATA_TYPE_INT16:
        case HCCL_DATA_TYPE_UINT16:
        case HCCL_DATA_TYPE_FP16:
        case HCCL_DATA_TYPE_BFP16:
            return 2;
        case HCCL_DATA_TYPE_INT32:
        case HCCL_DATA_TYPE_UINT32:
        case HCCL_DATA_TYPE_FP32:
            return 4;
        case HCCL_DATA_TYPE_INT64:
        case HCCL_DATA_TYPE_UINT64:
        case HCCL_DATA_TYPE_FP64:
            return 8;
        case HCCL_DATA_TYPE_INT128:
            return 16;
        default:
            return 1;
    }
}

}  // namespace standin

using standin::Communicators;
using standin::Fail;
using standin::Lookup;

extern "C" {

HcclResult HcclGetRootInfo(HcclRootInfo* root) {
    const std::string token = standin::Segment::Create();
    memset(root, 0, sizeof(*root));
    strcpy(root->internal, token.c_str());
    return token.empty() ? HCCL_E_SYSCALL : HCCL_SUCCESS;
}

HcclResult HcclCommInitRootInfo(uint32_t size, const HcclRootInfo* root, uint32_t rank,
                                HcclComm* comm) {
    return standin::Init(size, root, rank, nullptr, comm);
}

HcclResult HcclCommInitRootInfoConfig(uint32_t size, const HcclRootInfo* root, uint32_t rank,
                                      const HcclCommConfig* config, HcclComm* comm) {
    return standin::Init(size, root, rank, config, comm);
}

// Buffer size and determinism can be configured. From 3 on torch_npu would pass a name that is not
// unique between jobs.
uint32_t HcclGetCommConfigCapability() { return HCCL_COMM_CONFIG_DETERMINISTIC + 1; }

HcclResult HcclCommDestroy(HcclComm comm) {
    std::shared_ptr<standin::Communicator> last;  // destroyed after the lock is released
    standin::Communicators();
    std::lock_guard<std::mutex> lock(Communicators().mutex);
    const auto found = Communicators().by_handle.find(comm);
    if (found == Communicators().by_handle.end()) return HCCL_E_PARA;
    last = found->second;
    Communicators().by_handle.erase(found);
    return HCCL_SUCCESS;
}

HcclResult HcclGetCommName(HcclComm comm, char* name) {
    const auto communicator = Lookup(comm);
    if (communicator == nullptr) return HCCL_E_PARA;
    strncpy(name, communicator->name().c_str(), COMM_NAME_MAX_LENGTH - 1);
    name[COMM_NAME_MAX_LENGTH - 1] = '\0';
    return HCCL_SUCCESS;
}

HcclResult HcclGetRankSize(HcclComm comm, uint32_t* size) {
    const auto communicator = Lookup(comm);
    if (communicator == nullptr) return HCCL_E_PARA;
    *size = communicator->size();
    return HCCL_SUCCESS;
}

HcclResult HcclGetRankId(HcclComm comm, uint32_t* rank) {
    const auto communicator = Lookup(comm);
    if (communicator == nullptr) return HCCL_E_PARA;
    *rank = communicator->rank();
    return HCCL_SUCCESS;
}

HcclResult HcclGetCommAsyncError(HcclComm comm, HcclResult* error) {
    const auto communicator = Lookup(comm);
    if (communicator == nullptr) return HCCL_E_PARA;
    *error = communicator->async_error();
    return HCCL_SUCCESS;
}

HcclResult HcclSetConfig(HcclConfig, HcclConfigValue) { return HCCL_SUCCESS; }

}  // extern "C"
