// The subset of AscendC that kernels/device uses, for g++. Names, units and numerics are those of
// the CANN headers (asc-devkit v8.5.0 include/basic_api); the machine model behind them is written
// down in docs/hostsim.md.
#pragma once

#define ASCEND_MOE_HOSTSIM 1

#include "api/cast.h"
#include "api/copy.h"
#include "api/pipe.h"
#include "api/queue.h"
#include "api/sync.h"
#include "api/tensor.h"
#include "api/types.h"
#include "api/vector.h"
