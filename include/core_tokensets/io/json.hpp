#pragma once
// JSON that someone else may have written.

#include <nlohmann/json.hpp>
#include <string_view>

#include "core_tokensets/core/error.hpp"

namespace core_tokensets {

/// The JSON value of a text; discarded (`is_discarded()`) where it is none, or nested deeper than anything that is read
/// here: copying or printing such a value would overflow the stack.
inline nlohmann::json parse_json(std::string_view text, int deepest = 16) {
  const auto check = [&](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
    require(depth <= deepest, "JSON: nested too deeply");
    return true;
  };
  try {
    return nlohmann::json::parse(text, check, false);
  } catch (const Error&) {
    return nlohmann::json(nlohmann::json::value_t::discarded);
  }
}

}  // namespace core_tokensets
