#pragma once
// How the pixels of a sample's tokens are packed into bytes. A codec is a value of any type with a name and two
// functions; the memory holds one and packs every sample when it is appended, so that what is replayed now and what is
// replayed after a file was read are the same pixels.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/data/patch_grid.hpp"

namespace core_tokensets {

/// What a codec knows of the sample that it packs or unpacks: how its picture was cut, and which tokens are there.
struct patch_context {
  const patch_grid& grid;
  std::span<const std::uint16_t> positions;  ///< [n], rising

  index tokens() const { return static_cast<index>(positions.size()); }
  /// Bytes of the unpacked pixels.
  index bytes() const { return tokens() * grid.patch_dim(); }
};

/// `encode` turns the pixels `[n, patch_dim]` of one sample into bytes; `decode` fills `[n, patch_dim]` from them and
/// throws `Error` where they make no sense (they come from a file). `name` and the options (core/options.hpp) are what
/// the file says of it, so a name must be unique and never change its meaning. A codec in which each token may be as
/// sharp as one likes also has `encode(context, pixels, qualities)` and `qualities(context, bytes)`, both `[n]`.
template <class C>
concept patch_codec = std::copyable<C> && requires(const C& codec, const patch_context& context,
                                                   std::span<const std::uint8_t> in, std::span<std::uint8_t> out) {
  { C::name } -> std::convertible_to<std::string_view>;
  { codec.encode(context, in) } -> std::same_as<std::vector<std::uint8_t>>;
  { codec.decode(context, in, out) } -> std::same_as<void>;
};

/// Pixels as they are; the file then holds `patches` as a matrix `[T, patch_dim]` that any reader understands.
struct raw_codec {
  static constexpr const char* name = "raw";
  static constexpr const char* about = "pixels as they are";

  std::vector<std::uint8_t> encode(const patch_context&, std::span<const std::uint8_t> pixels) const {
    return {pixels.begin(), pixels.end()};
  }

  void decode(const patch_context& context, std::span<const std::uint8_t> bytes, std::span<std::uint8_t> pixels) const {
    require(bytes.size() == pixels.size(), "raw codec: ", bytes.size(), " bytes for ", context.tokens(),
            " tokens, expected ", pixels.size());
    std::copy(bytes.begin(), bytes.end(), pixels.begin());
  }
};

/// One codec of any type, raw unless another is given. `Error` where the codec has a `check` that its options fail.
class any_codec {
 public:
  any_codec() : any_codec(raw_codec{}) {}
  template <class C>
  requires(!std::same_as<C, any_codec> && patch_codec<C>) any_codec(C codec)
      : text_(text_of(codec)),
        raw_(std::same_as<C, raw_codec>),
        encode_([codec](const patch_context& context, std::span<const std::uint8_t> in) {
          return codec.encode(context, in);
        }),
        decode_([codec](const patch_context& context, std::span<const std::uint8_t> in, std::span<std::uint8_t> out) {
          codec.decode(context, in, out);
        }) {
    if constexpr (requires(const patch_context& context, std::span<const std::uint8_t> x) {
                    codec.encode(context, x, x);
                    codec.qualities(context, x);
                  }) {
      encode_each_ = [codec](const patch_context& context, std::span<const std::uint8_t> in,
                             std::span<const std::uint8_t> each) { return codec.encode(context, in, each); };
      qualities_ = [codec](const patch_context& context, std::span<const std::uint8_t> in) {
        return codec.qualities(context, in);
      };
    }
    if constexpr (requires { codec.check(); }) codec.check();
  }

  /// Name and options, as the file says them.
  const std::string& text() const { return text_; }
  bool raw() const { return raw_; }
  /// Whether each token may have a quality of its own.
  bool has_qualities() const { return static_cast<bool>(encode_each_); }
  /// `qualities`: one for all of the tokens, or one each; none: as the codec's options say. `Error`: qualities, and a
  /// codec without.
  std::vector<std::uint8_t> encode(const patch_context& context, std::span<const std::uint8_t> pixels,
                                   std::span<const std::uint8_t> qualities = {}) const {
    if (qualities.empty()) return encode_(context, pixels);
    require(has_qualities(), "codec '", text_, "': tokens with qualities of their own, expected a codec as 'dct'");
    return encode_each_(context, pixels, qualities);
  }
  /// The qualities `[n]` of the tokens of packed bytes; empty where the codec has none.
  std::vector<std::uint8_t> qualities(const patch_context& context, std::span<const std::uint8_t> bytes) const {
    return has_qualities() ? qualities_(context, bytes) : std::vector<std::uint8_t>();
  }
  void decode(const patch_context& context, std::span<const std::uint8_t> bytes, std::span<std::uint8_t> out) const {
    decode_(context, bytes, out);
  }
  bool operator==(const any_codec& other) const { return text_ == other.text_; }

 private:
  std::string text_;
  bool raw_;
  std::function<std::vector<std::uint8_t>(const patch_context&, std::span<const std::uint8_t>)> encode_;
  std::function<void(const patch_context&, std::span<const std::uint8_t>, std::span<std::uint8_t>)> decode_;
  std::function<std::vector<std::uint8_t>(const patch_context&, std::span<const std::uint8_t>,
                                          std::span<const std::uint8_t>)>
      encode_each_;
  std::function<std::vector<std::uint8_t>(const patch_context&, std::span<const std::uint8_t>)> qualities_;
};

}  // namespace core_tokensets
