// Collectives of libhccl: each runs as a task of its stream, through the windows of the
// communicator.
//
// All of them follow one scheme, in as many rounds as the data needs:
//
//   post:   each rank copies its next piece into its own window
//   barrier
//   fetch:  each rank reads what it needs from the windows of the others
//   barrier (the windows may be overwritten)
//
// Before the first round the ranks compare what they are about to do; a mismatch, which hangs on
// hardware, is an error here.
#include <algorithm>
#include <cstring>

#include "communicator.h"
#include "element.h"

namespace standin {
namespace {

enum Kind : uint32_t {
    kAllReduce = 1,
    kReduce,
    kBroadcast,
    kAllGather,
    kReduceScatter,
    kScatter,
    kAllToAll,
    kBarrier
};

template <typename T>
void ReduceInto(char* target, const char* source, uint64_t count, HcclReduceOp op) {
    T* into = reinterpret_cast<T*>(target);
    const T* from = reinterpret_cast<const T*>(source);
    for (uint64_t i = 0; i < count; ++i) {
        switch (op) {
            case HCCL_REDUCE_PROD:
                into[i] = into[i] * from[i];
                break;
            case HCCL_REDUCE_MAX:
                into[i] = std::max(into[i], from[i]);
                break;
            case HCCL_REDUCE_MIN:
                into[i] = std::min(into[i], from[i]);
                break;
            default:
                into[i] = into[i] + from[i];
                break;
        }
    }
}

// Element-wise in the data type itself, as HCCL's in-place reduction does.
bool Reduce(char* target, const char* source, uint64_t count, HcclDataType type, HcclReduceOp op) {
    switch (type) {
        case HCCL_DATA_TYPE_INT8:
            ReduceInto<int8_t>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_INT16:
            ReduceInto<int16_t>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_INT32:
            ReduceInto<int32_t>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_INT64:
            ReduceInto<int64_t>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_UINT8:
            ReduceInto<uint8_t>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_FP16:
            ReduceInto<Float16>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_BFP16:
            ReduceInto<BFloat16>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_FP32:
            ReduceInto<float>(target, source, count, op);
            return true;
        case HCCL_DATA_TYPE_FP64:
            ReduceInto<double>(target, source, count, op);
            return true;
        default:
            return false;
    }
}

std::string Describe(const CollectiveCall& call, uint32_t rank) {
    constexpr const char* kNames[] = {"nothing",   "AllReduce", "Reduce",
                                      "Broadcast", "AllGather", "ReduceScatter",
                                      "Scatter",   "AlltoAll",  "Barrier"};
    return "rank " + std::to_string(rank) + " runs " + kNames[call.kind] + " of " +
           std::to_string(call.count) + " elements (data type " + std::to_string(call.type) +
           ", reduction " + std::to_string(call.reduce_op) + ", root " + std::to_string(call.root) +
           ")";
}

// One collective of one communicator, on the stream's thread.
class Exchange {
 public:
    Exchange(Communicator& communicator, const char* name)
        : communicator_(communicator),
          segment_(communicator.segment()),
          name_(name),
          rank_(communicator.rank()),
          size_(communicator.size()),
          scratch_bytes_(segment_.window_bytes() / 2) {}

    uint32_t rank() const { return rank_; }
    uint32_t size() const { return size_; }
    size_t scratch_bytes() const { return scratch_bytes_; }
    char* own() const { return segment_.window(rank_); }
    // What a rank has posted, until the next call.
    const char* of(uint32_t rank, size_t offset, size_t bytes) {
        return segment_.Read(rank, offset, bytes, &fetched_);
    }

    // True when all ranks are about to do the same.
    bool Agree(const CollectiveCall& call) {
        segment_.state(rank_).call = call;
        if (!Barrier()) return false;
        for (uint32_t r = 0; r < size_; ++r) {
            const CollectiveCall& other = segment_.state(r).call;
            if (memcmp(&other, &call, sizeof(call)) == 0) continue;
            const std::string text =
                "the ranks disagree: " + Describe(call, rank_) + ", " + Describe(other, r);
            return Break(text);
        }
        return Barrier();
    }

