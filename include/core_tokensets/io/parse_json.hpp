#pragma once
// JSON that someone else may have written (RFC 8259), read in one pass.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

namespace detail {

/// A place in a JSON text, moved along by reading; `where` begins the messages. Values may be read into trees, passed
/// over, or handed on one by one where a tree would be too large.
class json_reader {
 public:
  json_reader(std::string_view text, std::string_view where, int deepest)
      : text_(text), where_(where), deepest_(deepest) {
    if (text.starts_with("\xef\xbb\xbf")) at_ = 3;  // a mark that some programs put before UTF-8
    space();
  }

  /// The first character of what comes next, 0 at the end.
  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  [[noreturn]] void refuse(std::string_view what) const {
    fail(where_, " is not valid JSON: ", what, " at byte ", at_);
  }

  /// Reads an object: calls `member(key)`, which reads the value.
  template <class Member>
  void object(const Member& member) {
    entries('{', '}', [&] {
      if (next() != '"') refuse("expected a key in quotes");
      std::string key = string();
      space();
      if (next() != ':') refuse("expected ':'");
      ++at_;
      space();
      member(std::move(key));
    });
  }

  /// Reads an array: calls `element()`, which reads a value.
  template <class Element>
  void array(const Element& element) {
    entries('[', ']', element);
  }

  json value() {
    if (next() == '{') {
      std::vector<json::member> members;
      object([&](std::string key) { members.emplace_back(std::move(key), value()); });
      refuse_repeated(members);
      return json::object(std::move(members));
    }
    if (next() == '[') {
      std::vector<json> values;
      array([&] { values.push_back(value()); });
      return json::array(std::move(values));
    }
    json read = scalar();
    space();
    return read;
  }

  /// Passes over a value.
  void skip() {
    if (next() == '{') return object([&](const std::string&) { skip(); });
    if (next() == '[') return array([&] { skip(); });
    (void)value();
  }

  void end() const {
    if (at_ < text_.size()) refuse("expected the end");
  }

 private:
  void space() { at_ = std::min(text_.find_first_not_of(" \t\n\r", at_), text_.size()); }

  void refuse_repeated(const std::vector<json::member>& members) const {
    std::vector<std::string_view> keys;
    for (const auto& member : members) keys.push_back(member.first);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) fail(where_, " names '", *twice, "' twice");
  }

  template <class Entry>
  void entries(char open, char close, const Entry& entry) {
    if (next() != open) refuse(open == '{' ? "expected an object" : "expected an array");
    if (++depth_ > deepest_) fail(where_, " is nested too deeply, more than ", deepest_, " levels at byte ", at_);
    ++at_;
    space();
    for (bool first = true; next() != close; first = false) {
      if (!first) {
        if (next() != ',') refuse(open == '{' ? "expected ',' or '}'" : "expected ',' or ']'");
        ++at_;
        space();
      }
      entry();
    }
    ++at_;
    --depth_;
    space();
  }

  json scalar() {
    switch (next()) {
      case '"':
        return string();
      case 't':
        return word("true", true);
      case 'f':
        return word("false", false);
      case 'n':
        return word("null", nullptr);
      default:
        return number();
    }
  }

  json word(std::string_view name, json value) {
    if (!text_.substr(at_).starts_with(name)) refuse("expected a value");
    at_ += name.size();
    return value;
  }

  std::size_t digits() {
    const std::size_t begin = at_;
    while (next() >= '0' && next() <= '9') ++at_;
    return at_ - begin;
  }

  json number() {
    const std::size_t begin = at_;
    const bool negative = next() == '-';
    if (negative) ++at_;
    const bool zero = next() == '0';
    const std::size_t whole = digits();
    if (whole == 0) refuse("expected a value");
    if (zero && whole > 1) refuse("a number with a leading zero");
    bool integer = true;
    if (next() == '.') {
      integer = false;
      ++at_;
      if (digits() == 0) refuse("expected a digit");
    }
    if (next() == 'e' || next() == 'E') {
      integer = false;
      ++at_;
      if (next() == '+' || next() == '-') ++at_;
      if (digits() == 0) refuse("expected a digit");
    }
    const char *first = text_.data() + begin, *last = text_.data() + at_;
    std::int64_t number = 0;
    std::uint64_t natural = 0;
    if (integer && std::from_chars(first, last, number).ec == std::errc()) return number;
    if (integer && !negative && std::from_chars(first, last, natural).ec == std::errc()) return natural;
    double real = 0;
    if (std::from_chars(first, last, real).ec == std::errc()) return real;
    if (!tiny({first, last})) refuse("a number that no double holds");
    return negative ? -0.0 : 0.0;
  }

