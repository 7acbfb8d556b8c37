// What a caller learns when a call cannot be made, and the few lines of log.
#pragma once

#include <string>

namespace ascend_moe {

// Statuses of aclnn functions, as CANN's own operators return them.
enum Status : int {
    kNullPointer = 161001,
    kBadParameter = 161002,
    kTilingFailure = 561002  // checks of shapes, attributes and sizes
};

// Returns `status`, and leaves the text where torch_npu's exception takes it from.
int Fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));
// This thread's last text; it is gone afterwards.
std::string TakeText();
void Log(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace ascend_moe
