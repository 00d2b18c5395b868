#pragma once
// How the pixels of a memory are packed into bytes. A codec is a type with a name and two functions; raw is the plain
// one, and a lossless or lossy one is added by writing another type, without a change anywhere else.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// What a codec may know about the tokens that it packs or unpacks; all of it is in the file besides the pixels.
struct patch_context {
  index channels = 0, patch = 0, grid_cols = 0;
  std::span<const std::uint16_t> positions;  ///< [T]
  std::span<const std::uint64_t> offsets;    ///< [S + 1]

  index tokens() const { return static_cast<index>(positions.size()); }
  index patch_dim() const { return channels * patch * patch; }
};

/// `encode` turns pixels `[T, patch_dim]` into bytes; `decode` fills `[T, patch_dim]` from them and throws `Error`
/// where they make no sense (they come from a file). `name` is what the file says, so it must be unique and never
/// change.
template <class C>
concept patch_codec = requires(const C& codec, const patch_context& context, std::span<const std::uint8_t> in,
                               std::span<std::uint8_t> out) {
  { C::name() } -> std::convertible_to<std::string_view>;
  { codec.encode(context, in) } -> std::same_as<std::vector<std::uint8_t>>;
  { codec.decode(context, in, out) } -> std::same_as<void>;
};

/// Pixels as they are; the file then holds `patches` as a matrix `[T, patch_dim]` that any reader understands.
struct raw_codec {
  static constexpr std::string_view name() { return "raw"; }

  std::vector<std::uint8_t> encode(const patch_context&, std::span<const std::uint8_t> pixels) const {
    return {pixels.begin(), pixels.end()};
  }

  void decode(const patch_context& context, std::span<const std::uint8_t> bytes, std::span<std::uint8_t> pixels) const {
    require(bytes.size() == pixels.size(), "raw codec: ", bytes.size(), " bytes for ", context.tokens(),
            " tokens, expected ", pixels.size());
    std::copy(bytes.begin(), bytes.end(), pixels.begin());
  }
};

}  // namespace core_tokensets
