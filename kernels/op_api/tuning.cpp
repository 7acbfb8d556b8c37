// See tuning.h.
#include "tuning.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "device/abi.h"
#include "entry/world.h"
#include "json.h"
#include "runtime.h"
// clang-format off
#include "core_table.h"  // behind <cstdint>
// clang-format on

namespace ascend_moe {
namespace {

constexpr const char* kVariable = "ASCEND_MOE_TUNING";
constexpr int64_t kBytesMax = 1 << 20;
constexpr double kFormat = 1;

struct Tuning {
    std::string path, problem;
    std::vector<CoreChoice> choices;
};

const char* Product() { return World::OnA2() ? "A2" : "A3"; }

std::string Content(const std::string& path, std::string* problem) {
    struct stat found;
    if (stat(path.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) {
        *problem = "there is no such file";
    } else if (found.st_size > kBytesMax) {
        *problem =
            std::to_string(found.st_size) + " bytes, the limit is " + std::to_string(kBytesMax);
    } else {
        std::ifstream file(path);
        std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        if (file) return text;
        *problem = "it cannot be read";
    }
    return "";
}

std::string Problem(const std::string& key, const Json* value, const std::string& limit) {
    return key + " is " + Json::Said(value) + ", must be " + limit;
}

// A row of the file; its problem, or nothing.
std::string Read(const std::string& at, const Json& row, CoreChoice* choice) {
    if (row.kind != Json::Kind::kObject) return Problem(at, &row, "an object");
    const Json* name = row.Find("operator");
    const auto known =
        std::find_if(std::begin(kTunedNames), std::end(kTunedNames),
                     [&](const char* one) { return name != nullptr && name->text == one; });
    if (known == std::end(kTunedNames)) {
        std::string names;
        for (const char* one : kTunedNames) names += (names.empty() ? "" : ", ") + std::string(one);
        return Problem(at + ".operator", name, "one of " + names);
    }
    choice->op = static_cast<TunedOperator>(known - std::begin(kTunedNames));
    const struct {
        const char* key;
        uint32_t most;
        uint32_t* value;
    } numbers[] = {{"ep", kMaxRanks, &choice->ranks},
                   {"rows", kTunedRowsMax, &choice->rows},
                   {"cores", kMaxCores, &choice->cores}};
    for (const auto& [key, most, value] : numbers) {
        const Json* given = row.Find(key);
        const bool number = given != nullptr && given->kind == Json::Kind::kNumber;
        if (!number || given->number < 1 || given->number > most ||
            given->number != static_cast<uint32_t>(given->number))
            return Problem(at + "." + key, given, "1 to " + std::to_string(most));
        *value = static_cast<uint32_t>(given->number);
    }
    return "";
}

std::string Read(const Json& file, std::vector<CoreChoice>* choices) {
    if (file.kind != Json::Kind::kObject) return Problem("it", &file, "an object");
    const Json* format = file.Find("format");
    if (format != nullptr && (format->kind != Json::Kind::kNumber || format->number != kFormat))
        return Problem("format", format, "1");
    const Json* product = file.Find("product");
    if (product == nullptr || product->text != Product())
        return Problem("product", product, std::string("\"") + Product() + "\" here");
    const Json* virtually = file.Find("virtual");
    if (virtually != nullptr && virtually->kind != Json::Kind::kBool)
        return Problem("virtual", virtually, "true or false");
#ifndef ASCEND_MOE_VIRTUAL_NPU
    if (virtually != nullptr && virtually->truth)
        return "virtual is true: it was measured on the virtual NPU, which says nothing about this "
               "machine. scripts/npu_check --tune measures here";
#endif
    const Json* figures = file.Find("machine");
    if (figures != nullptr && figures->kind != Json::Kind::kObject)
        return Problem("machine", figures, "an object");
    const Json* cores = file.Find("cores");
    if (cores == nullptr) return "";
    if (cores->kind != Json::Kind::kList) return Problem("cores", cores, "a list");
    for (size_t number = 0; number < cores->items.size(); ++number) {
        const std::string at = "cores[" + std::to_string(number) + "]";
        CoreChoice choice{};
        const std::string problem = Read(at, cores->items[number], &choice);
        if (!problem.empty()) return problem;
        for (const CoreChoice& other : *choices) {
            if (other.op == choice.op && other.ranks == choice.ranks && other.rows == choice.rows)
                return at + " says again what " + kTunedNames[static_cast<size_t>(choice.op)] +
                       " takes for ep " + std::to_string(choice.ranks) + " and rows " +
                       std::to_string(choice.rows);
        }
        choices->push_back(choice);
    }
    return "";
}

Tuning ReadFile() {
    Tuning tuning;
    const char* path = getenv(kVariable);
    if (path == nullptr || *path == '\0') return tuning;
    tuning.path = path;
    std::string problem;
    const std::string text = Content(path, &problem);
    Json file;
    if (problem.empty() && !ReadJson(text, &file, &problem)) problem = "no JSON, " + problem;
    if (problem.empty()) problem = Read(file, &tuning.choices);
    if (!problem.empty()) {
        tuning.problem = std::string(kVariable) + "=" + path + ": " + problem;
        tuning.choices.clear();
    }
    return tuning;
}

// Leaked: torch_npu's threads may still call while static objects are destroyed.
const Tuning& OfFile() {
    static const Tuning* tuning = new Tuning(ReadFile());
    return *tuning;
}

TunedOperator OperatorOf(Kernel kernel, const Parameters& p) {
    switch (kernel) {
        case Kernel::kCombine:
            return TunedOperator::kCombine;
        case Kernel::kHierarchyDispatch:
            return p.quant ? TunedOperator::kHierarchyDispatchInt8
                           : TunedOperator::kHierarchyDispatchBf16;
        case Kernel::kHierarchyCombine:
            return TunedOperator::kHierarchyCombine;
        case Kernel::kMeshDispatch:
            return p.quant ? TunedOperator::kMeshDispatchInt8 : TunedOperator::kMeshDispatchBf16;
        case Kernel::kMeshCombine:
            return TunedOperator::kMeshCombine;
        default:
            return p.quant ? TunedOperator::kDispatchInt8 : TunedOperator::kDispatchBf16;
    }
}

// Whether `one` is nearer than `other` to what is wanted: the smallest that is not smaller, else
// the largest.
bool Nearer(uint32_t one, uint32_t other, uint32_t wanted) {
    if ((one >= wanted) != (other >= wanted)) return one >= wanted;
    return one >= wanted ? one < other : one > other;
}

// 0: there is no row for the operator.
uint32_t Chosen(const CoreChoice* first, const CoreChoice* end, TunedOperator op, uint32_t ranks,
                uint32_t rows) {
    const CoreChoice* best = nullptr;
    for (const CoreChoice* one = first; one != end; ++one) {
        if (one->op != op) continue;
        if (best == nullptr || Nearer(one->ranks, best->ranks, ranks) ||
            (one->ranks == best->ranks && Nearer(one->rows, best->rows, rows)))
            best = one;
    }
    return best == nullptr ? 0 : best->cores;
}

uint32_t OfTables(TunedOperator op, const Parameters& p, uint32_t ranks) {
    const uint32_t rows = p.max_batch * p.topk;
    const std::vector<CoreChoice>& file = OfFile().choices;
    const uint32_t measured =
        p.tp ? 0 : Chosen(file.data(), file.data() + file.size(), op, ranks, rows);
    if (measured != 0) return measured;
    return World::OnA2() ? Chosen(std::begin(kCoresOnA2), std::end(kCoresOnA2), op, ranks, rows)
                         : Chosen(std::begin(kCoresOnA3), std::end(kCoresOnA3), op, ranks, rows);
}

std::atomic<uint32_t> forced{0};

}  // namespace

std::string TuningProblem() { return OfFile().problem; }
std::string TuningFile() { return OfFile().path; }

void ForceCores(uint32_t cores) { forced = cores; }

uint32_t Blocks(Kernel kernel, const Parameters& p, const Attributes& a) {
    constexpr uint32_t kRowsPerCore = 4, kPeersPerCore = 16;
    const uint32_t granted = GrantedCores(), ranks = static_cast<uint32_t>(a.ep_world_size);
    if (forced != 0) return std::min<uint32_t>(forced, granted);
    uint32_t wanted = OfTables(OperatorOf(kernel, p), p, ranks);
    if (wanted == 0) wanted = CeilDiv(p.max_batch * (p.topk + p.shared_experts), kRowsPerCore);
    return std::clamp(std::max(wanted, CeilDiv(ranks, kPeersPerCore)), 1u, granted);
}

}  // namespace ascend_moe
