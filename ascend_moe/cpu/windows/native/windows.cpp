// What Python calls. No torch or Python headers, no other library: ../build.py makes one for all
// versions of both.
#include "repeat.h"

extern "C" {

// Sizes that both sides of the interface must agree about.
void moe_sizes(int64_t* sizes) {
    sizes[0] = sizeof(moe::Control);
    sizes[1] = sizeof(moe::Block);
    sizes[2] = sizeof(moe::Dispatch);
    sizes[3] = sizeof(moe::Combine);
    sizes[4] = sizeof(moe::OutputShape);
    sizes[5] = sizeof(moe::Expected);
    sizes[6] = sizeof(moe::Repeat) - sizeof(moe::Expected);
}

// Which sources this is made of.
int64_t moe_sources() { return MOE_SOURCES; }

int64_t moe_dispatch(moe::Dispatch* call) { return moe::step(*call); }

int64_t moe_combine(moe::Combine* call) { return moe::step(*call); }

// One part of a call by itself, for ranks whose rows travel in another way: whether it is valid,
// publishing, receiving.
int64_t moe_part(void* call, int is_combine, int number) {
    const auto run = [number](auto& op) -> int64_t {
        if (number == 0) return op.valid();
        if (number == 2) return op.receive();
        op.publish();
        return 0;
    };
    return is_combine ? run(*static_cast<moe::Combine*>(call))
                      : run(*static_cast<moe::Dispatch*>(call));
}

void moe_arrive(const moe::Group* group, int32_t barrier) { moe::arrive(*group, barrier); }

int moe_wait(const moe::Group* group, int32_t barrier, int64_t microseconds) {
    return moe::wait(*group, barrier, microseconds);
}

// The functions from here on are called with the interpreter lock held.

moe::Shelf* moe_new_shelf(const moe::OutputShape* shapes, int64_t count) {
    return new moe::Shelf(shapes, count);
}

_object* moe_repeat(_object* tensors, moe::Repeat* repeat) { return repeat->run(tensors); }

void moe_finished(const moe::Repeat* repeat) { repeat->finished(); }
}
