// A timeline in the format of chrome://tracing and ui.perfetto.dev: a process per rank, a track per
// pipe of each core, counters for the links.
#pragma once

#include <string>
#include <vector>

#include "findings.h"
#include "links.h"

namespace hostsim {

class Trace {
 public:
    explicit Trace(int ranks) : ranks_(ranks) {}

    // What a pipe of a core was busy with, or waited for.
    void Add(int rank, int core, int pipe, const char* what, Loc loc, Picoseconds from,
             Picoseconds to, uint64_t bytes = 0);
    void Write(const std::string& path, const Links& links) const;

 private:
    struct Span {
        int rank, core, pipe;
        const char* what;
        Loc loc;
        Picoseconds from, to;
        uint64_t bytes;
    };
    const int ranks_;  // the first ones are recorded
    std::vector<Span> spans_;
};

}  // namespace hostsim
