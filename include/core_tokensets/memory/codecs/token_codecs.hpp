#pragma once
// The codecs of the library, by name.

#include <string>
#include <string_view>
#include <type_traits>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/memory/codec.hpp"
#include "core_tokensets/memory/codecs/dct_codec.hpp"
#include "core_tokensets/memory/codecs/lossless_codec.hpp"

namespace core_tokensets {

using token_codecs = choices<dct_codec, lossless_codec, raw_codec>;

/// The codec that a user asks for, as "dct:quality=20". `Error`: an unknown name or option (lists the choices).
inline any_codec named_codec(std::string_view text, const std::string& what = "codec") {
  any_codec found;
  choose_by_name(token_codecs{}, text, what, [&](const auto& codec) { found = any_codec(codec); });
  return found;
}

/// The codec that `text` (name and options, as in a file) asks for: one of those that are handed in, or of the
/// library's, with its options set. `Error` naming `where`: none of them has that name, or not these options.
template <patch_codec... Codecs>
any_codec codec_named(std::string_view text, const std::string& where, const Codecs&... codecs) {
  const auto colon = text.find(':');
  const std::string_view name = text.substr(0, colon), options = colon == text.npos ? "" : text.substr(colon + 1);
  any_codec found;
  bool any = false;
  const auto attempt = [&](auto codec) {
    if (any || name != std::string_view(codec.name)) return;
    any = true;
    detail::set_options(codec, options, where + ": codec '" + std::string(name) + "'");
    found = any_codec(codec);
  };
  (attempt(codecs), ...);
  [&]<class... Own>(choices<Own...>) { (attempt(Own{}), ...); }(token_codecs{});
  require(any, where, ": its pixels are packed by the codec '", name, "', which was not given");
  return found;
}

}  // namespace core_tokensets
