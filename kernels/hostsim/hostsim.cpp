#include "hostsim.h"

#include <map>
#include <string>
#include <vector>

#include "sim/world.h"

struct hostsim_world {
    hostsim::World world;
    std::string text;
    explicit hostsim_world(const hostsim::Schedule& schedule) : world(schedule) {}
};

namespace {

struct Kernel {
    uint32_t argument_count;
    hostsim_kernel run;
};

std::map<std::string, Kernel>& Kernels() {
    static std::map<std::string, Kernel> kernels;
    return kernels;
}

const char* Keep(hostsim_world* world, std::string text) {
    world->text = std::move(text);
    return world->text.c_str();
}

hostsim::Cards& Cards(hostsim_world* world) {
    auto& cards = world->world.cards;
    if (!cards) cards = std::make_unique<hostsim::Cards>(&world->world);
    return *cards;
}

}  // namespace

hostsim_world* hostsim_new(const hostsim_schedule* s) {
    hostsim::Schedule schedule;
    schedule.seed = s->seed;
    schedule.landing_percent = s->landing_percent;
    schedule.stalled_rank = s->stalled_rank;
    schedule.stall_from = s->stall_from;
    schedule.stall_steps = s->stall_steps;
    schedule.uneven = s->uneven != 0;
    schedule.alone = s->alone != 0;
    schedule.patience = s->patience;
    schedule.unchecked = s->unchecked != 0;
    if (s->max_steps != 0) schedule.max_steps = s->max_steps;
    return new hostsim_world(schedule);
}

void hostsim_delete(hostsim_world* world) { delete world; }

uint64_t hostsim_alloc(hostsim_world* world, int32_t rank, uint64_t bytes, const char* name,
                       uint64_t offset) {
    return world->world.memory.Alloc(rank, bytes, name, offset);
}

void hostsim_map(hostsim_world* world, uint64_t base, uint64_t bytes, int32_t rank,
                 const char* name, void* host) {
    world->world.memory.AddForeign(base, bytes, rank, name, host);
}

void hostsim_unmap(hostsim_world* world, uint64_t base) { world->world.memory.Free(base); }

void hostsim_write(hostsim_world* world, uint64_t address, const void* from, uint64_t bytes,
                   int32_t written) {
    world->world.memory.HostWrite(address, from, bytes, written != 0);
}

int32_t hostsim_read(hostsim_world* world, uint64_t address, void* to, uint64_t bytes,
                     uint8_t* written) {
    return world->world.memory.HostRead(address, to, bytes, written);
}

void hostsim_register(const char* name, uint32_t argument_count, hostsim_kernel kernel) {
    Kernels()[name] = {argument_count, kernel};
}

void hostsim_server(hostsim_world* world, int32_t rank, int32_t server) {
    Cards(world).SetServer(rank, server);
}

void hostsim_add_region(hostsim_world* world, const hostsim_region* region) {
    Cards(world).AddRegion(*region);
}

void hostsim_add_queue(hostsim_world* world, const hostsim_queue* queue) {
    Cards(world).AddQueue(*queue);
}

uint32_t hostsim_launch(hostsim_world* world, int32_t rank, int32_t stream, uint32_t blocks,
                        const char* name, const uint64_t* arguments, uint32_t argument_count) {
    auto at = Kernels().find(name);
    if (at == Kernels().end() || at->second.argument_count != argument_count || blocks == 0)
        return 0;
    std::vector<uint64_t> copy(arguments, arguments + argument_count);
    hostsim_kernel run = at->second.run;
    return world->world.Enqueue(rank, stream, static_cast<int>(blocks), name,
                                [run, copy] { run(copy.data()); });
}

void hostsim_watch(hostsim_world* world, hostsim_gone gone, void* context) {
    world->world.gone = [gone, context](const char* wait, uint32_t peer) {
        return gone(context, wait, peer) != 0;
    };
}

void hostsim_time(hostsim_world* world, const hostsim_machine* machine) {
    world->world.timeline = std::make_unique<hostsim::Timeline>(&world->world, *machine);
}
void hostsim_trace(hostsim_world* world, int32_t ranks) {
    world->world.timeline->StartTrace(ranks);
}
void hostsim_write_trace(hostsim_world* world, const char* path) {
    world->world.timeline->WriteTrace(path);
}

int32_t hostsim_run(hostsim_world* world) { return world->world.Run(); }
int32_t hostsim_run_kernels(hostsim_world* world, uint64_t cards_stop) {
    return world->world.RunKernels(cards_stop);
}

const char* hostsim_findings(hostsim_world* world) {
    return Keep(world, world->world.findings.Json());
}
const char* hostsim_deadlock(hostsim_world* world) { return Keep(world, world->world.deadlock); }
const char* hostsim_counters(hostsim_world* world, uint32_t launch) {
    const hostsim::Launch* found = world->world.Find(launch);
    return Keep(world, found == nullptr ? "{}" : found->counters.Json());
}
const char* hostsim_timing(hostsim_world* world, uint32_t launch) {
    const hostsim::Launch* found = world->world.Find(launch);
    return Keep(world, found == nullptr || !world->world.timeline
                           ? "{}"
                           : world->world.timeline->Json(*found));
}
const char* hostsim_sites(hostsim_world* world) { return Keep(world, world->world.SitesJson()); }
void hostsim_let_die(hostsim_world* world, int32_t rank, uint64_t step) {
    world->world.LetDie(rank, step);
}
const char* hostsim_death(hostsim_world* world) { return Keep(world, world->world.death); }
uint64_t hostsim_steps(hostsim_world* world) { return world->world.steps; }
void hostsim_mutate(hostsim_world* world, const char* site) { world->world.Mutate(site); }
