// What cores do to a card: doorbells, and writes to what is the card's.
#include "card.h"

#include <algorithm>
#include <cstring>

#include "core.h"
#include "world.h"

namespace hostsim {

using ascend_moe::SendElement;

namespace {

constexpr uint64_t kSmallestFragment = 64;  // to 4096
constexpr int kFragmentSizes = 7;
constexpr int kSpeeds = 6;

}  // namespace

void Cards::SetServer(int rank, int server) { servers_[rank] = server; }

int Cards::ServerOf(int rank) const {
    auto at = servers_.find(rank);
    return at == servers_.end() ? 0 : at->second;
}

void Cards::AddQueue(const hostsim_queue& given) {
    auto queue = std::make_unique<Queue>();
    queue->given = given;
    uint32_t head = 0;
    world_->memory.HostRead(given.head, &head, sizeof(head), nullptr);
    queue->announced = queue->taken = queue->delivered = queue->completed = head;
    world_->memory.HostWrite(given.tail, &head, sizeof(head), true);
    queue->fragment = kSmallestFragment << world_->Random(kFragmentSizes);
    queue->by_address = world_->Chance(2);
    queue->late_tail = world_->Chance(2);
    queue->runs_on = world_->Chance(2);
    queue->slowness = 1u << world_->Random(kSpeeds);
    queue->index = static_cast<uint32_t>(queues_.size());
    by_number_[{given.rank, given.number}] = queue.get();
    by_ring_[given.buffer] = queue.get();
    doorbells_.insert(given.doorbell);
    queues_.push_back(std::move(queue));
}

void Cards::Report(const char* kind, const Queue& queue, const Poster& poster,
                   const std::string& text) {
    const Launch* launch = world_->Find(poster.launch);
    world_->findings.Add(kind, launch == nullptr ? "" : launch->name, poster.loc, queue.given.rank,
                         static_cast<int>(poster.core),
                         "queue " + std::to_string(queue.given.number) + " to rank " +
                             std::to_string(queue.given.peer) + ": " + text);
}

void Cards::Die(Queue& queue) {
    queue.dead = true;
    queue.messages.clear();
    queue.posters.clear();
    queue.taken = queue.announced;
    if (queue.runs_on) queue.delivered = queue.announced;
}

void Cards::Wake(Queue& queue) {
    if (queue.busy) return;
    queue.busy = true;
    busy_.push_back(&queue);
}

bool Cards::IsDoorbell(uint64_t address, uint64_t bytes) const {
    auto at = doorbells_.upper_bound(address + bytes - 1);
    return at != doorbells_.begin() && address < *--at + ascend_moe::kDoorbellBytes;
}

void Cards::Ring(Core* core, Loc loc, uint64_t address, const uint8_t* bytes, uint64_t count) {
    const auto wrong = [&](const std::string& text) { core->ReportAt(loc, "card", text); };
    uint64_t word;
    if (count != sizeof(word) || doorbells_.count(address) == 0)
        return wrong("rings with other than one copy of the eight bytes of a doorbell");
    std::memcpy(&word, bytes, sizeof(word));
    const auto field = [&word](uint32_t shift, uint32_t bits) {
        return static_cast<uint32_t>(word >> shift & ((1ull << bits) - 1));
    };
    const uint32_t number = field(0, ascend_moe::kDoorbellNumberBits);
    auto at = by_number_.find({core->rank, number});
    if (at == by_number_.end())
        return wrong("rings for queue " + std::to_string(number) + ", which this rank has not");
    Queue& queue = *at->second;
    if (queue.given.doorbell != address)
        return wrong("rings for queue " + std::to_string(number) + " at another queue's doorbell");
    if (field(ascend_moe::kDoorbellNumberBits, ascend_moe::kDoorbellCommandBits) != 0)
        return wrong("rings with a command that is not 0");

    const Poster poster{core->launch->id, static_cast<uint32_t>(core->index), core->phase, loc};
    const Poster before = queue.last;
    queue.last = poster;
    if (before.launch == poster.launch && before.core != poster.core &&
        before.phase == poster.phase) {
        Report("card-order", queue, poster,
               "core " + std::to_string(before.core) + " posts too, at " + before.loc.Text() +
                   ", with no SyncAll between");
    }
    const uint32_t head = field(ascend_moe::kDoorbellHeadShift, ascend_moe::kDoorbellHeadBits);
    const uint32_t fresh = (head - queue.announced) & ((1u << ascend_moe::kDoorbellHeadBits) - 1);
    const uint32_t room =
        queue.given.depth - 1 - std::min(queue.Outstanding(), queue.given.depth - 1);
    queue.announced += fresh;
    if (queue.dead) {
        Die(queue);
    } else if (fresh > room) {
        Report("card", queue, poster,
               "a doorbell announces " + std::to_string(fresh) + " elements, there is room for " +
                   std::to_string(room));
        Die(queue);
    } else {
        queue.posters.insert(queue.posters.end(), fresh, poster);
    }
    Wake(queue);
    if (world_->timeline) {
        Timeline& timeline = *world_->timeline;
        if (!queue.taking)
            timeline.PlanCard(Timeline::CardStep::kTake, queue.index, timeline.Now());
        queue.taking = true;
    } else if (!world_->checks) {
        while (Step()) {
        }
    }
}

void Cards::Judge(Core* core, Loc loc, uint64_t address, uint64_t bytes) {
    const auto wrong = [&](const Queue& queue, const std::string& text) {
        core->ReportAt(loc, "card-order",
                       text + " of queue " + std::to_string(queue.given.number) + " to rank " +
                           std::to_string(queue.given.peer));
    };
    const auto meets = [&](uint64_t from, uint64_t count) {
        return address < from + count && from < address + bytes;
    };
    auto at = by_ring_.upper_bound(address + bytes - 1);
    if (at != by_ring_.begin()) {
        const Queue& queue = *(--at)->second;
        const uint64_t begin = std::max(address, queue.given.buffer) - queue.given.buffer;
        const uint64_t end = address + bytes - queue.given.buffer,
                       pitch = queue.given.element_bytes;
        for (uint64_t slot = begin / pitch; slot * pitch < end && slot < queue.given.depth;
             ++slot) {
            const uint32_t behind =
                (static_cast<uint32_t>(slot) - queue.completed) & (queue.given.depth - 1);
            if (behind < queue.Outstanding())
                wrong(queue, "overwrites element " + std::to_string(queue.completed + behind) +
                                 ", which is posted and not behind the tail,");
        }
    }
    const int rank = world_->RankOf(address);  // sources are memory of who posts
    for (const Queue* queue : busy_) {
        if (queue->given.rank != rank) continue;
        for (const Message& message : queue->messages) {
            if (meets(message.from, message.bytes))
                wrong(*queue, "overwrites the source of message " + std::to_string(message.number) +
                                  ", which is not delivered,");
        }
        SendElement element;
        for (uint32_t number = queue->taken; number != queue->announced; ++number) {
            if (Element(*queue, number, &element) && meets(element.local, element.bytes))
                wrong(*queue, "overwrites the source of message " + std::to_string(number) +
                                  ", which is not delivered,");
        }
    }
}

void Cards::Ended(const Launch& launch) {
    for (const auto& queue : queues_) {
        if (queue->last.launch != launch.id) continue;
        uint32_t head = 0;
        world_->memory.HostRead(queue->given.head, &head, sizeof(head), nullptr);
        if (head == queue->announced) continue;
        Report("card-order", *queue, queue->last,
               "the head says " + std::to_string(head) + " at the end of the kernel, doorbells " +
                   std::to_string(queue->announced));
    }
}

}  // namespace hostsim
