// What Python calls. No torch headers, no other library: built on first use, see ../engine.py.
#include "combine.h"
#include "dispatch.h"

extern "C" {

// Sizes that both sides of the interface must agree about.
void moe_sizes(int64_t* sizes) {
    sizes[0] = sizeof(moe::Control);
    sizes[1] = sizeof(moe::Block);
    sizes[2] = sizeof(moe::Dispatch);
    sizes[3] = sizeof(moe::Combine);
}

int64_t moe_dispatch(moe::Dispatch* call) { return moe::step(*call); }

int64_t moe_combine(moe::Combine* call) { return moe::step(*call); }

void moe_arrive(const moe::Group* group, int32_t barrier) { moe::arrive(*group, barrier); }

int moe_wait(const moe::Group* group, int32_t barrier, int64_t microseconds) {
    return moe::wait(*group, barrier, microseconds);
}
}
