#pragma once
// A learner on the disk: the files of its parts under the number of its last task, and one that names them, written
// last.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core_tokensets/core/version.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/atomic_folder.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/memory/budget.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/train/fit_options.hpp"
#include "core_tokensets/train/setting_differences.hpp"

namespace core_tokensets {

struct learner_options;

namespace detail {

/// Checksum of a learner's state, its own entry left out.
inline std::string state_checksum(const json& state) {
  json rest = json::object();
  for (const auto& [key, value] : state.items()) {
    if (key != "checksum") rest[key] = value;
  }
  const std::string text = rest.dump();
  return checksum_text(fnv1a(std::as_bytes(std::span(text))));
}

inline std::string file_checksum(const std::filesystem::path& path) { return checksum_text(fnv1a(read_file(path))); }

}  // namespace detail

/// Writes the parts of a learner. Whenever the program dies, the parts that learner.json names are there whole.
class learner_files {
 public:
  learner_files(std::filesystem::path folder, index tasks) : folder_(std::move(folder)), tag_(std::to_string(tasks)) {
    detail::make_folders(folder_);
  }
  void add(const std::string& part, const tensor_file& file) { save_safetensors(place(part), file); }
  void add_memory(const token_memory& memory) { memory.save(place("memory")); }
  /// Writes learner.json with `state`, then removes the parts of older ones, which only take space.
  void finish(json state) {
    json parts = json::object();
    for (const auto& [part, path] : parts_) {
      parts[part] = json{{"file", path.filename().string()}, {"checksum", detail::file_checksum(path)}};
    }
    state["files"] = parts;
    state["checksum"] = detail::state_checksum(state);
    write_file(folder_ / "learner.json", std::string_view(state.dump(1)));
    for (const auto& [part, path] : parts_) {
      std::error_code ignored;
      for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
        const std::string name = entry.path().filename().string();
        const auto number = name.size() > part.size() + 13
                                ? name.substr(part.size() + 1, name.size() - part.size() - 13)
                                : std::string();
        if (name.starts_with(part + "-") && name.ends_with(".safetensors") && !number.empty() &&
            number.find_first_not_of("0123456789") == number.npos && entry.path() != path)
          std::filesystem::remove(entry.path(), ignored);
      }
    }
  }

 private:
  std::filesystem::path place(const std::string& part) {
    return parts_[part] = folder_ / (part + "-" + tag_ + ".safetensors");
  }

  std::filesystem::path folder_;
  std::string tag_;
  std::map<std::string, std::filesystem::path> parts_;
};

/// A learner that was saved: its state, and its parts when they are asked for.
class saved_learner {
 public:
  /// True if a learner was saved in the folder.
  static bool in(const std::filesystem::path& folder) { return std::filesystem::exists(folder / "learner.json"); }

  /// `Error`: there is none, or it was altered.
  explicit saved_learner(std::filesystem::path folder) : folder_(std::move(folder)) {
    const auto path = folder_ / "learner.json";
    require(in(folder_), folder_.string(), ": no learner was saved here (learner.json is missing)");
    state_ = parse_json(read_text(path), path.string());
    require(state_.is_object() && state_.contains("tasks") && state_.contains("settings") && state_.contains("files") &&
                state_.contains("checksum"),
            path.string(), ": not a saved learner");
    require(state_.at("checksum") == json(detail::state_checksum(state_)), path.string(),
            ": it was altered (its checksum does not match)");
  }

  const std::filesystem::path& folder() const { return folder_; }
  const json& state() const { return state_; }

  /// `Error` that names all settings that differ, with both of their values.
  void check_settings(const json& wanted) const {
    const std::string differ = setting_differences(state_.at("settings"), wanted);
    require(differ.empty(), folder_.string(), ": what is there was made with other settings: ", differ,
            "; choose another folder, or start anew");
  }

  /// A part by its name. `Error`: altered.
  tensor_file file(const std::string& part) const { return load_safetensors(checked(part)); }
  /// The memory, unpacked by the codec of the learner that asks.
  token_memory memory(const any_codec& codec) const { return load_token_memory(checked("memory"), codec); }

  /// The options that it was saved with.
  template <class Options = learner_options>
  Options options() const {
    Options o;
    const json& s = state_.at("settings");
    o.budget.amount = s.at("budget").at("amount").template get<double>();
    o.budget.is_fraction = s.at("budget").at("fraction").template get<bool>();
    o.budget.each = detail::parse_option<budget_of>(s.at("budget").at("each").template get<std::string>(), "budget");
    o.fresh_head = s.at("fresh_head").template get<bool>();
    for (const auto& [key, value] : s.at("fit").items())
      set_option(o.fit, key, value.template get<std::string>(), (folder_ / "learner.json").string());
    return o;
  }

 private:
  std::filesystem::path checked(const std::string& part) const {
    const json& files = state_.at("files");
    require(files.contains(part), folder_.string(), ": the saved learner has no ", part);
    const auto path = folder_ / files.at(part).at("file").template get<std::string>();
    require(files.at(part).at("checksum") == json(detail::file_checksum(path)), path.string(),
            ": it was altered (its checksum does not match)");
    return path;
  }

  std::filesystem::path folder_;
  json state_;
};

}  // namespace core_tokensets
