// Telling the caller: a status with a text that reaches Python's exception, and one line for the
// log.
#pragma once

#include <string>

#include "acl/acl.h"

namespace ascend_moe {

// Status codes of aclnn functions.
constexpr int kNullPointer = 161001;
constexpr int kBadParameter = 161002;
constexpr int kInnerError = 561002;

// Gives `status` a text and returns it: return Fail(kBadParameter, "which: which value, which
// limit"). The text goes where aclGetRecentErrMsg finds it; see report.cpp.
int Fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));

// This thread's last text, which is forgotten; empty when there is none.
std::string TakeText();

// What CANN tells of this thread's last error, which it then forgets; empty when it tells nothing.
std::string RuntimeText();

// One line in CANN's log (plog); ACL_DEBUG, ACL_INFO, ACL_WARNING or ACL_ERROR.
void Log(aclLogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace ascend_moe
