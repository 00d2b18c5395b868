#pragma once
// JSON values: settings and results on their way to files. Small on purpose, for every program that includes this
// library compiles it; reading is in parse_json.hpp.

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"

namespace core_tokensets {

/// Null, truth, number, text, list or object. Integers stay integers as long as 64 bits hold them; an object keeps the
/// order in which its keys came. `Error`, naming the key where there is one: asked for what the value is not.
class json {
 public:
  using member = std::pair<std::string, json>;

  json(std::nullptr_t = nullptr) {}
  template <std::same_as<bool> T>
  json(T value) : kind_(kind::boolean) {
    data_.boolean = value;
  }
  template <std::integral T>
  requires(!std::same_as<T, bool> && !std::same_as<T, char>) json(T value) : kind_(kind::integer) {
    data_.integer = static_cast<std::int64_t>(value);
    if (std::is_unsigned_v<T> && data_.integer < 0) kind_ = kind::natural;
  }
  template <std::floating_point T>
  json(T value) : kind_(kind::real) {
    data_.real = static_cast<double>(value);
  }
  json(std::string value) : kind_(kind::string) { data_.text = new std::string(std::move(value)); }
  json(std::string_view value) : json(std::string(value)) {}
  json(const char* value) : json(std::string(value)) {}
  template <class T>
  json(const std::vector<T>& values) : json(array()) {
    for (const auto& value : values) data_.list->push_back(json(static_cast<const T&>(value)));
  }
  template <class T>
  json(const std::map<std::string, T>& values) : json(object()) {
    for (const auto& [key, value] : values) data_.members->emplace_back(key, value);
  }
  template <class A, class B>
  json(const std::pair<A, B>& pair) : json(array()) {
    data_.list->push_back(json(pair.first));
    data_.list->push_back(json(pair.second));
  }
  /// {{"key", value}, ...} is an object, every other list in braces an array.
  json(std::initializer_list<json> values);

