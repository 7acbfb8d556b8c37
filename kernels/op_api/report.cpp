#include "report.h"

#include <cstdarg>
#include <cstdio>

#include "standin.h"
namespace ascend_moe {
int Fail(int status, const char* format, ...) {
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return standin::Fail(status, "%s", text);
}
std::string TakeText() { return standin::TakeRecentError(); }
void Log(const char* format, ...) { (void)format; }
}  // namespace ascend_moe
