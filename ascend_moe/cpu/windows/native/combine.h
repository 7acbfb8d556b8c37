// Combine: an expert's rank pushes each row to its place at the token's owner, which adds them up.
//
// The place of a row is (owner, token, slot): three numbers that dispatch wrote into the handle.
// Each rank also publishes the list of its rows' places, in the order of the rows. From the lists
// an owner knows which rows came, from whom, and whether one is missing or came twice. Rows that
// the owner holds itself stay where they are, and so do those of a sender that has them in shared
// memory of its own: they are read there, and all ranks meet once more before it may change them.
#pragma once

#include <vector>

#include "arithmetic.h"
#include "call.h"

namespace moe {

// What a rank sends home. If `memory` is not 0, its rows are not pushed but lie there.
struct Sent {
    int64_t rows, memory, descriptor, offset, size;
};

// Once: what was checked must be what is used, whatever the peer writes meanwhile.
inline Sent look_at(const volatile Sent& of) {
    return {of.rows, of.memory, of.descriptor, of.offset, of.size};
}

// Memory of a peer that is mapped here.
struct Known {
    int64_t memory, address, size;
};

struct Combine : Call {
    // for each call
    int64_t expand_x, assist_info, send_counts, weights;
    int64_t shared_expert_x, ori_x, blends, blend_of;
    int64_t output;
    // of this kind of call
    int64_t hidden, element, row_bytes, row_limit, max_rows, prefix_length;
    int64_t zero_experts, copy_experts;
    int64_t memory, descriptor, memory_offset, memory_size;  // of expand_x, where it is shared
    int64_t known;                                           // address of Known[ranks]
    // offsets in the area; each is an array with an equal share per rank
    int64_t rows_at, sent_at, lists_at;
    // set by receive() with kBadRows: first (token * slots + slot) and number of such places
    int64_t missing, missing_count, doubled, doubled_count;

    Sent& sent(int64_t rank) const { return at<Sent>(sent_at)[rank]; }
    int32_t* list(int64_t rank) const { return at<int32_t>(lists_at) + rank * 3 * max_rows; }
    char* place(int64_t owner, int64_t index) const {
        return at<char>(rows_at) + (owner * max_bs * slots() + index) * row_bytes;
    }
    int64_t rows_here() const { return pointer<const int32_t>(send_counts)[prefix_length - 1]; }

    bool valid() {
        const int64_t rows = rows_here();
        if (rows < 0 || rows > row_limit || rows > max_rows) return false;
        const auto* triple = pointer<const int32_t>(assist_info);
        const auto sources = static_cast<uint32_t>(ranks().ranks);
        const auto tokens = static_cast<uint32_t>(max_bs);
        const auto places = static_cast<uint32_t>(slots());
        uint32_t wrong = 0;
        for (int64_t row = 0; row < rows; ++row, triple += 3) {
            wrong |= static_cast<uint32_t>(triple[0]) >= sources;
            wrong |= static_cast<uint32_t>(triple[1]) >= tokens;
            wrong |= static_cast<uint32_t>(triple[2]) >= places;
        }
        return !wrong && choices_are_legal(*this);
    }

    void publish() {
        const int64_t own = ranks().rank, rows = rows_here();
        const auto* triple = pointer<const int32_t>(assist_info);
        sent(own) = {rows, memory, descriptor, memory_offset, memory_size};
        memcpy(list(own), triple, 3 * rows * sizeof(int32_t));
        if (memory) return;
        const bool around_caches = rows * row_bytes * ranks().ranks > cache_bytes;
        const char* from = pointer<const char>(expand_x);
        for (int64_t row = 0; row < rows; ++row, triple += 3, from += row_bytes) {
            if (triple[0] == own) continue;
            copy_row(place(triple[0], triple[1] * slots() + triple[2]), from, row_bytes,
                     around_caches);
        }
        if (around_caches) finish_streaming();
    }