  json(const json& other) : kind_(other.kind_), data_(other.data_) {
    if (kind_ == kind::string) data_.text = new std::string(*data_.text);
    if (kind_ == kind::array) data_.list = new std::vector<json>(*data_.list);
    if (kind_ == kind::object) data_.members = new std::vector<member>(*data_.members);
  }
  json(json&& other) noexcept : kind_(std::exchange(other.kind_, kind::null)), data_(other.data_) {}
  json& operator=(json other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~json() {
    if (kind_ == kind::string) delete data_.text;
    if (kind_ == kind::array) delete data_.list;
    if (kind_ == kind::object) delete data_.members;
  }

  static json array(std::vector<json> values = {}) {
    json value;
    value.data_.list = new std::vector<json>(std::move(values));
    value.kind_ = kind::array;
    return value;
  }
  /// The keys must differ.
  static json object(std::vector<member> members = {}) {
    json value;
    value.data_.members = new std::vector<member>(std::move(members));
    value.kind_ = kind::object;
    return value;
  }

  bool is_null() const { return kind_ == kind::null; }
  bool is_boolean() const { return kind_ == kind::boolean; }
  bool is_number() const { return is_number_integer() || kind_ == kind::real; }
  bool is_number_integer() const { return kind_ == kind::integer || kind_ == kind::natural; }
  bool is_number_unsigned() const { return kind_ == kind::natural || (kind_ == kind::integer && data_.integer >= 0); }
  bool is_number_float() const { return kind_ == kind::real; }
  bool is_string() const { return kind_ == kind::string; }
  bool is_array() const { return kind_ == kind::array; }
  bool is_object() const { return kind_ == kind::object; }
  const char* type_name() const {
    constexpr const char* names[] = {"null", "boolean", "number", "number", "number", "string", "array", "object"};
    return names[static_cast<std::size_t>(kind_)];
  }

  /// Entries of an array or an object, 0 for null; 1 for everything else.
  std::size_t size() const {
    if (kind_ == kind::array) return data_.list->size();
    if (kind_ == kind::object) return data_.members->size();
    return is_null() ? 0 : 1;
  }
  bool empty() const { return size() == 0; }

  /// The entries of an array.
  const std::vector<json>& list() const {
    expect(is_array(), "an array");
    return *data_.list;
  }
  auto begin() const { return list().begin(); }
  auto end() const { return list().end(); }
  /// The keys and values of an object.
  const std::vector<member>& items() const {
    expect(is_object(), "an object");
    return *data_.members;
  }
  /// The text, without a copy.
  const std::string& text() const {
    expect(is_string(), "a string");
    return *data_.text;
  }

  /// The value under a key, null where there is none or this is no object.
  const json* find(std::string_view key) const {
    if (!is_object()) return nullptr;
    for (const member& m : *data_.members) {
      if (m.first == key) return &m.second;
    }
    return nullptr;
  }
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  const json& at(std::string_view key) const {
    const json* found = find(key);
    if (found == nullptr) fail("JSON: '", key, "' is missing");
    return *found;
  }
  const json& at(std::size_t i) const {
    const auto& values = list();
    if (i >= values.size()) fail("JSON: an array of ", values.size(), " has no entry ", i);
    return values[i];
  }
  const json& operator[](std::string_view key) const { return at(key); }
  const json& operator[](std::size_t i) const { return at(i); }
  /// The value under a key, which becomes null where there was none. Null becomes an object.
  json& operator[](std::string_view key) {
    if (const json* found = find(key)) return const_cast<json&>(*found);
    if (is_null()) *this = object();
    expect(is_object(), "an object");
    return data_.members->emplace_back(std::string(key), json()).second;
  }
  json& operator[](std::size_t i) { return const_cast<json&>(at(i)); }

  /// Appends to an array. Null becomes one.
  void push_back(json value) {
    if (is_null()) *this = array();
    expect(is_array(), "an array");
    data_.list->push_back(std::move(value));
  }
  /// Takes over all members of an object.
  void update(const json& other) {
    for (const auto& [key, value] : other.items()) (*this)[key] = value;
  }
  void erase(std::string_view key) {
    expect(is_object(), "an object");
    std::erase_if(*data_.members, [&](const member& m) { return m.first == key; });
  }

  /// True where the value is a whole number that the integer type T holds.
  template <std::integral T>
  bool holds() const {
    if (kind_ == kind::integer) return std::in_range<T>(data_.integer);
    return kind_ == kind::natural && std::in_range<T>(data_.natural);
  }
  /// The value as bool, integer, floating-point number, std::string, json, or std::vector, std::pair or std::map of
  /// these.
  template <class T>
  T get() const {
    return as(std::type_identity<T>{});
  }
  /// The value under a key, or `fallback` where there is none.
  template <class T>
  T value(std::string_view key, T fallback) const {
    expect(is_object(), "an object");
    const json* found = find(key);
    if (found == nullptr) return fallback;
    return found->get<T>();
  }

  /// As text, on one line or with `indent` spaces a level. What is not UTF-8 becomes U+FFFD. `Error`: a number that is
  /// not finite, which JSON does not know.
  std::string dump(int indent = -1) const {
    std::string text;
    append_to(text, indent, 0);
    return text;
  }

  /// Numbers are equal by value, objects whatever the order of their keys.
  friend bool operator==(const json& a, const json& b) { return a.equals(b); }

 private:
  enum class kind : std::uint8_t { null, boolean, integer, natural, real, string, array, object };

  void expect(bool ok, const char* what) const {
    if (!ok) fail("JSON: ", type_name(), ", expected ", what);
  }

  bool as(std::type_identity<bool>) const {
    expect(is_boolean(), "true or false");
    return data_.boolean;
  }
  template <std::integral T>
  T as(std::type_identity<T>) const {
    if (!holds<T>()) expect(false, is_number() ? "a whole number that fits" : "a whole number");
    return static_cast<T>(kind_ == kind::integer ? data_.integer : static_cast<std::int64_t>(data_.natural));
  }
  template <std::floating_point T>
  T as(std::type_identity<T>) const {
    expect(is_number(), "a number");
    return static_cast<T>(number());
  }
  std::string as(std::type_identity<std::string>) const { return text(); }
  json as(std::type_identity<json>) const { return *this; }
  template <class T>
  std::vector<T> as(std::type_identity<std::vector<T>>) const {
    std::vector<T> values;
    for (const json& value : list()) values.push_back(value.get<T>());
    return values;
  }
  template <class A, class B>
  std::pair<A, B> as(std::type_identity<std::pair<A, B>>) const {
    expect(list().size() == 2, "an array of two");
    return {at(0).get<A>(), at(1).get<B>()};
  }
  template <class T>
  std::map<std::string, T> as(std::type_identity<std::map<std::string, T>>) const {
    std::map<std::string, T> values;
    for (const auto& [key, value] : items()) values.emplace(key, value.template get<T>());
    return values;
  }

  double number() const {
    if (kind_ == kind::integer) return static_cast<double>(data_.integer);
    return kind_ == kind::natural ? static_cast<double>(data_.natural) : data_.real;
  }

  bool equals(const json& other) const;
  void append_to(std::string& text, int indent, int depth) const;

  kind kind_ = kind::null;
  union {
    bool boolean;
    std::int64_t integer;
    std::uint64_t natural;  // what `integer` does not hold
    double real;
    std::string* text;
    std::vector<json>* list;
    std::vector<member>* members;
  } data_ = {};
};

/// A number, or null for one that is not finite: JSON knows none.
inline json finite_or_null(double value) { return std::isfinite(value) ? json(value) : json(); }

namespace detail {

/// The bytes of the character that begins a text, or, where it is `valid` no more, of what is to be replaced as one.
struct utf8_character {
  std::size_t length;
  bool valid;
};

inline utf8_character first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = byte(0);
  if (first < 0x80) return {1, true};
  if (first < 0xc2 || first > 0xf4) return {1, false};
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  // Neither longer than it must be, nor half of a surrogate pair, nor beyond the last character.
  unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  for (std::size_t i = 1; i < length; ++i, low = 0x80, high = 0xbf) {
    if (byte(i) < low || byte(i) > high) return {i, false};
  }
  return {length, true};
}

inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const auto [length, valid] = first_character(text);
    if (!valid) return false;
    text.remove_prefix(length);
  }
  return true;
}

