#include "findings.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace hostsim {

std::string JsonString(const std::string& text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (c == '\n') {
            out += "\\n";
        } else {
            out += c;
        }
    }
    return out + "\"";
}

std::string Loc::Text() const {
    // A header that was first included from another folder carries the way there in its name.
    std::string path = std::filesystem::path(file).lexically_normal().string();
    size_t at = path.rfind("kernels/");
    if (at != std::string::npos) path = path.substr(at);
    return path + ":" + std::to_string(line);
}

void Findings::Add(const std::string& kind, const std::string& kernel, Loc loc, int rank, int core,
                   const std::string& text) {
    std::string where = loc.Text();
    auto [at, added] = index_.emplace(kind + "|" + kernel + "|" + where, all_.size());
    if (added) {
        all_.push_back({kind, kernel, where, text, rank, core, 1});
    } else {
        ++all_[at->second].times;
    }
}

std::string Findings::Json() const {
    std::string out = "[";
    for (const Finding& f : all_) {
        if (out.size() > 1) out += ",";
        out += "{\"kind\":" + JsonString(f.kind) + ",\"kernel\":" + JsonString(f.kernel) +
               ",\"where\":" + JsonString(f.where) + ",\"rank\":" + std::to_string(f.rank) +
               ",\"core\":" + std::to_string(f.core) + ",\"times\":" + std::to_string(f.times) +
               ",\"text\":" + JsonString(f.text) + "}";
    }
    return out + "]";
}

void Counters::Merge(const Counters& o) {
    read_own += o.read_own;
    read_remote += o.read_remote;
    write_own += o.write_own;
    write_remote += o.write_remote;
    scalar_read += o.scalar_read;
    scalar_write += o.scalar_write;
    poll_bytes += o.poll_bytes;
    polls += o.polls;
    vector_instructions += o.vector_instructions;
    vector_elements += o.vector_elements;
    messages += o.messages;
    message_bytes += o.message_bytes;
    sync_alls += o.sync_alls;
    peak_ub = std::max(peak_ub, o.peak_ub);
    clock_reads += o.clock_reads;
    for (auto [size, count] : o.copies) copies[size] += count;
}

void Counters::CountCopy(uint64_t bytes) {
    uint64_t size = 32;
    while (size < bytes) size *= 2;
    ++copies[size];
}

std::string Counters::Json() const {
    std::string out = "{";
    auto field = [&](const char* name, uint64_t value) {
        out += "\"" + std::string(name) + "\":" + std::to_string(value) + ",";
    };
    field("read_own", read_own);
    field("read_remote", read_remote);
    field("write_own", write_own);
    field("write_remote", write_remote);
    field("scalar_read", scalar_read);
    field("scalar_write", scalar_write);
    field("poll_bytes", poll_bytes);
    field("polls", polls);
    field("vector_instructions", vector_instructions);
    field("vector_elements", vector_elements);
    field("messages", messages);
    field("message_bytes", message_bytes);
    field("sync_alls", sync_alls);
    field("peak_ub", peak_ub);
    field("clock_reads", clock_reads);
    out += "\"copies\":{";
    bool first = true;
    for (auto [size, count] : copies) {
        out += (first ? "\"" : ",\"") + std::to_string(size) + "\":" + std::to_string(count);
        first = false;
    }
    return out + "}}";
}

}  // namespace hostsim
