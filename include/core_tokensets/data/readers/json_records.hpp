#pragma once
// Long JSON files of many small records, read one record at a time: the annotations of VQA and COCO do not fit in
// memory as a tree.

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/parse_json.hpp"

namespace core_tokensets::detail {

/// A record of a JSON file, and where it stands for messages: "FILE: annotations[3]".
struct json_record {
  const json& value;
  std::string where;

  /// The member `name` as T: std::string, std::int64_t or an array or object of JSON. `Error`: missing, another type.
  template <class T>
  T get(const char* name) const {
    const json* found = value.find(name);
    require(found != nullptr, where, ": '", name, "' is missing");
    if constexpr (std::is_same_v<T, std::string>) {
      require(found->is_string(), where, ": '", name, "' is ", found->type_name(), ", expected string");
    } else if constexpr (std::is_integral_v<T>) {
      require(found->holds<T>(), where, ": '", name, "' is ", found->type_name(), ", expected whole number");
    } else {
      require(found->is_array(), where, ": '", name, "' is ", found->type_name(), ", expected array");
    }
    return found->get<T>();
  }
};

/// Hands each record of the lists `lists` in the file's outermost object to `visit(list, json_record)`, in the order of
/// the file. `Error` naming the file: unreadable, no JSON, one of the lists missing, no list, or no list of objects.
template <class Visit>
void for_each_json_record(const std::filesystem::path& path, std::initializer_list<std::string_view> lists,
                          const Visit& visit) {
  const std::string text = read_text(path), name = path.string();
  json_reader reader(text, name, 32);
  require(reader.next() == '{', name, ": the JSON value is no object");
  std::vector<std::string> found;
  reader.object([&](const std::string& list) {
    if (std::find(lists.begin(), lists.end(), list) == lists.end()) return reader.skip();
    require(std::find(found.begin(), found.end(), list) == found.end(), name, ": there are two lists '", list, "'");
    require(reader.next() == '[', name, ": '", list, "' is no list of records");
    found.push_back(list);
    index number = 0;
    reader.array([&] {
      const std::string where = name + ": " + list + "[" + std::to_string(number++) + "]";
      require(reader.next() == '{', where, " is no record");
      const json record = reader.value();
      visit(std::string_view(list), json_record{record, where});
    });
  });
  reader.end();
  for (const auto wanted : lists) {
    require(std::find(found.begin(), found.end(), wanted) != found.end(), name, ": the list '", wanted, "' is missing");
  }
}

}  // namespace core_tokensets::detail
