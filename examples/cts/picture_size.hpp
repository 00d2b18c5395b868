#pragma once
// A size of pictures, as options name it.

#include <charconv>
#include <string_view>
#include <utility>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace cts_command {

/// Height and width of "32" or "32x64". `Error` that names the option: anything else.
inline std::pair<core_tokensets::index, core_tokensets::index> picture_size(const char* option, std::string_view text) {
  const auto number = [&](std::string_view digits) {
    core_tokensets::index value = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    core_tokensets::require(
        problem == std::errc() && end == digits.data() + digits.size() && value >= 1 && value <= 65536, option, " ",
        text, ": expected SIDE or HEIGHTxWIDTH in pixels, 1 to 65536");
    return value;
  };
  const std::size_t cross = text.find('x');
  const auto height = number(text.substr(0, cross));
  return {height, cross == text.npos ? height : number(text.substr(cross + 1))};
}

}  // namespace cts_command
