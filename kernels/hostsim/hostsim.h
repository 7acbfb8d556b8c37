/* hostsim as a library: a world of ranks, their global memory, streams of kernel launches. Plain C,
 * for ctypes and for host code. One world at a time per thread of control; nothing here is
 * thread-safe. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hostsim_world hostsim_world;

typedef struct {
    uint64_t seed;
    uint32_t landing_percent; /* chance that a step lets a copy in flight take effect */
    int32_t stalled_rank;     /* -1: none; does not run from step stall_from on, for stall_steps */
    uint64_t stall_from, stall_steps;
    uint32_t uneven; /* every rank and core has its own speed */
    uint32_t alone;  /* one rank per process: polling never sleeps */
    uint64_t max_steps;
    uint32_t patience;  /* so often blocked everywhere, or everywhere but on the stalled rank, only
                           lets a million ticks pass, so that kernels with a time limit see it */
    uint32_t unchecked; /* fast: copies take effect at once, and hardly a rule is checked */
} hostsim_schedule;

/* Simulated time: docs/hostsim.md, "Time". Nanoseconds, bytes per nanosecond (GB/s), or cycles of
 * a vector core. Where each figure is from: kernels/proof/machine.py. */
enum hostsim_vector_kind {
    HOSTSIM_ONE_SOURCE,
    HOSTSIM_TWO_SOURCES,
    HOSTSIM_CONVERT,
    HOSTSIM_DIVIDE,
    HOSTSIM_COMPACT,
    HOSTSIM_VECTOR_KINDS
};
typedef struct {
    double rate, latency_ns; /* of a small copy, there and back */
} hostsim_link;
typedef struct {
    double clock_ghz;
    /* the scalar unit: an instruction handed to a pipe, a word of UB or of its cache, a line that
     * is not in its cache, a flag from one pipe to another; so many instructions wait in a pipe */
    double issue_cycles, scalar_cycles, scalar_miss_ns, flag_cycles;
    uint32_t queue_depth;
    /* whether links are one per pair of ranks of a server; else a die has one port */
    uint32_t pairwise;
    /* the vector unit: what 256 bytes of the widest operand take, by kind of instruction; before
     * the first result when the pipe is idle; until a result may be used */
    double vector_cycles[HOSTSIM_VECTOR_KINDS], vector_head_cycles, vector_tail_cycles;
    /* copies: what each costs its pipe; what one core moves; bytes of a pipe on their way */
    double copy_start_ns, core_read, core_write, core_remote_read, core_remote_write;
    uint64_t outstanding_bytes;
    double memory, memory_latency_ns; /* of one die */
    hostsim_link link[3];             /* inside a package, inside a server, beyond */
    uint32_t package_dies, server_dies;
    /* network cards: one direction of one; from a doorbell until the bytes of a small message are
     * there; from one message of a queue to the next */
    double card_rate, card_latency_ns, card_post_ns;
    double sync_all_ns, launch_ns;
} hostsim_machine;

hostsim_world* hostsim_new(const hostsim_schedule* schedule);
void hostsim_delete(hostsim_world* world);

/* Global memory. Addresses are what kernels see, not host pointers. `offset` makes the start
 * unaligned, as of a view. */
uint64_t hostsim_alloc(hostsim_world* world, int32_t rank, uint64_t bytes, const char* name,
                       uint64_t offset);
void hostsim_map(hostsim_world* world, uint64_t base, uint64_t bytes, int32_t rank,
                 const char* name, void* host);
void hostsim_unmap(hostsim_world* world, uint64_t base);
/* written = 0: the bytes are there, but count as never written (old data of somebody else). */
void hostsim_write(hostsim_world* world, uint64_t address, const void* from, uint64_t bytes,
                   int32_t written);
/* Fills `written` (may be NULL) with one flag per byte. Returns 0 if the range is not inside one
 * allocation. */
int32_t hostsim_read(hostsim_world* world, uint64_t address, void* to, uint64_t bytes,
                     uint8_t* written);

