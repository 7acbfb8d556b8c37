// HcclSend, HcclRecv, HcclBatchSendRecv and message groups: messages between two ranks, also
// through the sender's window.
//
// The second half of a window is divided into one slice per destination, so that messages to
// several ranks can be under way at once. A message goes through its slice in pieces: the sender
// fills it and raises `sent`, the receiver empties it and raises `received`. All messages of a
// batch make progress in turn, so their order does not matter.
#include <algorithm>
#include <cstring>

#include "communicator.h"

namespace standin {
namespace {

struct Message {
    bool sends;
    char* host;
    size_t bytes;
    uint32_t peer;
    size_t done = 0;
    bool posted = false;  // a sent piece that the peer has not taken yet
};

class Mailbox {
 public:
    explicit Mailbox(Communicator& communicator)
        : communicator_(communicator),
          segment_(communicator.segment()),
          rank_(communicator.rank()) {
        slice_ = segment_.window_bytes() / 2 / communicator.size() / 64 * 64;
    }

    int Run(std::vector<Message> messages, const char* name) {
        std::vector<uint32_t> peers;
        for (const Message& message : messages) peers.push_back(message.peer);
        const auto done = [&] {
            bool all = true;
            bool moved = false;
            for (Message& message : messages) {
                moved = (message.sends ? Send(message) : Receive(message)) || moved;
                all = all && Complete(message);
            }
            if (moved) segment_.Notify();
            return all;
        };
        const std::string problem =
            segment_.WaitUntil(done, peers, IntegerOption("HCCL_EXEC_TIMEOUT", 1836));
        if (!mismatch_.empty()) return communicator_.Broken(name, mismatch_);
        return problem.empty() ? ACL_SUCCESS : communicator_.Broken(name, problem);
    }

 private:
    bool Complete(const Message& message) const {
        return !mismatch_.empty() || (message.done == message.bytes && !message.posted);
    }

    // In the sender's window.
    size_t SliceFor(uint32_t rank) const { return segment_.window_bytes() / 2 + rank * slice_; }

    // Both return whether they moved something.
    bool Send(Message& message) {
        Channel& channel = segment_.channel(rank_, message.peer);
        bool moved = false;
        if (message.posted &&
            channel.received.load(std::memory_order_acquire) == channel.sent.load()) {
            message.posted = false;
            moved = true;
        }
        if (message.posted || message.done == message.bytes) return moved;
        const size_t piece = std::min(slice_, message.bytes - message.done);
        memcpy(segment_.window(rank_) + SliceFor(message.peer), message.host + message.done, piece);
        message.done += piece;
        message.posted = true;
        channel.bytes = piece;
        channel.sent.fetch_add(1, std::memory_order_release);
        return true;
    }

    bool Receive(Message& message) {
        Channel& channel = segment_.channel(message.peer, rank_);
        if (message.done == message.bytes) return false;
        if (channel.sent.load(std::memory_order_acquire) == channel.received.load()) return false;
        if (channel.bytes > message.bytes - message.done) {
            mismatch_ = "rank " + std::to_string(message.peer) + " sends more than the " +
                        std::to_string(message.bytes) + " bytes that rank " +
                        std::to_string(rank_) + " expects";
            return true;
        }
        segment_.Read(message.peer, SliceFor(rank_), message.host + message.done, channel.bytes);
        message.done += channel.bytes;
        channel.received.fetch_add(1, std::memory_order_release);
        return true;
    }

    Communicator& communicator_;
    Segment& segment_;
    const uint32_t rank_;
    size_t slice_;
    std::string mismatch_;
};

// The messages of a group of calls make progress together.
struct Collected {
    HcclComm comm;
    aclrtStream stream;
    std::vector<HcclSendRecvItem> items;
};
thread_local std::vector<Collected> collected;

void Collect(const HcclSendRecvItem& item, HcclComm comm, aclrtStream stream) {
    for (Collected& batch : collected) {
        if (batch.comm == comm && batch.stream == stream) {
            batch.items.push_back(item);
            return;
        }
    }
    collected.push_back({comm, stream, {item}});
}

HcclResult Submit(const HcclSendRecvItem* items, uint32_t count, const char* name, HcclComm comm,
                  aclrtStream stream) {
    std::vector<Message> messages;
    for (uint32_t i = 0; i < count; ++i) {
        const size_t bytes = items[i].count * ElementBytes(items[i].dataType);
        if (bytes == 0) continue;
        char* host = static_cast<char*>(HostAddress(items[i].buf, bytes));
        if (host == nullptr) {
            Fail(0, "%s: %p (%zu bytes) is not in device memory", name, items[i].buf, bytes);
            return HCCL_E_PTR;
        }
        messages.push_back({items[i].sendRecvType == HCCL_SEND, host, bytes, items[i].remoteRank});
    }
    // Not under the lock of the collectives: a send may wait for a peer that is in another
    // collective of the group.
    return Enqueue(comm, stream, name, [=](Communicator& communicator) {
        return Mailbox(communicator).Run(messages, name);
    });
}

HcclResult SubmitOne(const HcclSendRecvItem& item, const char* name, HcclComm comm,
                     aclrtStream stream) {
    if (!InCallGroup()) return Submit(&item, 1, name, comm, stream);
    Collect(item, comm, stream);
    return HCCL_SUCCESS;
}

}  // namespace

HcclResult SubmitCollectedMessages() {
    HcclResult first = HCCL_SUCCESS;
    for (const Collected& batch : collected) {
        const HcclResult result = Submit(batch.items.data(), batch.items.size(), "HcclGroupEnd",
                                         batch.comm, batch.stream);
        if (first == HCCL_SUCCESS) first = result;
    }
    collected.clear();
    return first;
}

}  // namespace standin

extern "C" {

HcclResult HcclSend(void* buffer, uint64_t count, HcclDataType type, uint32_t peer, HcclComm comm,
                    aclrtStream stream) {
    const HcclSendRecvItem item = {HCCL_SEND, buffer, count, type, peer};
    return standin::SubmitOne(item, "HcclSend", comm, stream);
}

HcclResult HcclRecv(void* buffer, uint64_t count, HcclDataType type, uint32_t peer, HcclComm comm,
                    aclrtStream stream) {
    const HcclSendRecvItem item = {HCCL_RECV, buffer, count, type, peer};
    return standin::SubmitOne(item, "HcclRecv", comm, stream);
}

HcclResult HcclBatchSendRecv(HcclSendRecvItem* items, uint32_t count, HcclComm comm,
                             aclrtStream stream) {
    return standin::Submit(items, count, "HcclBatchSendRecv", comm, stream);
}

}  // extern "C"
