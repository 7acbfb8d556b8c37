// See json.h.
#include "json.h"

#include <algorithm>
#include <cstring>
#include <locale>
#include <sstream>

namespace ascend_moe {
namespace {

constexpr int kDeepest = 32;
constexpr size_t kShown = 60;

class Reader {
 public:
    explicit Reader(const std::string& text) : text_(text) {}

    bool Whole(Json* value, std::string* problem) {
        Space();
        bool good = Value(value, 0);
        Space();
        if (good && at_ < text_.size()) good = Fail("something behind the end");
        if (!good) *problem = problem_;
        return good;
    }

 private:
    bool Fail(const std::string& what) {
        const size_t end = std::min(at_, text_.size());
        const auto line = 1 + std::count(text_.begin(), text_.begin() + end, '\n');
        problem_ = "line " + std::to_string(line) + ": " + what;
        return false;
    }

    void Space() {
        while (at_ < text_.size() && strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0')
            ++at_;
    }
    bool Next(char wanted) {
        if (at_ >= text_.size() || text_[at_] != wanted) return false;
        ++at_;
        return true;
    }
    bool Word(const char* word) {
        if (text_.compare(at_, strlen(word), word) != 0) return false;
        at_ += strlen(word);
        return true;
    }

    bool Value(Json* value, int depth) {
        if (depth > kDeepest) return Fail("nested too deeply");
        if (at_ >= text_.size()) return Fail("ends too early");
        switch (text_[at_]) {
            case '{':
                return Object(value, depth);
            case '[':
                return List(value, depth);
            case '"':
                value->kind = Json::Kind::kText;
                return Text(&value->text);
        }
        if (Word("null")) return true;
        value->kind = Json::Kind::kBool;
        value->truth = text_[at_] == 't';
        if (Word("true") || Word("false")) return true;
        return Number(value);
    }

    bool Object(Json* value, int depth) {
        value->kind = Json::Kind::kObject;
        ++at_;
        Space();
        if (Next('}')) return true;
        do {
            Space();
            std::pair<std::string, Json> member;
            if (at_ >= text_.size() || text_[at_] != '"') return Fail("a name is missing");
            if (!Text(&member.first)) return false;
            if (value->Find(member.first) != nullptr)
                return Fail("\"" + member.first + "\" for the second time");
            Space();
            if (!Next(':')) return Fail("':' is missing");
            Space();
            if (!Value(&member.second, depth + 1)) return false;
            value->members.push_back(std::move(member));
            Space();
        } while (Next(','));
        return Next('}') || Fail("',' or '}' is missing");
    }

    bool List(Json* value, int depth) {
        value->kind = Json::Kind::kList;
        ++at_;
        Space();
        if (Next(']')) return true;
        do {
            Space();
            value->items.emplace_back();
            if (!Value(&value->items.back(), depth + 1)) return false;
            Space();
        } while (Next(','));
        return Next(']') || Fail("',' or ']' is missing");
    }

    // What is not ASCII stands for itself; no name that is asked for has any.
    bool Text(std::string* text) {
        static constexpr char kEscaped[] = "\"\\/bfnrt", kMeant[] = "\"\\/\b\f\n\r\t";
        for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
            if (static_cast<unsigned char>(text_[at_]) < ' ') return Fail("a text without end");
            if (text_[at_] != '\\') {
                *text += text_[at_];
                continue;
            }
            const char escaped = ++at_ < text_.size() ? text_[at_] : '\0';
            const char* known = escaped == '\0' ? nullptr : strchr(kEscaped, escaped);
            if (known != nullptr) {
                *text += kMeant[known - kEscaped];
            } else if (escaped == 'u' && text_.size() - at_ > 4) {
                *text += "\\" + text_.substr(at_, 5);
                at_ += 4;
            } else {
                return Fail("an unknown escape in a text");
            }
        }
        return Next('"') || Fail("a text without end");
    }

    // In the form of C whatever the locale of the process.
    bool Number(Json* value) {
        const size_t end = std::min(text_.find_first_not_of("+-.0123456789eE", at_), text_.size());
        std::istringstream digits(text_.substr(at_, end - at_));
        digits.imbue(std::locale::classic());
        value->kind = Json::Kind::kNumber;
        if (end == at_ || !(digits >> value->number) || digits.peek() != EOF)
            return Fail("no value of JSON");
        at_ = end;
        return true;
    }

    const std::string& text_;
    size_t at_ = 0;
    std::string problem_;
};

}  // namespace

const Json* Json::Find(const std::string& name) const {
    for (const auto& [known, value] : members) {
        if (known == name) return &value;
    }
    return nullptr;
}

std::string Json::Said(const Json* value) {
    if (value == nullptr || value->kind == Kind::kNull) return "missing";
    std::ostringstream said;
    said.imbue(std::locale::classic());
    switch (value->kind) {
        case Kind::kBool:
            said << (value->truth ? "true" : "false");
            break;
        case Kind::kNumber:
            said << value->number;
            break;
        case Kind::kText:
            said << '"' << value->text << '"';
            break;
        default:
            said << (value->kind == Kind::kList ? "a list" : "an object");
    }
    return said.str().substr(0, kShown);
}

bool ReadJson(const std::string& text, Json* value, std::string* problem) {
    *value = Json();
    return Reader(text).Whole(value, problem);
}

}  // namespace ascend_moe
