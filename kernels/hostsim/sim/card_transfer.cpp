// What a card does with what it was told of: takes elements, reads sources, lands pieces, moves
// tails.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "card.h"
#include "core.h"
#include "world.h"

namespace hostsim {

using ascend_moe::SendElement;

namespace {

constexpr uint64_t kWord = 8;  // lands whole
constexpr int kFirstCuts = 3, kRestCuts = 5;
constexpr uint64_t kBursts = 3, kBurstSizes = 9;  // one turn in three is one of 1 to 256 steps

std::string Range(uint64_t address, uint64_t bytes) {
    char text[64];
    std::snprintf(text, sizeof text, "%llu bytes at 0x%llx", static_cast<unsigned long long>(bytes),
                  static_cast<unsigned long long>(address));
    return text;
}

uint32_t Shift(uint32_t depth) {
    uint32_t shift = 0;
    while (1u << shift < depth) ++shift;
    return shift;
}

}  // namespace

const hostsim_region* Cards::FindRegion(int rank, uint32_t key, bool remote, uint64_t address,
                                        uint64_t bytes) const {
    for (const hostsim_region& region : regions_) {
        if (region.rank == rank && (remote ? region.remote_key : region.local_key) == key &&
            address >= region.address && bytes <= region.bytes &&
            address - region.address <= region.bytes - bytes)
            return &region;
    }
    return nullptr;
}

// The bytes of a range that lies in a region of the rank; and who wrote them, where that is known.
uint8_t* Cards::HostBytes(int rank, uint64_t address, uint64_t bytes, uint8_t** written) const {
    *written = nullptr;
    for (const hostsim_region& region : regions_) {
        if (region.rank == rank && region.host != nullptr && address >= region.address &&
            address - region.address < region.bytes)
            return static_cast<uint8_t*>(region.host) + (address - region.address);
    }
    Allocation* a = world_->memory.Find(address, bytes);
    if (a == nullptr) return nullptr;
    if (a->Tracked()) *written = a->written.get() + (address - a->base);
    return a->host + (address - a->base);
}

bool Cards::Element(const Queue& queue, uint32_t number, SendElement* element) const {
    const uint64_t slot = number % queue.given.depth;
    return world_->memory.HostRead(queue.given.buffer + slot * queue.given.element_bytes, element,
                                   sizeof(*element), nullptr);
}

// Why the card refuses an element; empty if it does not.
std::string Cards::Refusal(const Queue& queue, uint32_t number, const SendElement& element) const {
    const uint32_t round = number >> Shift(queue.given.depth) & 1;
    if ((element.control >> ascend_moe::kOwnerShift & 1) != 1 - round)
        return "the owner bit is that of another round: what the card reads is not the new element";
    if ((element.control & ascend_moe::kOpMask) != ascend_moe::kOpWrite)
        return "the operation is not a write";
    if ((element.control & ascend_moe::kSignalled) == 0)
        return "no completion is asked for, so the tail never passes it";
    if (element.sources != 1u << ascend_moe::kSourcesShift || element.first_source != 0)
        return "not one source";
    if (element.bytes == 0 || element.bytes != element.source_bytes)
        return std::to_string(element.bytes) + " bytes from a source of " +
               std::to_string(element.source_bytes);
    for (const bool remote : {false, true}) {
        const uint32_t key = remote ? element.remote_key : element.local_key;
        const uint64_t address = remote ? element.remote : element.local;
        const int rank = remote ? queue.given.peer : queue.given.rank;
        uint8_t* written;
        if (FindRegion(rank, key, remote, address, element.bytes) == nullptr ||
            HostBytes(rank, address, element.bytes, &written) == nullptr)
            return Range(address, element.bytes) + " are in no region of rank " +
                   std::to_string(rank) + " with " + (remote ? "remote" : "local") + " key " +
                   std::to_string(key);
    }
    return "";
}

void Cards::Take(Queue& queue) {
    const uint32_t number = queue.taken;
    const Poster poster = queue.posters.front();
    SendElement element;
    if (!Element(queue, number, &element)) element = {};
    if (queue.given.delivers >= 0 && queue.given.delivers-- == 0) return Die(queue);
    const std::string refusal = Refusal(queue, number, element);
    if (!refusal.empty()) {
        Report("card", queue, poster, "element " + std::to_string(number) + ": " + refusal);
        return Die(queue);
    }
    ++queue.taken;
    queue.posters.pop_front();
    world_->CountMessage(poster.launch, element.bytes);
    queue.messages.push_back({number, element.local, element.remote, element.bytes, poster, {}});
    Cut(queue, queue.messages.back());
}

// The first fragment and the rest, each in a few pieces: words of it may land together or apart.
void Cards::Cut(const Queue& queue, Message& message) const {
    const auto cut = [&](uint64_t from, uint64_t end, int cuts, bool first) {
        for (; from < end; --cuts) {
            const uint64_t words = (message.to + end - 1) / kWord - (message.to + from) / kWord;
            uint64_t to = end;
            if (cuts > 0 && words > 0)
                to = ((message.to + from) / kWord + 1 + world_->Random(words)) * kWord - message.to;
            message.pieces.push_back({from, to - from, first, false, {}});
            from = to;
        }
    };
    const uint64_t begun = queue.by_address ? message.to % queue.fragment : 0;
    const uint64_t first = std::min(message.bytes, queue.fragment - begun);
    const bool whole = !world_->checks;
    cut(0, first, whole ? 0 : kFirstCuts, true);
    cut(first, message.bytes, whole ? 0 : kRestCuts, false);
}

void Cards::ReadPiece(const Queue& queue, const Message& message, Piece& piece) {
    uint8_t* written;
    const uint8_t* from =
        HostBytes(queue.given.rank, message.from + piece.offset, piece.bytes, &written);
    piece.data.assign(from, from + piece.bytes);
    piece.read = true;
    if (written != nullptr && world_->checks && std::memchr(written, 0, piece.bytes) != nullptr)
        Report(
            "uninit", queue, message.poster,
            "the card reads a source that nobody wrote, message " + std::to_string(message.number));
}

// Words whole, in ascending order and after everything that landed before: the receiver may be
// another process.
void Cards::LandPiece(const Queue& queue, const Message& message, const Piece& piece) {
    const uint64_t address = message.to + piece.offset;
    uint8_t* written;
    uint8_t* to = HostBytes(queue.given.peer, address, piece.bytes, &written);
    for (uint64_t at = 0; at < piece.bytes;) {
        if ((address + at) % kWord == 0 && piece.bytes - at >= kWord) {
            uint64_t word;
            std::memcpy(&word, piece.data.data() + at, kWord);
            __atomic_store_n(reinterpret_cast<uint64_t*>(to + at), word, __ATOMIC_RELEASE);
            at += kWord;
        } else {
            __atomic_store_n(to + at, piece.data[at], __ATOMIC_RELEASE);
            ++at;
        }
    }
    if (written != nullptr) std::memset(written, 1, piece.bytes);
    world_->Landed(address, address + piece.bytes);
}

// One piece of one message is read or lands, most often of the message in front.
void Cards::Progress(Queue& queue) {
    size_t which = world_->Chance(2) ? 0 : world_->Random(queue.messages.size());
    size_t at = world_->Random(queue.messages[which].pieces.size());
    if (which != 0 &&
        (queue.messages[which].pieces.empty() || queue.messages[which].pieces[at].first)) {
        which = 0;  // it has to wait for those before
        at = world_->Random(queue.messages[which].pieces.size());
    }
    Message& message = queue.messages[which];
    Piece& piece = message.pieces[at];
    if (!piece.read) {
        ReadPiece(queue, message, piece);
        if (world_->checks && world_->Chance(2)) return;
    }
    LandPiece(queue, message, piece);
    message.pieces.erase(message.pieces.begin() + at);
    while (!queue.messages.empty() && queue.messages.front().pieces.empty()) {
        queue.messages.pop_front();
        ++queue.delivered;
    }
}

// A jump of any length. False if the tail is where it can be.
bool Cards::MoveTail(Queue& queue) {
    const uint32_t behind = queue.delivered - queue.completed;
    if (behind == 0) return false;
    queue.completed += world_->checks ? 1 + world_->Random(behind) : behind;
    world_->memory.HostWrite(queue.given.tail, &queue.completed, sizeof(queue.completed), true);
    world_->Landed(queue.given.tail, queue.given.tail + sizeof(queue.completed));
    return true;
}

// False if the queue can do nothing.
bool Cards::DoOne(Queue& queue) {
    const bool has_new = !queue.dead && queue.taken != queue.announced;
    const bool tail_may =
        queue.delivered != queue.completed && (!queue.late_tail || queue.Full() || !world_->checks);
    if (tail_may && ((!has_new && queue.messages.empty()) || world_->Chance(8)))
        return MoveTail(queue);
    if (has_new && (queue.messages.empty() || world_->Chance(3))) return Take(queue), true;
    if (!queue.messages.empty()) return Progress(queue), true;
    return false;
}

// By the clock a queue sends one message after the other, part by part, in turn with the other
// queues of its card; a message lands when its last part is across.
void Cards::Take(Timeline::CardStep step, uint32_t index) {
    Queue& queue = *queues_[index];
    Timeline& timeline = *world_->timeline;
    switch (step) {
        case Timeline::CardStep::kTake: {
            queue.taking = !queue.dead && queue.taken != queue.announced;
            if (!queue.taking) return;
            Take(queue);
            queue.next = timeline.Now() + timeline.NextMessage();
            queue.unsent = queue.dead ? 0 : queue.messages.back().bytes;
            timeline.PlanCard(Timeline::CardStep::kSend, index, timeline.Now());
            return;
        }
        case Timeline::CardStep::kSend: {
            if (queue.dead) return timeline.PlanCard(Timeline::CardStep::kTake, index, queue.next);
            const Links::Part part =
                timeline.SendPart(queue.given.rank, queue.given.peer, &queue.unsent);
            if (queue.unsent > 0)
                return timeline.PlanCard(Timeline::CardStep::kSend, index, part.left);
            timeline.PlanCard(Timeline::CardStep::kLand, index, part.across + timeline.OneWay());
            timeline.PlanCard(Timeline::CardStep::kTake, index, std::max(queue.next, part.left));
            return;
        }
        case Timeline::CardStep::kLand: {
            if (queue.messages.empty()) return;  // the queue has died
            Message& message = queue.messages.front();
            for (Piece& piece : message.pieces) {
                ReadPiece(queue, message, piece);
                LandPiece(queue, message, piece);
            }
            queue.messages.pop_front();
            ++queue.delivered;
            timeline.PlanCard(Timeline::CardStep::kTail, index, timeline.Now() + timeline.OneWay());
            return;
        }
        case Timeline::CardStep::kTail:
            while (MoveTail(queue)) {
            }
            return;
    }
}

bool Cards::Step() {
    while (!busy_.empty()) {
        const size_t at = world_->Random(busy_.size());
        Queue& queue = *busy_[at];
        if (world_->checks && !world_->Chance(queue.slowness)) return true;
        uint64_t times = world_->Chance(kBursts) ? 1ull << world_->Random(kBurstSizes) : 1;
        if (DoOne(queue)) {
            while (--times > 0 && DoOne(queue)) {
            }
            return true;
        }
        queue.busy = false;
        busy_.erase(busy_.begin() + at);
    }
    return false;
}

bool Cards::MoveLateTail() {
    for (const auto& queue : queues_) {
        if (MoveTail(*queue)) return true;
    }
    return false;
}

}  // namespace hostsim