  /// Whether a number outside of the range of double is too small rather than too large: by the place of its first
  /// digit that is not 0.
  static bool tiny(std::string_view number) {
    const std::size_t end = std::min(number.find_first_of("eE"), number.size());
    const std::size_t point = std::min(number.find('.'), end), leading = number.find_first_of("123456789");
    std::int64_t exponent = 0;
    if (end < number.size()) {
      const char* from = number.data() + end + 1;
      const auto read = std::from_chars(from + (*from == '+' ? 1 : 0), number.data() + number.size(), exponent);
      if (read.ec != std::errc()) return *from == '-';
    }
    return exponent < static_cast<std::int64_t>(leading) - static_cast<std::int64_t>(point);
  }

  std::string string() {
    std::string out;
    ++at_;
    for (;;) {
      const std::size_t begin = at_;
      while (at_ < text_.size() && plain(text_[at_])) ++at_;
      out.append(text_, begin, at_ - begin);
      if (at_ == text_.size()) refuse("a text without end");
      if (next() == '"') break;
      if (next() == '\\') {
        escape(out);
        continue;
      }
      if (static_cast<unsigned char>(next()) < 0x20) refuse("a control character in a text");
      const auto [length, valid] = first_character(text_.substr(at_));
      if (!valid) refuse("a text that is not UTF-8");
      out.append(text_, at_, length);
      at_ += length;
    }
    ++at_;
    return out;
  }

  static bool plain(char c) { return c >= 0x20 && c != '"' && c != '\\' && static_cast<unsigned char>(c) < 0x80; }

  void escape(std::string& out) {
    ++at_;
    constexpr std::string_view letters = "\"\\/bfnrt";
    if (const auto letter = letters.find(next()); letter != letters.npos) {
      out += "\"\\/\b\f\n\r\t"[letter];
      ++at_;
      return;
    }
    unsigned code = unit();
    if (code >= 0xdc00 && code < 0xe000) refuse("half of a surrogate pair");
    if (code >= 0xd800 && code < 0xdc00) {
      if (next() != '\\') refuse("half of a surrogate pair");
      ++at_;
      const unsigned low = unit();
      if (low < 0xdc00 || low >= 0xe000) refuse("half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    const auto more = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xc0 | code >> 6), more(0);
    } else if (code < 0x10000) {
      out += static_cast<char>(0xe0 | code >> 12), more(6), more(0);
    } else {
      out += static_cast<char>(0xf0 | code >> 18), more(12), more(6), more(0);
    }
  }

  /// The four digits of uXXXX.
  unsigned unit() {
    if (next() != 'u') refuse("an unknown escape");
    ++at_;
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = next();
      const bool digit = c >= '0' && c <= '9';
      if (!digit && !((c | 32) >= 'a' && (c | 32) <= 'f')) refuse("expected four hexadecimal digits");
      code = code * 16 + static_cast<unsigned>(digit ? c - '0' : (c | 32) - 'a' + 10);
    }
    return code;
  }

  std::string_view text_, where_;
  int deepest_, depth_ = 0;
  std::size_t at_ = 0;
};

}  // namespace detail

/// The value of a JSON text. `Error` that begins with `where`: no valid JSON (with the byte), a key twice in an object,
/// lists or objects nested deeper than `deepest`.
inline json parse_json(std::string_view text, std::string_view where = "the text", int deepest = 16) {
  detail::json_reader reader(text, where, deepest);
  json value = reader.value();
  reader.end();
  return value;
}

/// The same where a text that is no JSON is nothing to speak of: null then.
inline json parse_json_or_null(std::string_view text, int deepest = 16) {
  try {
    return parse_json(text, "the text", deepest);
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace core_tokensets
