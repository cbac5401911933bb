#include "json.h"

#include <Python.h>

#include <charconv>
#include <cmath>
#include <string>

namespace det_coco {

namespace {

constexpr int kDeepest = 32;
constexpr double kFarthest = 1099511627776.0;  // 2^40, see `_records.py`
constexpr double kTens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                            1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The nearest double to a decimal number; false where it is out of range.
bool nearest(const char* first, const char* last, double& value) {
#if defined(__cpp_lib_to_chars) && __cpp_lib_to_chars >= 201611L
  return std::from_chars(first, last, value).ec == std::errc();
#else
  value = PyOS_string_to_double(std::string(first, last).c_str(), nullptr, nullptr);
  if (PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return std::isfinite(value);
#endif
}

}  // namespace

bool Json::word(std::string_view wanted) {
  if (static_cast<size_t>(end_ - at_) < wanted.size() || std::string_view(at_, wanted.size()) != wanted) return false;
  at_ += wanted.size();
  return true;
}

bool Json::plain_text(std::string_view& text) {
  if (!take('"')) return false;
  const char* first = at_;
  for (; at_ < end_; ++at_) {
    const auto c = static_cast<unsigned char>(*at_);
    if (c == '"') {
      text = std::string_view(first, at_ - first);
      ++at_;
      return true;
    }
    if (c < 0x20 || c >= 0x80 || c == '\\') return false;
  }
  return false;
}

bool Json::number(double& value, bool& whole, int64_t& integer) {
  peek();
  const char* first = at_;
  const bool negative = at_ < end_ && *at_ == '-';
  if (negative) ++at_;
  const char* digits = at_;
  uint64_t mantissa = 0;
  int64_t exponent = 0;
  while (at_ < end_ && is_digit(*at_)) mantissa = mantissa * 10 + static_cast<uint64_t>(*at_++ - '0');
  int64_t count = at_ - digits;
  if (count == 0 || (count > 1 && *digits == '0')) return false;
  whole = true;
  if (at_ < end_ && *at_ == '.') {
    const char* fraction = ++at_;
    while (at_ < end_ && is_digit(*at_)) mantissa = mantissa * 10 + static_cast<uint64_t>(*at_++ - '0');
    if (at_ == fraction) return false;
    exponent = fraction - at_;
    count -= exponent;
    whole = false;
  }
  if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
    ++at_;
    const bool down = at_ < end_ && *at_ == '-';
    if (at_ < end_ && (*at_ == '-' || *at_ == '+')) ++at_;
    const char* power = at_;
    int64_t shift = 0;
    while (at_ < end_ && is_digit(*at_) && shift < 100000) shift = shift * 10 + (*at_++ - '0');
    if (at_ == power || (at_ < end_ && is_digit(*at_))) return false;
    exponent += down ? -shift : shift;
    whole = false;
  }
  whole = whole && count <= 18;
  if (whole) {
    integer = negative ? -static_cast<int64_t>(mantissa) : static_cast<int64_t>(mantissa);
    value = static_cast<double>(integer);
    return true;
  }
  // Both are exact, so that one rounding gives the nearest double (Clinger, "How to read floating point numbers").
  if (count <= 19 && mantissa <= (uint64_t{1} << 53) && exponent >= -22 && exponent <= 22) {
    value = static_cast<double>(mantissa);
    value = exponent < 0 ? value / kTens[-exponent] : value * kTens[exponent];
    if (negative) value = -value;
    return true;
  }
  return nearest(first, at_, value);
}

bool Json::coordinate(double& value) {
  bool whole;
  int64_t integer;
  return number(value, whole, integer) && value >= -kFarthest && value <= kFarthest;
}

bool Json::integer(int64_t& value) {
  bool whole;
  double real;
  return number(real, whole, value) && whole;
}

bool Json::skip_checked(int depth) {
  if (depth > kDeepest) return false;
  std::string_view text;
  switch (peek()) {
    case '"':
      return plain_text(text);
    case 't':
      return word("true");
    case 'f':
      return word("false");
    case 'n':
      return word("null");
    case '[':
      take('[');
      if (take(']')) return true;
      do {
        if (!skip_checked(depth + 1)) return false;
      } while (take(','));
      return take(']');
    case '{':
      take('{');
      if (take('}')) return true;
      do {
        if (!plain_text(text) || !take(':') || !skip_checked(depth + 1)) return false;
      } while (take(','));
      return take('}');
    default: {
      double value;
      bool whole;
      int64_t integer;
      return number(value, whole, integer);
    }
  }
}

bool Json::skip_text() {
  for (++at_; at_ < end_; ++at_) {
    if (*at_ == '\\') {
      ++at_;
    } else if (*at_ == '"') {
      ++at_;
      return true;
    }
  }
  return false;
}

bool Json::skip() {
  int64_t depth = 0;
  while (at_ < end_) {
    const char c = *at_;
    if (c == '"') {
      if (!skip_text()) return false;
      continue;
    }
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (depth < 0 || (depth == 0 && c == ',')) return true;
    ++at_;
  }
  return false;
}

}  // namespace det_coco
