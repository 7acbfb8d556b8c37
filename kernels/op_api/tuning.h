// On how many cores a call is launched.
//
//   1. the rows of ASCEND_MOE_TUNING for its operator, if that names a file which has some: what
//      scripts/npu_check --tune has measured on this machine. Read once per process, checked when a
//      group is opened
//   2. else the rows of core_table.h: a search over the timed simulator
//   3. else a rule: a core for every few rows
//
// kernels/proof/tuning.py describes the file, and which of its rows a call takes. At least a core
// for every 16 ranks, at most what the thread is granted.
//
// Ranks need not come to the same number, but for the two of a TP pair, each of which has half of
// every core's ring: for them nothing counts that may differ between two processes, so no file.
#pragma once

#include <cstdint>  // before abi.h
#include <string>

#include "device/abi.h"
#include "entry/arguments.h"
#include "launch.h"

namespace ascend_moe {

// Why the file cannot be used: which key, which value, which limit. Empty: it can, or there is
// none.
std::string TuningProblem();
// Its path; empty: there is none.
std::string TuningFile();

uint32_t Blocks(Kernel kernel, const Parameters& p, const Attributes& a);

// For scripts/npu_check: so many cores from now on, whatever the tables say; 0 ends it.
void ForceCores(uint32_t cores);

}  // namespace ascend_moe
