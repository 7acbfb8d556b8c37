// op_api/report.h for the operators of the stand-in itself: straight to aclGetRecentErrMsg.
#include "../../op_api/report.h"

#include <cstdarg>
#include <cstdio>

#include "standin.h"

namespace ascend_moe {

int Fail(int status, const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return standin::Fail(status, "%s", text);
}

}  // namespace ascend_moe
