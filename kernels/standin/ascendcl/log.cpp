// Error text, the last error of a thread, and logging: aclGetRecentErrMsg, aclrtGetLastError,
// aclAppLog.
//
// CANN keeps the most recent error text per thread and hands it out once; torch_npu puts it into
// the exception it raises. Apart from that the runtime keeps the code of the last of its calls that
// failed in a thread: aclrtPeekAtLastError reads it, aclrtGetLastError also clears it (acl_rt.h). A
// kernel launch by <<<>>> returns nothing, so this is where its failure shows. aclAppLog goes to
// the plog files on hardware; here ASCEND_SLOG_PRINT_TO_STDOUT=1 prints it, as with CANN.
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "standin.h"

namespace {

thread_local std::string recent_error;
thread_local aclError last_error = ACL_SUCCESS;

// Codes of the runtime: 107xxx, 207xxx, 507xxx (rt_error_codes.h).
bool OfRuntime(int code) { return code / 1000 % 100 == 7; }

int LowestPrintedLevel() {
    const char* print = getenv("ASCEND_SLOG_PRINT_TO_STDOUT");
    if (print == nullptr || strcmp(print, "1") != 0) return INT32_MAX;
    const char* level = getenv("ASCEND_GLOBAL_LOG_LEVEL");
    return level == nullptr ? ACL_ERROR : atoi(level);
}

}  // namespace

namespace standin {

int Fail(int code, const char* format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    // A text that is passed on has the prefix already.
    const char* prefix = strstr(text, "[virtual NPU]") == nullptr ? "[virtual NPU] " : "";
    recent_error = std::string(prefix) + text;
    if (OfRuntime(code)) last_error = code;
    return code;
}

std::string TakeRecentError() {
    std::string text;
    text.swap(recent_error);
    return text;
}

int64_t IntegerOption(const char* name, int64_t fallback) {
    const char* text = getenv(name);
    if (text == nullptr || *text == '\0') return fallback;
    char* end = nullptr;
    int64_t value = strtoll(text, &end, 10);
    if (*end == '\0') return value;
    fprintf(stderr, "[virtual NPU] %s=%s is not an integer; %" PRId64 " is used\n", name, text,
            fallback);
    return fallback;
}

}  // namespace standin

extern "C" {

aclError aclrtPeekAtLastError(aclrtLastErrLevel) { return last_error; }

aclError aclrtGetLastError(aclrtLastErrLevel) {
    const aclError error = last_error;
    last_error = ACL_SUCCESS;
    return error;
}

// Null when there is none: hicann/runtime:src/acl/aclrt_impl/acl.cpp:1232, v9.0.0.
const char* aclGetRecentErrMsg() {
    static thread_local std::string handed_out;
    handed_out = standin::TakeRecentError();
    return handed_out.empty() ? nullptr : handed_out.c_str();
}

void aclAppLog(aclLogLevel level, const char* func, const char* file, uint32_t line,
               const char* format, ...) {
    static const int lowest = LowestPrintedLevel();
    if (level < lowest) return;
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    printf("[%s] (%d) %s:%u %s: %s\n", level == ACL_ERROR ? "ERROR" : "LOG", getpid(), file, line,
           func, text);
    fflush(stdout);  // processes may end without
}

}  // extern "C"
