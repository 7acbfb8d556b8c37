// Small kernels with one mistake each in what a TPipe hands out: buffers, event ids, queues.
#include "mini.h"

namespace {

using Loads = TQue<TPosition::VECIN, 1>;

// `count` buffers of a queue, all taken, and all given back: so many ids are in flight then.
template <typename Queue, typename Between>
void TakeThenFree(Queue& queue, uint32_t count, Between between) {
    LocalTensor<float> tensors[8];
    for (uint32_t i = 0; i < count; ++i) {
        tensors[i] = queue.template AllocTensor<float>();
        queue.EnQue(tensors[i]);
        tensors[i] = queue.template DeQue<float>();
    }
    between();
    for (uint32_t i = 0; i < count; ++i) queue.FreeTensor(tensors[i]);
}
template <typename Queue>
void FreeTogether(Queue& queue, uint32_t count) {
    TakeThenFree(queue, count, [] {});
}

// Two rows on their way before the first is taken.
template <int32_t depth>
void Preload() {
    TPipe pipe;
    TQue<TPosition::VECIN, depth> queue;
    pipe.InitBuffer(queue, 2, 256);
    for (int turn = 0; turn < 3; ++turn) {
        for (int i = 0; i < 2; ++i) {
            LocalTensor<float> row = queue.template AllocTensor<float>();
            queue.EnQue(row);
        }
        for (int i = 0; i < 2; ++i) {
            LocalTensor<float> row = queue.template DeQue<float>();
            queue.FreeTensor(row);
        }
    }
}

}  // namespace

MINI(mini_nothing) {}

MINI(mini_event_left_set) { SetFlag<HardEvent::MTE2_V>(0); }
MINI(mini_event_never_set) { WaitFlag<HardEvent::MTE2_V>(0); }
MINI(mini_event_set_twice) {
    SetFlag<HardEvent::MTE2_V>(3);
    SetFlag<HardEvent::MTE2_V>(3);
    WaitFlag<HardEvent::MTE2_V>(3);
}
MINI(mini_event_id) {
    SetFlag<HardEvent::MTE2_V>(8);
    WaitFlag<HardEvent::MTE2_V>(8);
}
MINI(mini_event_id_of_others) {
    SetFlag<HardEvent::MTE2_V>(6);
    WaitFlag<HardEvent::MTE2_V>(6);
}
MINI(mini_event_ids) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 6, 256);
    FreeTogether(queue, 6);
}
MINI(mini_event_too_many_ids) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 7, 256);
    FreeTogether(queue, 7);
}
// Queues of one kind share the ids.
MINI(mini_event_too_many_ids_of_two) {
    TPipe pipe;
    Loads first, second;
    pipe.InitBuffer(first, 4, 256);
    pipe.InitBuffer(second, 4, 256);
    FreeTogether(first, 4);
    FreeTogether(second, 2);
    pipe.FetchEventID(HardEvent::V_MTE2);
}
MINI(mini_event_fetched) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 2, 256);
    FreeTogether(queue, 2);  // ids 0 and 1 are in flight
    int32_t id = pipe.FetchEventID(HardEvent::V_MTE2);
    SetFlag<HardEvent::V_MTE2>(id);
    WaitFlag<HardEvent::V_MTE2>(id);
}
MINI(mini_event_of_a_queue) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 2, 256);
    FreeTogether(queue, 2);
    SetFlag<HardEvent::V_MTE2>(0);
    WaitFlag<HardEvent::V_MTE2>(0);
}

MINI(mini_queue_leak) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 1, 256);
    queue.AllocTensor<float>();
}
MINI(mini_queue_empty) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 1, 256);
    queue.DeQue<float>();
}
MINI(mini_queue_never_allocated) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 1, 256);
    queue.EnQue(LocalTensor<float>(0, 256));
}
MINI(mini_queue_never_dequeued) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 1, 256);
    LocalTensor<float> tensor = queue.AllocTensor<float>();
    queue.FreeTensor(tensor);
}
// 9 of them end at VECOUT, in queues whose ids are not the same.
MINI(mini_queue_too_many_tensors) {
    TPipe pipe;
    TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> copies;
    TQue<TPosition::VECOUT, 1> results;
    pipe.InitBuffer(copies, 5, 256);
    pipe.InitBuffer(results, 4, 256);
    TakeThenFree(copies, 5, [&] { TakeThenFree(results, 4, [] {}); });
}
MINI(mini_queue_two_deep) { Preload<2>(); }
MINI(mini_queue_beyond_depth) { Preload<1>(); }

// Both buffers of the queue are taken. The other core polls for something that does not come.
MINI(mini_queue_no_buffer) {
    Frame f(from, to);
    Loads queue;
    f.pipe.InitBuffer(queue, 2, 256);
    if (GetBlockIdx() == 0) {
        for (int i = 0; i < 3; ++i) queue.AllocTensor<float>();
    }
    while (true) hostsim::PollPause("a flag", 7, 1);
}

MINI(mini_pipe_64_buffers) {
    TPipe pipe;
    Calc buffers[64];
    for (Calc& buffer : buffers) pipe.InitBuffer(buffer, 32);
}
MINI(mini_pipe_65_buffers) {
    TPipe pipe;
    Calc buffers[61];
    Loads queue;
    for (Calc& buffer : buffers) pipe.InitBuffer(buffer, 32);
    pipe.InitBuffer(queue, 4, 32);
}
MINI(mini_pipe_empty_buffer) {
    TPipe pipe;
    Calc buffer;
    pipe.InitBuffer(buffer, 0);
}
MINI(mini_pipe_second) {
    TPipe first;
    TPipe second;
}
MINI(mini_pipe_missing) { GetTPipePtr()->FetchEventID(HardEvent::MTE2_V); }
MINI(mini_pipe_old_buffer) {
    Frame f(from, to);
    f.pipe.Reset();
    f.buffer.Get<float>();
}
MINI(mini_pipe_old_queue) {
    TPipe pipe;
    Loads queue;
    pipe.InitBuffer(queue, 1, 256);
    FreeTogether(queue, 1);
    pipe.Reset();
    queue.AllocTensor<float>();
}