    // Rounds until no rank has more to post. post() returns whether the rank needs another round
    // after this one.
    template <typename Post, typename Fetch>
    int Rounds(Post post, Fetch fetch) {
        for (bool more = true; more;) {
            segment_.state(rank_).more = post() ? 1 : 0;
            if (!Barrier()) return status_;
            more = false;
            for (uint32_t r = 0; r < size_; ++r) more = more || segment_.state(r).more != 0;
            if (!fetch() || !Barrier()) return status_;
        }
        return ACL_SUCCESS;
    }

    bool Barrier() {
        const std::string problem = segment_.Barrier(kCollectives);
        return problem.empty() || Break(problem);
    }
    bool Break(const std::string& why) {
        status_ = communicator_.Broken(name_, why);
        return false;
    }
    int status() const { return status_; }

 private:
    Communicator& communicator_;
    Segment& segment_;
    const char* name_;
    const uint32_t rank_;
    const uint32_t size_;
    const size_t scratch_bytes_;
    int status_ = ACL_SUCCESS;
    std::vector<char> fetched_;
};

// ---- the four shapes of a collective
// --------------------------------------------------------------------------------

struct Buffers {
    const char* send;  // host addresses; null when there is nothing
    char* receive;
};

// Every rank contributes `bytes`; `combine(rank, offset, window, piece)` is called for each rank's
// piece, ranks ascending.
template <typename Combine>
int Gather(Exchange& exchange, const char* send, size_t bytes, bool contributes, Combine combine) {
    const size_t piece_bytes = exchange.scratch_bytes() / 64 * 64;
    size_t offset = 0;
    size_t piece = 0;
    return exchange.Rounds(
        [&] {
            piece = std::min(piece_bytes, bytes - offset);
            if (contributes) memcpy(exchange.own(), send + offset, piece);
            return offset + piece < bytes;
        },
        [&] {
            for (uint32_t r = 0; r < exchange.size(); ++r) {
                if (!combine(r, offset, exchange.of(r, 0, piece), piece)) return false;
            }
            offset += piece;
            return true;
        });
}

// Every rank has one block per rank; rank r receives block r of every rank. Blocks may differ in
// size.
struct Blocks {
    std::vector<uint64_t> send_bytes, send_offset, receive_bytes, receive_offset;
};

template <typename Take>
int Transpose(Exchange& exchange, const Buffers& buffers, const Blocks& blocks, Take take) {
    // The window has a header of two sizes per destination (all bytes, bytes in this round) and one
    // slice per destination.
    const uint32_t size = exchange.size();
    const size_t header = (size * 2 * sizeof(uint64_t) + 63) / 64 * 64;
    const size_t slice = (exchange.scratch_bytes() - header) / size / 64 * 64;
    size_t done = 0;  // bytes of every block handled in earlier rounds
    return exchange.Rounds(
        [&] {
            uint64_t* sizes = reinterpret_cast<uint64_t*>(exchange.own());
            bool more = false;
            for (uint32_t r = 0; r < size; ++r) {
                const uint64_t total = blocks.send_bytes[r];
                const uint64_t piece =
                    std::min<uint64_t>(slice, total - std::min<uint64_t>(done, total));
                sizes[2 * r] = total;
                sizes[2 * r + 1] = piece;
                if (piece > 0) {
                    memcpy(exchange.own() + header + r * slice,
                           buffers.send + blocks.send_offset[r] + done, piece);
                }
                more = more || done + piece < total;
            }
            return more;
        },
        [&] {
            for (uint32_t r = 0; r < size; ++r) {
                uint64_t sizes[2];
                memcpy(sizes, exchange.of(r, sizeof(sizes) * exchange.rank(), sizeof(sizes)),
                       sizeof(sizes));
                if (sizes[0] != blocks.receive_bytes[r]) {
                    return exchange.Break("rank " + std::to_string(r) + " sends " +
                                          std::to_string(sizes[0]) + " bytes to rank " +
                                          std::to_string(exchange.rank()) + ", which expects " +
                                          std::to_string(blocks.receive_bytes[r]));
                }
                if (sizes[1] == 0) continue;
                take(r, blocks.receive_offset[r] + done,
                     exchange.of(r, header + exchange.rank() * slice, sizes[1]), sizes[1]);
            }
            done += slice;
            return true;
        });
}

// ---- entry
// ----------------------------------------------------------------------------------------------------------

// Translates a buffer; `bytes` 0 needs none.
bool Resolve(const char* name, const void* address, size_t bytes, char** host) {
    *host = nullptr;
    if (bytes == 0) return true;
    *host = static_cast<char*>(HostAddress(address, bytes));
    if (*host == nullptr)
        Fail(0, "%s: %p (%zu bytes) is not in device memory", name, address, bytes);
    return *host != nullptr;
}

HcclResult Submit(HcclComm comm, aclrtStream stream, const char* name, const CollectiveCall& call,
                  std::function<int(Exchange&)> run) {
    return LaunchCollective(stream, [=] {
        return Enqueue(comm, stream, name, [=](Communicator& communicator) {
            Exchange exchange(communicator, name);
            return exchange.Agree(call) ? run(exchange) : exchange.status();
        });
    });
}

HcclResult SubmitReduction(Kind kind, const char* name, void* send, void* receive, uint64_t count,
                           HcclDataType type, HcclReduceOp op, uint32_t root, HcclComm comm,
                           aclrtStream stream) {
    const size_t bytes = count * ElementBytes(type);
    char* from;
    char* to;
    if (!Resolve(name, send, bytes, &from)) return HCCL_E_PTR;
    if (!Resolve(name, receive, bytes, &to)) return HCCL_E_PTR;
    return Submit(comm, stream, name, {kind, type, op, root, count}, [=](Exchange& exchange) {
        const bool receives = kind == kAllReduce || exchange.rank() == root;
        return Gather(
            exchange, from, bytes, true,
            [&](uint32_t r, size_t offset, const char* window, size_t piece) {
                if (!receives) return true;
                if (r == 0) {
                    memcpy(to + offset, window, piece);
                    return true;
                }
                return Reduce(to + offset, window, piece / ElementBytes(type), type, op) ||
                       exchange.Break("no reduction for data type " + std::to_string(type));
            });
    });
}

HcclResult SubmitAllToAll(const char* name, const void* send, const void* receive, Blocks blocks,
                          HcclDataType type, HcclComm comm, aclrtStream stream) {
    Buffers buffers;
    char* from;
    size_t send_span = 0;
    size_t receive_span = 0;
    for (size_t r = 0; r < blocks.send_bytes.size(); ++r) {
        send_span = std::max<size_t>(send_span, blocks.send_offset[r] + blocks.send_bytes[r]);
        receive_span =
            std::max<size_t>(receive_span, blocks.receive_offset[r] + blocks.receive_bytes[r]);
    }
    if (!Resolve(name, send, send_span, &from) ||
        !Resolve(name, receive, receive_span, &buffers.receive))
        return HCCL_E_PTR;
    buffers.send = from;
    return Submit(comm, stream, name, {kAllToAll, type, 0, 0, 0}, [=](Exchange& exchange) {
        return Transpose(exchange, buffers, blocks,
                         [&](uint32_t, size_t offset, const char* window, size_t piece) {
                             memcpy(buffers.receive + offset, window, piece);
                         });
    });
}

uint32_t SizeOf(HcclComm comm) {
    uint32_t size = 0;
    return HcclGetRankSize(comm, &size) == HCCL_SUCCESS ? size : 0;
}

std::vector<uint64_t> Scaled(const void* counts, uint32_t size, size_t bytes) {
    const uint64_t* values = static_cast<const uint64_t*>(counts);
    std::vector<uint64_t> scaled(values, values + size);
    for (uint64_t& value : scaled) value *= bytes;
    return scaled;
}

std::vector<uint64_t> Multiples(uint32_t size, uint64_t step) {
    std::vector<uint64_t> values(size);
    for (uint32_t r = 0; r < size; ++r) values[r] = r * step;
    return values;
}

}  // namespace
}  // namespace standin