/* Network cards: docs/hostsim.md, "The network card". Every rank has one. Ranks are in server 0
 * until told otherwise; a kernel may touch memory of its own server only, all else goes over a
 * card. */
void hostsim_server(hostsim_world* world, int32_t rank, int32_t server);

/* A buffer that the cards of `rank` and of its peers may read and write. `host` may be NULL: the
 * bytes are memory of this world. Else they are there, and kernels of this world need not see them
 * (peers in another process). The fields are those of ascend_moe::Region
 * (kernels/device/rdma_abi.h) with the key that the rank itself uses and the key that its peers
 * use. */
typedef struct {
    int32_t rank;
    uint32_t local_key, remote_key;
    uint64_t address, bytes;
    void* host;
} hostsim_region;
void hostsim_add_region(hostsim_world* world, const hostsim_region* region);

/* A queue pair from `rank` to `peer`. The addresses are of memory that this world has already; the
 * other fields are those of ascend_moe::SendQueue, the depth a power of two. It goes on where its
 * head stands: what was posted before is done, and the tail says so. */
typedef struct {
    int32_t rank, peer;
    uint32_t number;
    uint32_t element_bytes, depth;
    uint64_t buffer;
    uint64_t head, tail; /* of four bytes each */
    uint64_t doorbell;   /* of eight bytes; queues of a rank may share them */
    int64_t delivers;    /* so many messages, then the queue is dead; -1: it lives */
} hostsim_queue;
void hostsim_add_queue(hostsim_world* world, const hostsim_queue* queue);

/* Kernels are registered by name by the library that contains them. Returns the id of the launch, 0
 * if the name is unknown. */
typedef void (*hostsim_kernel)(const uint64_t* arguments);
void hostsim_register(const char* name, uint32_t argument_count, hostsim_kernel kernel);
uint32_t hostsim_launch(hostsim_world* world, int32_t rank, int32_t stream, uint32_t blocks,
                        const char* name, const uint64_t* arguments, uint32_t argument_count);
/* For a schedule that is alone: asked now and then, with what a core waits for and of whom, whether
 * that peer is gone; then the core reaches its time limit at once. */
typedef int32_t (*hostsim_gone)(void* context, const char* wait, uint32_t peer);
void hostsim_watch(hostsim_world* world, hostsim_gone gone, void* context);

/* From here on everything takes the time that it would take on this machine, and happens in the
 * order of that time; call before the first launch. */
void hostsim_time(hostsim_world* world, const hostsim_machine* machine);
/* Records what the cores of the first ranks do, for hostsim_write_trace. */
void hostsim_trace(hostsim_world* world, int32_t ranks);
void hostsim_write_trace(hostsim_world* world, const char* path);

/* Runs every launch to its end. 1: done, 0: deadlock. With time, the launches that are first on
 * their streams begin together. */
int32_t hostsim_run(hostsim_world* world);
/* Ends with the last launch. After so many steps network cards stand still: what they were told of
 * and have not done, they do in the next run. Not with time. */
int32_t hostsim_run_kernels(hostsim_world* world, uint64_t cards_stop);

/* Texts (JSON but for the deadlock report); they live until the next call of the same function. */
const char* hostsim_findings(hostsim_world* world);
const char* hostsim_deadlock(hostsim_world* world);
const char* hostsim_counters(hostsim_world* world, uint32_t launch);
const char* hostsim_timing(hostsim_world* world, uint32_t launch);
const char* hostsim_sites(
    hostsim_world* world); /* synchronisation calls reached, "file:line kind" -> times */
uint64_t hostsim_steps(hostsim_world* world);
/* From that step on the rank is gone; of its copies under way some land and some never do. */
void hostsim_let_die(hostsim_world* world, int32_t rank, uint64_t step);
const char* hostsim_death(hostsim_world* world); /* in which kernel and where; empty: not yet */
void hostsim_mutate(hostsim_world* world,
                    const char* site); /* that synchronisation call does nothing */

#ifdef __cplusplus
}
#endif