    int64_t receive() {
        thread_local std::vector<const char*> row_of;
        row_of.assign(bs * slots(), nullptr);
        doubled_count = missing_count = 0;
        bool in_place = false;
        for (int64_t sender = 0; sender < ranks().ranks; ++sender) {
            detail = sender;
            const Sent one = look_at(sent(sender));
            in_place = in_place || one.memory;
            if (one.rows < 0 || one.rows > max_rows) return kCorrupt;
            if (one.memory && sender != ranks().rank) {
                if (pointer<const Known>(known)[sender].memory != one.memory) return kUnmapped;
                const auto size = static_cast<uint64_t>(pointer<const Known>(known)[sender].size);
                const uint64_t needed = one.rows * row_bytes, offset = one.offset;
                if (offset > size || needed > size - offset) return kCorrupt;
            }
            if (!find_rows(sender, one, row_of)) return kCorrupt;
        }
        const Active active(*this);
        require_rows(active, row_of);
        const bool complete = !doubled_count && !missing_count;
        for (int64_t token = 0; complete && token < bs; ++token) sum(token, active, row_of);
        if (in_place) return kReadInPlace;
        return complete ? kDone : kBadRows;
    }

    // Where the rows are that come from `sender`. False: its list cannot be.
    bool find_rows(int64_t sender, const Sent& one, std::vector<const char*>& row_of) {
        const int64_t own = ranks().rank, rows = one.rows;
        const char* there = sender == own ? pointer<const char>(expand_x) : nullptr;
        if (!there && one.memory) {
            there = pointer<const char>(pointer<const Known>(known)[sender].address) + one.offset;
        }
        const int32_t* triple = list(sender);
        for (int64_t row = 0; row < rows; ++row, triple += 3) {
            if (triple[0] != own) continue;
            const int64_t token = triple[1], slot = triple[2];
            if (token < 0 || slot < 0 || slot >= slots()) return false;
            if (token >= bs) continue;  // a token that this rank does not have is never read
            const int64_t index = token * slots() + slot;
            if (row_of[index]) note_doubled(index);
            row_of[index] = there ? there + row * row_bytes : place(own, index);
        }
        return true;
    }

    void note_doubled(int64_t index) {
        thread_local std::vector<int64_t> noted;
        if (!doubled_count) noted.clear();
        for (const int64_t known_one : noted) {
            if (known_one == index) return;
        }
        noted.push_back(index);
        doubled = doubled_count && doubled < index ? doubled : index;
        ++doubled_count;
    }

    void require_rows(const Active& active, const std::vector<const char*>& row_of) {
        const auto* id = pointer<const int32_t>(ids);
        for (int64_t token = bs - 1; token >= 0; --token) {
            const bool shared = shared_experts && active.any(token);
            for (int64_t slot = slots() - 1; slot >= 0; --slot) {
                const bool travelled =
                    slot < topk ? active(token, slot) && id[token * topk + slot] < moe_experts
                                : shared;
                if (!travelled || row_of[token * slots() + slot]) continue;
                missing = token * slots() + slot;
                ++missing_count;
            }
        }
    }

    void sum(int64_t token, const Active& active, const std::vector<const char*>& row_of) const {
        thread_local std::vector<Addend> addends;
        addends.clear();
        const auto* id = pointer<const int32_t>(ids) + token * topk;
        const auto* weight = pointer<const float>(weights);
        const int64_t copies = moe_experts + zero_experts, constants = copies + copy_experts;
        for (int64_t k = 0; k < topk; ++k) {
            if (!active(token, k)) continue;
            const float by = weight ? weight[token * topk + k] : 1.0f;
            if (id[k] < moe_experts) {
                addends.push_back({row_of[token * slots() + k], by, false});
            } else if (id[k] >= constants) {
                const int64_t blend = pointer<const int32_t>(blend_of)[token * topk + k];
                addends.push_back({pointer<const float>(blends) + blend * hidden, by, true});
            } else if (id[k] >= copies) {
                addends.push_back({pointer<const char>(ori_x) + token * row_bytes, by, false});
            }
        }
        if (active.any(token)) {
            for (int64_t slot = topk; slot < slots(); ++slot) {
                addends.push_back({row_of[token * slots() + slot], 1.0f, false});
            }
            if (shared_expert_x) {
                const char* row = pointer<const char>(shared_expert_x) + token * row_bytes;
                addends.push_back({row, 1.0f, false});
            }
        }
        auto* to = pointer<uint16_t>(output) + token * hidden;
        const auto count = static_cast<int64_t>(addends.size());
        if (element == static_cast<int64_t>(Element::kBf16)) {
            add_up_bf16(to, addends.data(), count, hidden);
        } else {
            add_up_fp16(to, addends.data(), count, hidden);
        }
    }
};

}  // namespace moe
