#pragma once

#include <cstdint>
#include <string_view>

namespace det_coco {

// A place in JSON text. Every reader returns whether it found what it is for; if not, the place is anywhere.
class Json {
 public:
  Json(const char* text, size_t size) : begin_(text), at_(text), end_(text + size) {}

  int64_t place() const { return at_ - begin_; }
  void go(int64_t place) { at_ = begin_ + place; }

  // The next character that is no space, 0 at the end.
  char peek() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    return at_ < end_ ? *at_ : '\0';
  }
  bool take(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }
  // The next character whatever it is, 0 at the end.
  char next() { return at_ < end_ ? *at_++ : '\0'; }
  bool word(std::string_view wanted);

  // A text of ASCII without escapes.
  bool plain_text(std::string_view& text);
  // Any number; `whole` tells whether it is written as an integer of at most 18 digits, whose value is `integer`.
  bool number(double& value, bool& whole, int64_t& integer);
  // A finite number of a size that coordinates can have.
  bool coordinate(double& value);
  bool integer(int64_t& value);

  // Steps over a value, checking its form; refuses what needs a closer look (escapes, other scripts, deep nesting).
  bool skip_checked(int depth = 0);
  // Steps over a value without a look at anything but brackets and texts.
  bool skip();

 private:
  bool skip_text();

  const char *begin_, *at_, *end_;
};

}  // namespace det_coco
