// JSON (RFC 8259), as far as a tuning file needs it: read whole, kept in order.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ascend_moe {

struct Json {
    enum class Kind { kNull, kBool, kNumber, kText, kList, kObject };

    Kind kind = Kind::kNull;
    bool truth = false;
    double number = 0;
    std::string text;
    std::vector<Json> items;
    std::vector<std::pair<std::string, Json>> members;

    // Of an object; null if it has none of that name.
    const Json* Find(const std::string& name) const;
    // For a message; "missing" for a member that is not there.
    static std::string Said(const Json* value);
};

// Whether `text` is one value; else `problem` says what is wrong, and in which line.
bool ReadJson(const std::string& text, Json* value, std::string* problem);

}  // namespace ascend_moe
