#pragma once
// Long JSON files of many small records, read one record at a time: the annotations of VQA and COCO do not fit in
// memory as a tree.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets::detail {

/// A record of a JSON file, and where it stands for messages: "FILE: annotations[3]".
struct json_record {
  const nlohmann::json& value;
  std::string where;

  /// The member `name` as T: std::string, std::int64_t or an array or object of JSON. `Error`: missing, another type.
  template <class T>
  T get(const char* name) const {
    const auto found = value.is_object() ? value.find(name) : value.end();
    require(value.is_object() && found != value.end(), where, ": '", name, "' is missing");
    if constexpr (std::is_same_v<T, std::string>) {
      require(found->is_string(), where, ": '", name, "' is ", found->type_name(), ", expected string");
    } else if constexpr (std::is_integral_v<T>) {
      require(found->is_number_integer(), where, ": '", name, "' is ", found->type_name(), ", expected whole number");
    } else {
      require(found->is_array(), where, ": '", name, "' is ", found->type_name(), ", expected array");
    }
    return found->template get<T>();
  }
};

/// Hands each record of the lists `lists` in the file's outermost object to `visit(list, json_record)`, in the order of
/// the file. `Error` naming the file: unreadable, no JSON, one of the lists missing, no list, or no list of objects.
template <class Visit>
void for_each_json_record(const std::filesystem::path& path, std::initializer_list<std::string_view> lists,
                          const Visit& visit) {
  std::ifstream file(path, std::ios::binary);
  require(bool(file), path.string(), ": cannot be read");
  std::map<std::string, index, std::less<>> records;
  std::string list;
  bool wanted = false;
  using event = nlohmann::json::parse_event_t;
  const auto step = [&](int depth, event what, nlohmann::json& parsed) {
    if (depth == 1 && what == event::key) {
      list = parsed.get<std::string>();
      wanted = std::find(lists.begin(), lists.end(), list) != lists.end();
      if (wanted) records[list];
      return true;
    }
    if (depth == 0) return true;
    if (!wanted) return false;
    if (depth == 1) {
      require(what == event::array_start || what == event::array_end, path.string(), ": '", list,
              "' is no list of records");
      return true;
    }
    if (depth != 2) return true;
    const std::string where = path.string() + ": " + list + "[" + std::to_string(records[list]) + "]";
    require(what != event::array_start && what != event::value, where, " is no record");
    if (what != event::object_end) return true;
    visit(std::string_view(list), json_record{parsed, where});
    ++records[list];
    return false;
  };
  try {
    // What is parsed is thrown away record by record.
    const auto rest = nlohmann::json::parse(file, step);
    require(rest.is_object(), path.string(), ": the JSON value is no object");
  } catch (const nlohmann::json::exception& e) {  // also of a number that no double holds
    fail(path.string(), ": no JSON: ", e.what());
  }
  for (const auto wanted_list : lists) {
    require(records.contains(wanted_list), path.string(), ": the list '", wanted_list, "' is missing");
  }
}

}  // namespace core_tokensets::detail
