#pragma once
// The small parts of a page: text made safe for HTML, bytes as base64, numbers as people write them.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

/// Text with the five characters that mean something in HTML written as entities; right between tags and in attributes.
/// What is not UTF-8 becomes U+FFFD.
inline std::string escape_html(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  while (!text.empty()) {
    const auto [length, valid] = detail::first_character(text);
    const std::string_view character = text.substr(0, length);
    text.remove_prefix(length);
    if (!valid) {
      safe += "\xef\xbf\xbd";
      continue;
    }
    switch (character.front()) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += character;
    }
  }
  return safe;
}

/// Base64 with padding (RFC 4648).
inline std::string base64(std::span<const std::byte> bytes) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? std::to_integer<unsigned>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) text += i + k <= bytes.size() ? letters[word >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

/// The number with a fixed number of decimals, a point whatever the locale; "n/a" where it is not finite.
inline std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "n/a";
  char text[512];
  const int length = std::snprintf(text, sizeof text, "%.*f", decimals, value);
  std::string result(text, static_cast<std::size_t>(length));
  for (char& c : result) c = c == ',' ? '.' : c;
  // "-0.00" says nothing that "0.00" does not
  return result.find_first_not_of("-0.") == std::string::npos && result[0] == '-' ? result.substr(1) : result;
}

/// The number with four significant digits, no more decimals than it needs; very large and small ones as 1.2e+09.
inline std::string number_text(double value) {
  if (!std::isfinite(value)) return "n/a";
  char text[64];
  const int length =
      std::snprintf(text, sizeof text, std::abs(value) >= 1e4 && std::abs(value) < 1e9 ? "%.0f" : "%.4g", value);
  std::string result(text, static_cast<std::size_t>(length));
  for (char& c : result) c = c == ',' ? '.' : c;
  return result;
}

}  // namespace core_tokensets
