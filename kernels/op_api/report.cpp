// See report.h.
//
// aclGetRecentErrMsg, which torch_npu puts into its exception, hands out what libraries have told
// CANN's error manager. The door for others than CANN is ReportUserDefinedErrMsg; where it is
// missing (or refuses), the text goes to CANN's log, so that at least the plog has it. A text also
// waits in this thread for TakeText: with TASK_QUEUE_ENABLE=2 phase one runs on a thread of
// torch_npu that drops texts, and the text has to travel with the stream.
#include "report.h"

#include <cstdarg>
#include <cstdio>

#include "cann/symbols.h"

namespace ascend_moe {
namespace {

thread_local std::string last_text;

std::string Formatted(const char* format, va_list arguments) {
    char text[4096];
    vsnprintf(text, sizeof(text), format, arguments);
    return text;
}

// The error manager drops what is too long instead of cutting it. The end is what to do about the
// error, so the middle goes.
std::string Shortened(const std::string& text, size_t limit) {
    if (text.size() < limit) return text;
    const std::string gap = " [...] ";
    const size_t half = (limit - 1 - gap.size()) / 2;
    return text.substr(0, half) + gap + text.substr(text.size() - half);
}

bool TellCann(const std::string& text) {
    const cann::ReportUserError report = cann::Cann().report_user_error;
    return report != nullptr &&
           report("EU0000", "%s", Shortened(text, cann::kUserErrorBytes).c_str()) == 0;
}

}  // namespace

int Fail(int status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    last_text = Formatted(format, arguments);
    va_end(arguments);
    if (!TellCann(last_text)) Log(ACL_ERROR, "%s", last_text.c_str());
    return status;
}

std::string TakeText() {
    std::string text;
    text.swap(last_text);
    return text;
}

std::string RuntimeText() {
    const char* text = aclGetRecentErrMsg();
    return text == nullptr ? "" : text;
}

void Log(aclLogLevel level, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const std::string text = Formatted(format, arguments);
    va_end(arguments);
    aclAppLog(level, "ascend_moe", "libcust_opapi.so", 0, "%s", text.c_str());
}

}  // namespace ascend_moe
