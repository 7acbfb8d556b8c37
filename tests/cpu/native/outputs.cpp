// The memory of outputs by itself: what is handed out again and when, and that all of it goes.
// Built with the address sanitizer, which tells of memory that is used too late or never given
// back.
#include "../../../ascend_moe/cpu/windows/native/outputs.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

std::vector<moe::DlManaged*> tensors;  // that torch would have made and somebody sees

int import_managed(moe::DlManaged* managed, _object** tensor) {
    tensors.push_back(managed);
    *tensor = reinterpret_cast<_object*>(managed);
    return 0;
}

void drop_all() {
    for (moe::DlManaged* one : tensors) one->dropped(one);
    tensors.clear();
}

void require(bool holds, const char* what) {
    if (holds) return;
    fprintf(stderr, "not so: %s\n", what);
    exit(1);
}

const moe::DlTable torch = {1, 0, nullptr, nullptr, nullptr, import_managed, nullptr, nullptr};

char* hand_out(moe::Shelf& shelf) {
    moe::Outputs* set = shelf.take();
    char* memory = set->memory;
    require(set->tensors(torch), "tensors are made");
    shelf.taken();
    for (int64_t i = 0; i < set->bytes; ++i) memory[i] = 1;
    return memory;
}

void used_again_when_nobody_sees_it(moe::Shelf& shelf) {
    char* first = hand_out(shelf);
    moe::DlManaged* kept = tensors.back();
    tensors.pop_back();
    drop_all();
    require(hand_out(shelf) != first, "one output that is kept keeps all");
    drop_all();
    kept->dropped(kept);
    require(hand_out(shelf) == first, "used again");
    drop_all();
}

void what_is_too_much_goes_with_its_tensors(moe::Shelf& shelf) {
    for (size_t i = 0; i < 2 * moe::Shelf::kSets; ++i) hand_out(shelf);
    require(shelf.sets.size() == moe::Shelf::kSets, "few sets are kept");
    drop_all();
}

void shelves_not_used_for_longest_are_cleared(const moe::OutputShape* shapes) {
    std::vector<moe::Shelf*> shelves;
    for (size_t i = 0; i < moe::Shelf::kShelves + 3; ++i) {
        shelves.push_back(new moe::Shelf(shapes, 2));
        hand_out(*shelves.back());
        hand_out(*shelves.front());  // stays in use
    }
    size_t full = 0;
    for (moe::Shelf* shelf : moe::Shelf::all()) full += !shelf->sets.empty();
    require(full == moe::Shelf::kShelves, "as many shelves as may be are full");
    require(!shelves.front()->sets.empty() && shelves[1]->sets.empty(), "the oldest is cleared");
    drop_all();  // also of sets that have left their shelf
}

}  // namespace

// What outputs.h uses of the interpreter.
_object* PyTuple_New(intptr_t) { return reinterpret_cast<_object*>(&tensors); }
int PyTuple_SetItem(_object*, intptr_t, _object*) { return 0; }
void Py_DecRef(_object*) {}

int main() {
    const moe::OutputShape shapes[] = {{4, 16, 2, {6, 32}, {32, 1}}, {0, 32, 1, {5, 1}, {1, 1}}};
    auto* shelf = new moe::Shelf(shapes, 2);
    used_again_when_nobody_sees_it(*shelf);
    what_is_too_much_goes_with_its_tensors(*shelf);
    shelves_not_used_for_longest_are_cleared(shapes);
    for (moe::Shelf* one : moe::Shelf::all()) {
        one->clear();
        delete one;
    }
    puts("ok");
}
