#pragma once
// What two lots of settings differ in, in words: why a saved state is not one's own.

#include <string>

#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

/// "epochs was 2, now it is 3; fit.seed was ..." of all values that differ, inner ones by their path; empty where none
/// does. Keys that `was` lacks were not there, and those that `now` lacks are gone.
inline std::string setting_differences(const json& was, const json& now, const std::string& name = "") {
  if (was == now) return {};
  if (!was.is_object() || !now.is_object())
    return (name.empty() ? "settings" : name) + " was " + was.dump() + ", now it is " + now.dump();
  std::string all;
  const auto add = [&](const std::string& text) { all += (all.empty() || text.empty() ? "" : "; ") + text; };
  const auto path = [&](const std::string& key) { return name.empty() ? key : name + "." + key; };
  for (const auto& [key, value] : was.items()) {
    add(now.contains(key) ? setting_differences(value, now.at(key), path(key))
                          : path(key) + " was " + value.dump() + ", now there is none");
  }
  for (const auto& [key, value] : now.items()) {
    if (!was.contains(key)) add("there was no " + path(key) + ", now it is " + value.dump());
  }
  return all;
}

}  // namespace core_tokensets
