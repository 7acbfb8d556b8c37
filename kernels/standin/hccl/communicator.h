// A communicator of this process. See communicator.cpp.
#pragma once

#include <memory>
#include <string>

#include "hccl/hccl.h"
#include "segment.h"
#include "standin.h"

namespace standin {

class Communicator : public Group {
 public:
    Communicator(std::string name, const std::string& token, uint32_t rank, uint32_t size,
                 uint32_t buffer_mb);
    ~Communicator() override;

    uint32_t rank() const override { return rank_; }
    uint32_t size() const override { return size_; }
    Window window(uint32_t rank) const override;
    Place place(uint32_t rank) const override { return segment_.state(rank).place; }
    void Receive(uint32_t rank, size_t offset, void* to, size_t bytes) const override {
        segment_.Read(rank, offset, to, bytes);
    }
    void* ForCard(const void* device_address, size_t bytes) override;
    bool Alive(uint32_t rank) const override { return segment_.Alive(rank); }
    int KernelBarrier(const char* what) override;

    const std::string& name() const { return name_; }
    int device() const { return device_; }
    Segment& segment() { return segment_; }
    bool ReachesAll() const;
    // Of the window of another rank: for a network card, whether a core reaches it or not.
    void* AddressForCard(uint32_t rank);
    // The stream error of a collective that could not go on; also what HcclGetCommAsyncError
    // reports from then on.
    int Broken(const char* what, const std::string& why);
    HcclResult async_error() const { return async_error_; }

    // Taken for the length of a collective and of a kernel exchange: each uses its barrier channel
    // alone.
    std::mutex collective_mutex;
    std::mutex kernel_mutex;
    std::mutex links_mutex;  // the same for building links

 private:
    const std::string name_;
    const int device_ = CurrentDevice();  // on which it was made
    const uint32_t rank_;
    const uint32_t size_;
    Segment segment_;
    std::vector<void*> device_windows_;
    std::vector<void*> card_windows_;  // of ranks within reach, once asked for
    std::atomic<HcclResult> async_error_{HCCL_SUCCESS};
};

// Queues a collective; `run` is called on the stream's thread with the communicator locked for
// collectives.
HcclResult Enqueue(HcclComm comm, aclrtStream stream, const char* name,
                   std::function<int(Communicator&)> run);

// HcclGroupStart and HcclGroupEnd, which torch_npu looks up in libhcomm (call_group.cpp).
void OpenCallGroup();
HcclResult CloseCallGroup();
bool InCallGroup();
// Now, or when the thread's group ends.
HcclResult LaunchCollective(aclrtStream stream, std::function<HcclResult()> launch);
HcclResult SubmitCollectedMessages();

size_t ElementBytes(HcclDataType type);

}  // namespace standin
