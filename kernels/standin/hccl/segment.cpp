// See segment.h.
#include "segment.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace standin {
namespace {

constexpr size_t kPage = 4096;

size_t Pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

std::string Errno(const char* what) { return std::string(what) + ": " + strerror(errno); }

// Seconds that HCCL waits: for all ranks to connect, and for a collective to make progress.
int64_t ConnectTimeout() { return IntegerOption("HCCL_CONNECT_TIMEOUT", 120); }
int64_t ExecTimeout() { return IntegerOption("HCCL_EXEC_TIMEOUT", 1836); }

struct flock RankLock(uint32_t rank, short type) {
    struct flock lock = {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = rank;
    lock.l_len = 1;
    return lock;
}

}  // namespace

int64_t NowSeconds() {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

std::string Segment::Create() {
    const int file = memfd_create("ascend_moe_hccl", MFD_CLOEXEC);
    uint64_t nonce = 0;
    if (file < 0 || ftruncate(file, Pages(sizeof(Header))) != 0 ||
        getrandom(&nonce, sizeof(nonce), 0) < 0 ||
        pwrite(file, &nonce, sizeof(nonce), offsetof(Header, nonce)) != sizeof(nonce)) {
        Fail(0, "%s", Errno("cannot create the shared memory of a communicator").c_str());
        return "";
    }
    char token[96];
    snprintf(token, sizeof(token), "vnpu_%d_%d_%016" PRIx64, getpid(), file, nonce);
    return token;
}

Segment::Segment(const std::string& token, uint32_t rank, uint32_t size, Place place,
                 uint32_t buffer_mb)
    : rank_(rank), size_(size) {
    error_ = Open(token);
    if (!error_.empty()) return;
    RankState& own = state(rank_);
    own.buffer_mb = buffer_mb;
    own.place = place;
    own.joined.store(1, std::memory_order_release);
    Notify();
    const auto everyone = [this] {
        for (uint32_t r = 0; r < size_; ++r) {
            if (state(r).joined.load(std::memory_order_acquire) == 0) return false;
        }
        return true;
    };
    // Nobody is watched: a rank that has not come yet is not dead.
    error_ = WaitUntil(everyone, {}, ConnectTimeout());
    if (published_file_ >= 0)
        close(published_file_);  // everybody has a handle of their own, or never will
    if (!error_.empty()) {
        for (uint32_t r = 0; r < size_; ++r) {
            if (state(r).joined.load() == 0)
                error_ += ", rank " + std::to_string(r) + " has not come";
        }
        return;
    }
    error_ = MapWindows(buffer_mb);
}

std::string Segment::Open(const std::string& token) {
    int owner = 0;
    int descriptor = 0;
    uint64_t nonce = 0;
    if (sscanf(token.c_str(), "vnpu_%d_%d_%" SCNx64, &owner, &descriptor, &nonce) != 3) {
        return "the root info does not come from a virtual NPU";
    }
    const std::string path = "/proc/" + std::to_string(owner) + "/fd/" + std::to_string(descriptor);
    file_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file_ < 0) return Errno(("cannot open " + path).c_str());
    if (owner == getpid()) published_file_ = descriptor;
    control_bytes_ = Pages(sizeof(Header)) + Pages(sizeof(Channel) * size_ * size_);
    struct stat status;
    if (fstat(file_, &status) != 0) return Errno("fstat");
    // All ranks compute the same size, so it does not matter who is first.
    if (static_cast<size_t>(status.st_size) < control_bytes_ &&
        ftruncate(file_, control_bytes_) != 0) {
        return Errno("ftruncate");
    }
    void* control = mmap(nullptr, control_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (control == MAP_FAILED) return Errno("mmap");
    header_ = static_cast<Header*>(control);
    channels_ = reinterpret_cast<Channel*>(static_cast<char*>(control) + Pages(sizeof(Header)));
    if (header_->nonce != nonce) return path + " is not the communicator of the root info";
    struct flock lock = RankLock(rank_, F_WRLCK);
    if (fcntl(file_, F_OFD_SETLK, &lock) != 0)
        return "rank " + std::to_string(rank_) + " is taken by another process";
    return "";
}

std::string Segment::MapWindows(uint32_t buffer_mb) {
    for (uint32_t r = 0; r < size_; ++r) {
        if (state(r).buffer_mb == buffer_mb) continue;
        return "HCCL_BUFFSIZE differs: rank " + std::to_string(rank_) + " has " +
               std::to_string(buffer_mb) + " MB, rank " + std::to_string(r) + " has " +
               std::to_string(state(r).buffer_mb) + " MB";
    }
    window_bytes_ = size_t{2} * buffer_mb << 20;
    const size_t total = control_bytes_ + mapped_bytes() * size_;
    struct stat status;
    if (fstat(file_, &status) != 0) return Errno("fstat");
    if (static_cast<size_t>(status.st_size) < total && ftruncate(file_, total) != 0)
        return Errno("ftruncate");
    for (uint32_t r = 0; r < size_; ++r) {
        if (state(r).place.pod != state(rank_).place.pod) {
            windows_.push_back(nullptr);
            continue;
        }
        windows_.push_back(MapWindow(r));
        if (windows_.back() == nullptr) return Errno("mmap of a window");
    }
    card_windows_.resize(size_);
    return "";
}

char* Segment::MapWindow(uint32_t rank) {
    void* window = mmap(nullptr, mapped_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        file_, WindowOffset(rank));
    return window == MAP_FAILED ? nullptr : static_cast<char*>(window);
}

char* Segment::ForCard(uint32_t rank) {
    if (windows_[rank] != nullptr) return windows_[rank];
    std::lock_guard<std::mutex> lock(card_mutex_);
    if (card_windows_[rank] == nullptr) card_windows_[rank] = MapWindow(rank);
    if (card_windows_[rank] == nullptr)
        Fail(0, "%s", Errno("mmap of a window for the network card").c_str());
    return card_windows_[rank];
}

void Segment::Read(uint32_t rank, size_t offset, void* to, size_t bytes) const {
    if (windows_[rank] != nullptr) {
        memcpy(to, windows_[rank] + offset, bytes);
        return;
    }
    for (size_t done = 0; done < bytes;) {
        const ssize_t got = pread(file_, static_cast<char*>(to) + done, bytes - done,
                                  WindowOffset(rank) + offset + done);
        if (got <= 0) {  // the file is as long as all windows, and in memory
            fprintf(stderr, "[virtual NPU] %s\n", Errno("reading a window").c_str());
            abort();
        }
        done += got;
    }
}

const char* Segment::Read(uint32_t rank, size_t offset, size_t bytes,
                          std::vector<char>* memory) const {
    if (windows_[rank] != nullptr) return windows_[rank] + offset;
    memory->resize(bytes);
    Read(rank, offset, memory->data(), bytes);
    return memory->data();
}

Segment::~Segment() {
    for (const std::vector<char*>& mapped : {windows_, card_windows_}) {
        for (char* window : mapped) {
            if (window != nullptr) munmap(window, mapped_bytes());
        }
    }
    if (header_ != nullptr) {
        Notify();
        munmap(header_, control_bytes_);
    }
    if (file_ >= 0) close(file_);
}

bool Segment::Alive(uint32_t rank) const {
    if (rank == rank_) return true;
    struct flock lock = RankLock(rank, F_WRLCK);
    return fcntl(file_, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

std::string Segment::Missing(const std::vector<uint32_t>& peers) const {
    for (uint32_t peer : peers) {
        if (!Alive(peer)) return "rank " + std::to_string(peer) + " is gone";
    }
    return "";
}

void Segment::Notify() {
    header_->tick.fetch_add(1, std::memory_order_acq_rel);
    syscall(SYS_futex, &header_->tick, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Until somebody calls Notify, at most 50 ms, so that a dead peer is noticed.
void Segment::Sleep(uint32_t tick) const {
    const timespec limit = {0, 50 * 1000 * 1000};
    syscall(SYS_futex, &header_->tick, FUTEX_WAIT, tick, &limit, nullptr, 0);
}

std::string Segment::Barrier(BarrierChannel channel) {
    const uint32_t turn = state(rank_).arrived[channel].fetch_add(1, std::memory_order_acq_rel) + 1;
    Notify();
    const auto behind = [&](uint32_t r) {
        return static_cast<int32_t>(state(r).arrived[channel].load(std::memory_order_acquire) -
                                    turn) < 0;
    };
    for (uint32_t r = 0; r < size_; ++r) {
        const std::string problem = WaitUntil([&] { return !behind(r); }, {r}, ExecTimeout());
        if (!problem.empty()) return "waiting for rank " + std::to_string(r) + ": " + problem;
    }
    return "";
}

}  // namespace standin
