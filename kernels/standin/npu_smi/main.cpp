// npu-smi: what scripts ask it before they use torch_npu, in the words of the real one.
//
//   npu-smi info           the table of devices
//   npu-smi info -l        cards and their chips          npu-smi info -m    card, chip, device,
//   name npu-smi info -t board -i CARD   the name of a chip     npu-smi info -t topo   who is
//   linked to whom
//
// Every answer says "virtual NPU". Anything else ends with 1: no number is made up. An A3 card has
// two chips, so its 16 devices are 8 cards. The forms are those that public scripts parse:
// DeepSpeed (tests/unit/common.py, the first line of -l), vllm-ascend (vllm_ascend/cpu_binding.py,
// setup.py), and the driver's own documentation of `npu-smi info -l`.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "../ascendcl/soc.h"
#include "standin.h"

namespace {

using standin::CurrentSoc;

constexpr char kVirtual[] = "virtual NPU";

struct Machine {
    int devices;
    int chips_of_card;
    std::string chip;   // Ascend910, 910B3
    std::string model;  // 9392, or the same as the chip

    int cards() const { return (devices + chips_of_card - 1) / chips_of_card; }
    int ChipsOf(int card) const { return std::min(chips_of_card, devices - card * chips_of_card); }
};

Machine Here() {
    uint32_t devices = 0;
    aclrtGetDeviceCount(&devices);
    const std::string soc = CurrentSoc().name;
    const size_t split = soc.find('_');
    if (split == std::string::npos) {
        const std::string chip = soc.substr(strlen("Ascend"));
        return {static_cast<int>(devices), 1, chip, chip};
    }
    return {static_cast<int>(devices), 2, soc.substr(0, split), soc.substr(split + 1)};
}

void Table(const Machine& machine) {
    const char* line =
        "+---------------------------+---------------+---------------------------------------------"
        "--"
        "-----+\n";
    const char* thick =
        "+===========================+===============+============================================="
        "=="
        "=====+\n";
    const char* across =
        "+-----------------------------------------------------------------------------------------"
        "-"
        "------+\n";
    const int64_t memory_mb = standin::IntegerOption("ASCEND_MOE_VNPU_MEMORY_GB", 64) * 1024;
    printf("%s| npu-smi 0.0.0 (%s)     %-63s|\n%s", across, kVirtual,
           "Version: 0.0.0 (no driver, no device)", line);
    printf(
        "| NPU   Name                | Health        | Power(W)    Temp(C)           "
        "Hugepages-Usage(page)|\n");
    printf(
        "| Chip  Phy-ID              | Bus-Id        | AICore(%%)   Memory-Usage(MB)  "
        "HBM-Usage(MB)        |\n%s",
        thick);
    for (int device = 0; device < machine.devices; ++device) {
        printf(
            "| %-6d%-20s| OK            | 0.0         0                 0    / 0             |\n",
            device / machine.chips_of_card, machine.chip.c_str());
        printf("| %-6d%-20d| 0000:%02X:00.0  | 0           0    / 0          0    / %-14lld|\n%s",
               device % machine.chips_of_card, device, device, static_cast<long long>(memory_mb),
               thick);
    }
    printf(
        "%s| NPU     Chip              | Process id    | Process name             | Process "
        "memory(MB)      |\n%s",
        line, thick);
    for (int card = 0; card < machine.cards(); ++card)
        printf("| No running processes found in NPU %-61d|\n%s", card, thick);
}

void List(const Machine& machine) {
    printf("\tTotal Count                    : %d\n", machine.cards());
    for (int card = 0; card < machine.cards(); ++card) {
        printf("\n\tNPU ID                         : %d\n", card);
        printf("\tProduct Name                   : %s (%s)\n", kVirtual, CurrentSoc().product);
        printf("\tChip Count                     : %d\n", machine.ChipsOf(card));
    }
}

void Map(const Machine& machine) {
    const char* row = "\t%-30s %-30s %-30s %s%s\n";
    printf(row, "NPU ID", "Chip ID", "Chip Logic ID", "Chip Name", "  (virtual NPU)");
    for (int device = 0; device < machine.devices; ++device) {
        printf(row, std::to_string(device / machine.chips_of_card).c_str(),
               std::to_string(device % machine.chips_of_card).c_str(),
               std::to_string(device).c_str(), machine.chip.c_str(), "");
    }
}

const char* Link(int from, int to) {
    if (from == to) return "X";
    return standin::PlaceOf(from).pod == standin::PlaceOf(to).pod ? "HCCS" : "NA";
}

void Topology(const Machine& machine) {
    printf("%-11s", "");
    for (int to = 0; to < machine.devices; ++to)
        printf("%-11s", ("NPU" + std::to_string(to)).c_str());
    printf("CPU Affinity\n");
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    for (int from = 0; from < machine.devices; ++from) {
        printf("%-11s", ("NPU" + std::to_string(from)).c_str());
        for (int to = 0; to < machine.devices; ++to) printf("%-11s", Link(from, to));
        printf("0-%ld\n", processors - 1);
    }
    printf(
        "\nLegend:\n\n  X    = Self\n  HCCS = Played by shared memory (%s, no links)\n"
        "  NA   = In another server: no link that npu-smi knows\n",
        kVirtual);
}

void Board(const Machine& machine, int card) {
    printf("\tNPU ID                         : %d\n", card);
    printf("\tProduct Name                   : %s (%s)\n", kVirtual, CurrentSoc().product);
    printf("\tChip Name                      : %s\n", machine.chip.c_str());
    printf("\tNPU Name                       : %s\n", machine.model.c_str());
    printf("\tChip Count                     : %d\n", machine.ChipsOf(card));
}

int Refuse(const std::string& asked) {
    fprintf(stderr,
            "npu-smi (%s): \"%s\" is not answered here; these are: info, info -l, info -m, info -t "
            "topo, info -t board -i CARD\n",
            kVirtual, asked.c_str());
    return 1;
}

}  // namespace

int main(int count, char** arguments) {
    std::string asked;
    for (int i = 1; i < count; ++i) asked += (i > 1 ? " " : "") + std::string(arguments[i]);
    const Machine machine = Here();
    if (asked == "info") {
        Table(machine);
    } else if (asked == "info -l") {
        List(machine);
    } else if (asked == "info -m") {
        Map(machine);
    } else if (asked == "info -t topo") {
        Topology(machine);
    } else if (asked.rfind("info -t board -i ", 0) == 0) {
        int card = -1;
        sscanf(asked.c_str(), "info -t board -i %d", &card);
        if (card < 0 || card >= machine.cards()) return Refuse(asked);
        Board(machine, card);
    } else {
        return Refuse(asked);
    }
    return 0;
}
