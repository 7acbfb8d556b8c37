// See executors.h.
#include "executors.h"

#include <memory>
#include <mutex>
#include <unordered_map>

namespace ascend_moe {
namespace {

struct Registry {
    std::mutex mutex;
    std::unordered_map<aclOpExecutor*, std::unique_ptr<Prepared>> prepared;
};

// Leaked: torch_npu's queue may still run while static objects are destroyed.
Registry& Executors() {
    static Registry* registry = new Registry();
    return *registry;
}

}  // namespace

aclOpExecutor* Remember(Prepared prepared) {
    auto owned = std::make_unique<Prepared>(std::move(prepared));
    const auto handle = reinterpret_cast<aclOpExecutor*>(owned.get());
    Registry& registry = Executors();
    std::lock_guard<std::mutex> lock(registry.mutex);
    registry.prepared[handle] = std::move(owned);
    return handle;
}

bool Take(aclOpExecutor* executor, Prepared* prepared) {
    Registry& registry = Executors();
    std::lock_guard<std::mutex> lock(registry.mutex);
    const auto found = registry.prepared.find(executor);
    if (found == registry.prepared.end()) return false;
    *prepared = std::move(*found->second);
    registry.prepared.erase(found);
    return true;
}

}  // namespace ascend_moe
