// The network cards of all ranks: they take work elements from queues in simulated memory and move
// bytes between servers. docs/hostsim.md, "The network card", says what they may do; the seed
// decides what of it they do.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "../../device/rdma_abi.h"
#include "../hostsim.h"
#include "findings.h"
#include "timeline.h"

namespace hostsim {

class Core;
class World;
struct Launch;

class Cards {
 public:
    explicit Cards(World* world) : world_(world) {}

    void SetServer(int rank, int server);
    void AddRegion(const hostsim_region& region) { regions_.push_back(region); }
    void AddQueue(const hostsim_queue& queue);

    bool SameServer(int rank, int other) const { return ServerOf(rank) == ServerOf(other); }
    // Whether a copy there rings. Doorbells are no memory: cores may share them.
    bool IsDoorbell(uint64_t address, uint64_t bytes) const;
    void Ring(Core* core, Loc loc, uint64_t address, const uint8_t* bytes, uint64_t count);
    // Judges a write of a core, when it is issued and when it lands: no byte of it may still be the
    // cards'.
    void Judge(Core* core, Loc loc, uint64_t address, uint64_t bytes);

    // With time: the next step of a queue is due.
    void Take(Timeline::CardStep step, uint32_t queue);
    // One thing that a card can do; false if there is none, but for tails that are late on purpose.
    bool Step();
    bool Busy() const { return !busy_.empty(); }
    // Moves a tail when nothing else in the world can go on.
    bool MoveLateTail();
    // A launch is over: what it has posted must be in the heads.
    void Ended(const Launch& launch);

 private:
    // Who rang, as findings name it.
    struct Poster {
        uint32_t launch = 0, core = 0, phase = 0;
        Loc loc{"", 0};
    };
    // Bytes that are read together and land together.
    struct Piece {
        uint64_t offset, bytes;
        bool first;  // of the first fragment: behind all of the message before
        bool read;
        std::vector<uint8_t> data;
    };
    struct Message {
        uint32_t number;
        uint64_t from, to, bytes;
        Poster poster;
        std::vector<Piece> pieces;  // that have not landed
    };
    struct Queue {
        hostsim_queue given;
        // Running numbers of elements: told of by doorbells, read from memory, landed wholly, said
        // to be done.
        uint32_t announced, taken, delivered, completed;
        uint64_t fragment;
        bool by_address;  // fragments end at multiples in the receiver's memory
        bool late_tail, runs_on;
        uint32_t slowness;  // does something once in so many turns
        bool dead = false, busy = false;
        uint32_t index = 0;    // among all
        bool taking = false;   // with time: a step is planned that sends, or takes the next element
        uint64_t unsent = 0;   // with time: bytes of the message on the wire
        Picoseconds next = 0;  // with time: not before then is another message taken
        Poster last;
        std::deque<Poster> posters;  // of what is announced and not taken
        std::deque<Message> messages;
        uint32_t Outstanding() const { return announced - completed; }
        bool Full() const { return Outstanding() >= given.depth - 1; }
    };

    World* world_;
    std::map<int, int> servers_;
    std::vector<hostsim_region> regions_;
    std::vector<std::unique_ptr<Queue>> queues_;
    std::map<std::pair<int, uint32_t>, Queue*> by_number_;  // of a rank
    std::map<uint64_t, Queue*> by_ring_;                    // by the address of its elements
    std::set<uint64_t> doorbells_;
    std::vector<Queue*> busy_;

    int ServerOf(int rank) const;
    void Report(const char* kind, const Queue& queue, const Poster& poster,
                const std::string& text);
    void Die(Queue& queue);
    void Wake(Queue& queue);
    bool Element(const Queue& queue, uint32_t number, ascend_moe::SendElement* element) const;
    void Take(Queue& queue);
    std::string Refusal(const Queue& queue, uint32_t number,
                        const ascend_moe::SendElement& element) const;
    void Cut(const Queue& queue, Message& message) const;
    void Progress(Queue& queue);
    void ReadPiece(const Queue& queue, const Message& message, Piece& piece);
    void LandPiece(const Queue& queue, const Message& message, const Piece& piece);
    bool MoveTail(Queue& queue);
    bool DoOne(Queue& queue);
    const hostsim_region* FindRegion(int rank, uint32_t key, bool remote, uint64_t address,
                                     uint64_t bytes) const;
    uint8_t* HostBytes(int rank, uint64_t address, uint64_t bytes, uint8_t** written) const;
};

}  // namespace hostsim
