// What Python calls. No torch or Python headers, no other library: ../build.py makes one for all
// versions of both.
#include "far.h"
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
    sizes[7] = sizeof(moe::Message);
    sizes[8] = sizeof(moe::Peer);
    sizes[9] = sizeof(moe::Mail);
}

// Which sources this is made of.
int64_t moe_sources() { return MOE_SOURCES; }

int64_t moe_dispatch(moe::Dispatch* call) { return moe::step(*call); }

int64_t moe_combine(moe::Combine* call) { return moe::step(*call); }

// The same for ranks that share no memory: the call's group is a moe::Mail.
int64_t moe_far_dispatch(moe::Dispatch* call) { return moe::far_step(*call); }

int64_t moe_far_combine(moe::Combine* call) { return moe::far_step(*call); }

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
