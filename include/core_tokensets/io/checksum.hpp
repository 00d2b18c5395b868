#pragma once
// A 64-bit checksum that anyone can recompute: FNV-1a (Fowler, Noll, Vo). It finds accidents, not forgeries.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace core_tokensets {

/// FNV-1a of `bytes`; hand in the checksum of what came before to go on from there.
constexpr std::uint64_t fnv1a(std::span<const std::byte> bytes, std::uint64_t before = 0xcbf29ce484222325u) {
  for (const std::byte b : bytes) before = (before ^ static_cast<std::uint64_t>(b)) * 0x100000001b3u;
  return before;
}

/// The same of a text and its length, so that texts one after another are told apart however they are cut.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t before) {
  for (const char c : text) before = (before ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  for (std::uint64_t length = text.size(), i = 0; i < 8; ++i, length >>= 8)
    before = (before ^ (length & 255)) * 0x100000001b3u;
  return before;
}

/// Sixteen hexadecimal digits.
inline std::string checksum_text(std::uint64_t sum) {
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; sum >>= 4) text[i] = "0123456789abcdef"[sum & 15];
  return text;
}

}  // namespace core_tokensets
