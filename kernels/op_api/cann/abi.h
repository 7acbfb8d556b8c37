// CANN's functions that this library uses and the acl headers do not declare; each with its source.
#pragma once

#include <cstdint>

#include "acl/acl.h"