using namespace standin;

extern "C" {

HcclResult HcclAllReduce(void* send, void* receive, uint64_t count, HcclDataType type,
                         HcclReduceOp op, HcclComm comm, aclrtStream stream) {
    return SubmitReduction(kAllReduce, "HcclAllReduce", send, receive, count, type, op, 0, comm,
                           stream);
}

HcclResult HcclReduce(void* send, void* receive, uint64_t count, HcclDataType type, HcclReduceOp op,
                      uint32_t root, HcclComm comm, aclrtStream stream) {
    return SubmitReduction(kReduce, "HcclReduce", send, receive, count, type, op, root, comm,
                           stream);
}

HcclResult HcclBroadcast(void* buffer, uint64_t count, HcclDataType type, uint32_t root,
                         HcclComm comm, aclrtStream stream) {
    const size_t bytes = count * ElementBytes(type);
    char* host;
    if (!Resolve("HcclBroadcast", buffer, bytes, &host)) return HCCL_E_PTR;
    return Submit(
        comm, stream, "HcclBroadcast", {kBroadcast, type, 0, root, count}, [=](Exchange& exchange) {
            const bool sends = exchange.rank() == root;
            return Gather(exchange, host, bytes, sends,
                          [&](uint32_t r, size_t offset, const char* window, size_t piece) {
                              if (r == root && !sends) memcpy(host + offset, window, piece);
                              return true;
                          });
        });
}

HcclResult HcclAllGather(void* send, void* receive, uint64_t count, HcclDataType type,
                         HcclComm comm, aclrtStream stream) {
    const size_t bytes = count * ElementBytes(type);
    char* from;
    char* to;
    if (!Resolve("HcclAllGather", send, bytes, &from)) return HCCL_E_PTR;
    if (!Resolve("HcclAllGather", receive, bytes * SizeOf(comm), &to)) return HCCL_E_PTR;
    return Submit(
        comm, stream, "HcclAllGather", {kAllGather, type, 0, 0, count}, [=](Exchange& exchange) {
            return Gather(exchange, from, bytes, true,
                          [&](uint32_t r, size_t offset, const char* window, size_t piece) {
                              memcpy(to + r * bytes + offset, window, piece);
                              return true;
                          });
        });
}

HcclResult HcclAllGatherV(void* send, uint64_t count, void* receive, const void* receive_counts,
                          const void* displacements, HcclDataType type, HcclComm comm,
                          aclrtStream stream) {
    const uint32_t size = SizeOf(comm);
    const size_t width = ElementBytes(type);
    const Blocks blocks = {std::vector<uint64_t>(size, count * width),
                           std::vector<uint64_t>(size, 0), Scaled(receive_counts, size, width),
                           Scaled(displacements, size, width)};
    return SubmitAllToAll("HcclAllGatherV", send, receive, blocks, type, comm, stream);
}

HcclResult HcclReduceScatterV(void* send, const void* send_counts, const void* displacements,
                              void* receive, uint64_t receive_count, HcclDataType type,
                              HcclReduceOp op, HcclComm comm, aclrtStream stream) {
    const char* name = "HcclReduceScatterV";
    const uint32_t size = SizeOf(comm);
    const size_t width = ElementBytes(type);
    const size_t bytes = receive_count * width;
    const Blocks blocks = {Scaled(send_counts, size, width), Scaled(displacements, size, width),
                           std::vector<uint64_t>(size, bytes), std::vector<uint64_t>(size, 0)};
    size_t span = 0;
    for (uint32_t r = 0; r < size; ++r)
        span = std::max<size_t>(span, blocks.send_offset[r] + blocks.send_bytes[r]);
    char* from;
    char* to;
    if (!Resolve(name, send, span, &from) || !Resolve(name, receive, bytes, &to)) return HCCL_E_PTR;
    return Submit(comm, stream, name, {kReduceScatter, type, op, 0, 0}, [=](Exchange& exchange) {
        bool known = true;
        const int status =
            Transpose(exchange, {from, to}, blocks,
                      [&](uint32_t r, size_t offset, const char* window, size_t piece) {
                          if (r == 0) {
                              memcpy(to + offset, window, piece);
                          } else {
                              known = known && Reduce(to + offset, window, piece / width, type, op);
                          }
                      });
        if (!known) exchange.Break("no reduction for data type " + std::to_string(type));
        return known ? status : exchange.status();
    });
}

HcclResult HcclReduceScatter(void* send, void* receive, uint64_t count, HcclDataType type,
                             HcclReduceOp op, HcclComm comm, aclrtStream stream) {
    const std::vector<uint64_t> counts(SizeOf(comm), count);
    const std::vector<uint64_t> displacements = Multiples(SizeOf(comm), count);
    return HcclReduceScatterV(send, counts.data(), displacements.data(), receive, count, type, op,
                              comm, stream);
}

HcclResult HcclScatter(void* send, void* receive, uint64_t count, HcclDataType type, uint32_t root,
                       HcclComm comm, aclrtStream stream) {
    uint32_t rank = 0;
    if (HcclGetRankId(comm, &rank) != HCCL_SUCCESS) return HCCL_E_PARA;
    const uint32_t size = SizeOf(comm);
    const size_t bytes = count * ElementBytes(type);
    Blocks blocks = {std::vector<uint64_t>(size, rank == root ? bytes : 0),
                     Multiples(size, rank == root ? bytes : 0), std::vector<uint64_t>(size, 0),
                     std::vector<uint64_t>(size, 0)};
    blocks.receive_bytes[root] = bytes;
    return SubmitAllToAll("HcclScatter", send, receive, blocks, type, comm, stream);
}

HcclResult HcclAlltoAll(const void* send, uint64_t send_count, HcclDataType send_type,
                        const void* receive, uint64_t receive_count, HcclDataType receive_type,
                        HcclComm comm, aclrtStream stream) {
    const uint32_t size = SizeOf(comm);
    const uint64_t out = send_count * ElementBytes(send_type);
    const uint64_t in = receive_count * ElementBytes(receive_type);
    const Blocks blocks = {std::vector<uint64_t>(size, out), Multiples(size, out),
                           std::vector<uint64_t>(size, in), Multiples(size, in)};
    return SubmitAllToAll("HcclAlltoAll", send, receive, blocks, send_type, comm, stream);
}

HcclResult HcclAlltoAllV(const void* send, const void* send_counts, const void* send_displacements,
                         HcclDataType send_type, const void* receive, const void* receive_counts,
                         const void* receive_displacements, HcclDataType receive_type,
                         HcclComm comm, aclrtStream stream) {
    const uint32_t size = SizeOf(comm);
    const size_t out = ElementBytes(send_type);
    const size_t in = ElementBytes(receive_type);
    const Blocks blocks = {Scaled(send_counts, size, out), Scaled(send_displacements, size, out),
                           Scaled(receive_counts, size, in),
                           Scaled(receive_displacements, size, in)};
    return SubmitAllToAll("HcclAlltoAllV", send, receive, blocks, send_type, comm, stream);
}

HcclResult HcclBarrier(HcclComm comm, aclrtStream stream) {
    return Submit(comm, stream, "HcclBarrier", {kBarrier, 0, 0, 0, 0},
                  [](Exchange& exchange) { return exchange.status(); });
}

}  // extern "C"
