#include "trace.h"

#include <cstdio>
#include <fstream>
#include <set>
#include <tuple>

namespace hostsim {

namespace {

constexpr const char* kTracks[] = {"S", "V", "MTE2", "MTE3"};
constexpr int kTracksPerCore = 4;

std::string Microseconds(Picoseconds time) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", static_cast<double>(time) / 1e6);
    return text;
}

}  // namespace

void Trace::Add(int rank, int core, int pipe, const char* what, Loc loc, Picoseconds from,
                Picoseconds to, uint64_t bytes) {
    if (rank < ranks_ && to > from)
        spans_.push_back({rank, core, pipe, what, loc, from, to, bytes});
}

void Trace::Write(const std::string& path, const Links& links) const {
    std::ofstream out(path);
    std::set<int> ranks;
    std::set<std::tuple<int, int, int>> tracks;
    out << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
    const char* comma = "";
    for (const Span& span : spans_) {
        const int track = span.core * kTracksPerCore + span.pipe;
        if (ranks.insert(span.rank).second) {
            out << comma << R"({"ph":"M","name":"process_name","pid":)" << span.rank
                << R"(,"args":{"name":"rank )" << span.rank << "\"}}";
            comma = ",\n";
        }
        if (tracks.insert({span.rank, span.core, span.pipe}).second) {
            out << comma << R"({"ph":"M","name":"thread_name","pid":)" << span.rank
                << ",\"tid\":" << track << R"(,"args":{"name":"core )" << span.core << " "
                << kTracks[span.pipe] << "\"}}";
            out << ",\n"
                << R"({"ph":"M","name":"thread_sort_index","pid":)" << span.rank
                << ",\"tid\":" << track << ",\"args\":{\"sort_index\":" << track << "}}";
        }
        out << comma << R"({"ph":"X","pid":)" << span.rank << ",\"tid\":" << track
            << ",\"ts\":" << Microseconds(span.from)
            << ",\"dur\":" << Microseconds(span.to - span.from)
            << ",\"name\":" << JsonString(span.what)
            << ",\"args\":{\"at\":" << JsonString(span.loc.Text());
        if (span.bytes != 0) out << ",\"bytes\":" << span.bytes;
        out << "}}";
    }
    for (const auto& [rank, sent] : links.Counted()) {
        if (rank >= ranks_) continue;
        for (const auto& [name, slices] :
             {std::pair{"link out, GB/s", &sent.out}, std::pair{"link in, GB/s", &sent.in}}) {
            for (size_t slice = 0; slice <= slices->size(); ++slice) {
                const double bytes = slice < slices->size() ? (*slices)[slice] : 0;
                out << comma << R"({"ph":"C","pid":)" << rank
                    << ",\"ts\":" << Microseconds(static_cast<Picoseconds>(slice) * Links::kSlice)
                    << ",\"name\":\"" << name
                    << "\",\"args\":{\"GB/s\":" << bytes * 1000.0 / Links::kSlice << "}}";
                comma = ",\n";
            }
        }
    }
    out << "\n]}\n";
}

}  // namespace hostsim
