// The door of CANN's error manager for other libraries: their texts come out of aclGetRecentErrMsg,
// behind those that are waiting already, each once. As there, a text of 1024 bytes or more is
// dropped.
#include <cstdio>

#include "standin.h"

namespace error_message {

constexpr int kTextBytes = 1024;

STANDIN_API int32_t ReportUserDefinedErrMsg(const char* code, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

int32_t ReportUserDefinedErrMsg(const char* code, const char* format, ...) {
    char text[kTextBytes];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (length < 0 || length >= kTextBytes) return -1;
    const std::string waiting = standin::TakeRecentError();
    if (waiting.find(text) != std::string::npos) {
        standin::Fail(0, "%s", waiting.c_str());
    } else {
        const char* gap = waiting.empty() ? "" : "\n";
        standin::Fail(0, "%s%s%s: %s", waiting.c_str(), gap, code, text);
    }
    return 0;
}

}  // namespace error_message