/// A text in quotes; what is not UTF-8 becomes U+FFFD.
inline void append_json_text(std::string& out, std::string_view text) {
  constexpr const char* digits = "0123456789abcdef";
  out += '"';
  while (!text.empty()) {
    const auto [length, valid] = first_character(text);
    const char c = text.front();
    if (!valid) {
      out += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      out += '\\', out += c;
    } else if (static_cast<unsigned char>(c) >= 0x20) {
      out += text.substr(0, length);
    } else if (const auto letter = std::string_view("\b\f\n\r\t").find(c); letter != std::string_view::npos) {
      out += '\\', out += "bfnrt"[letter];
    } else {
      out += "\\u00", out += digits[c >> 4], out += digits[c & 15];
    }
    text.remove_prefix(length);
  }
  out += '"';
}

template <class T>
void append_number(std::string& out, T value) {
  char digits[40];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

/// The fewest digits that are read back as the same number, and by which it is known as no integer.
inline void append_json_number(std::string& out, double value) {
  require(std::isfinite(value), "JSON: a number that is not finite cannot be written");
  const std::size_t begin = out.size();
  append_number(out, value);
  if (out.find_first_of(".e", begin) == std::string::npos) out += ".0";
}

}  // namespace detail

inline json::json(std::initializer_list<json> values) {
  bool pairs = true;
  for (const json& value : values) pairs = pairs && value.is_array() && value.size() == 2 && value[0].is_string();
  *this = pairs ? object() : array();
  for (const json& value : values) {
    if (pairs) {
      (*this)[value[0].text()] = value[1];
    } else {
      data_.list->push_back(value);
    }
  }
}

inline bool json::equals(const json& other) const {
  if (is_number() && other.is_number()) {
    if (kind_ == other.kind_ && kind_ != kind::real) return data_.integer == other.data_.integer;
    return number() == other.number();
  }
  if (kind_ != other.kind_) return false;
  if (is_boolean()) return data_.boolean == other.data_.boolean;
  if (is_string()) return *data_.text == *other.data_.text;
  if (is_array()) return *data_.list == *other.data_.list;
  if (is_object()) {
    if (size() != other.size()) return false;
    for (const member& m : *data_.members) {
      const json* found = other.find(m.first);
      if (found == nullptr || !m.second.equals(*found)) return false;
    }
  }
  return true;
}

inline void json::append_to(std::string& text, int indent, int depth) const {
  const auto line = [&](int level) {
    if (indent >= 0) text += '\n', text.append(static_cast<std::size_t>(indent * level), ' ');
  };
  switch (kind_) {
    case kind::null:
      text += "null";
      break;
    case kind::boolean:
      text += data_.boolean ? "true" : "false";
      break;
    case kind::integer:
      detail::append_number(text, data_.integer);
      break;
    case kind::natural:
      detail::append_number(text, data_.natural);
      break;
    case kind::real:
      detail::append_json_number(text, data_.real);
      break;
    case kind::string:
      detail::append_json_text(text, *data_.text);
      break;
    case kind::array:
    case kind::object:
      text += is_array() ? '[' : '{';
      for (std::size_t i = 0; i < size(); ++i) {
        if (i > 0) text += ',';
        line(depth + 1);
        if (is_object()) {
          detail::append_json_text(text, (*data_.members)[i].first);
          text += indent >= 0 ? ": " : ":";
        }
        (is_array() ? (*data_.list)[i] : (*data_.members)[i].second).append_to(text, indent, depth + 1);
      }
      if (!empty()) line(depth);
      text += is_array() ? ']' : '}';
      break;
  }
}

}  // namespace core_tokensets
