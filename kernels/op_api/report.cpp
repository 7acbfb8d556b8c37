// See report.h.
#include "report.h"

#include <cstdarg>
#include <cstdio>

#include "standin.h"

namespace ascend_moe {
namespace {

thread_local std::string last_text;

std::string Formatted(const char* format, va_list arguments) {
    char text[4096];
    vsnprintf(text, sizeof(text), format, arguments);
    return text;
}

}  // namespace

int Fail(int status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    last_text = Formatted(format, arguments);
    va_end(arguments);
    return standin::Fail(status, "%s", last_text.c_str());
}

std::string TakeText() {
    std::string text;
    text.swap(last_text);
    return text;
}

void Log(aclLogLevel level, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const std::string text = Formatted(format, arguments);
    va_end(arguments);
    aclAppLog(level, "ascend_moe", "libcust_opapi.so", 0, "%s", text.c_str());
}

}  // namespace ascend_moe
