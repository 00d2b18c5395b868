#pragma once
// Training that is interrupted in the middle of a task and goes on from there to the same bits: the state is everything
// that the next step depends on, since random numbers are functions of seed and step.

#include <array>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "core_tokensets/core/version.hpp"
#include "core_tokensets/data/text/visual_text.hpp"
#include "core_tokensets/io/atomic_folder.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/train/fit_options.hpp"
#include "core_tokensets/train/setting_differences.hpp"

namespace core_tokensets {

/// Where training stands between two steps.
struct fit_position {
  index steps = 0;                 ///< that are done
  double seconds = 0;              ///< that they took
  double loss = 0;                 ///< as it was last looked at
  std::uint64_t replay_cycle = 0;  ///< of the replay: `replay_sampler::state::cycle_start`, `cursor`
  index replay_cursor = 0;
};

namespace detail {

/// `Error` on all ranks, naming what differs, unless `facts` are the same on all of them.
inline void check_same_on_all(const team& ranks, const json& facts) {
  if (ranks.alone()) return;
  const std::string own = facts.dump();
  const auto all = ranks.all_gather(std::as_bytes(std::span(own)), "comparing settings and data");
  const auto of_rank = [&](std::size_t r) {
    return parse_json(std::string(reinterpret_cast<const char*>(all[r].data()), all[r].size()), "settings of a rank");
  };
  for (std::size_t r = 1; r < all.size(); ++r) {
    require(all[r] == all[0], "fit: rank ", r,
            " learns from other settings or data than rank 0: ", setting_differences(of_rank(0), of_rank(r)));
  }
}

/// The file of an interrupted training: parameters, the optimiser's moments, the position, and what the training
/// depends on, by which a file of another one is told.
class fit_checkpoint {
 public:
  /// Reads the file, if there is one. `depends_on()` is what the training depends on, as JSON; it is asked only where
  /// a file is named or there are several ranks. `Error`: the file is damaged, or belongs to another training, or ranks
  /// to different ones (names what differs).
  template <class Facts>
  fit_checkpoint(const fit_options& o, const Facts& depends_on) : o_(o.checkpoint), ranks_(o.ranks) {
    if (o_.file.empty() && ranks_.alone()) return;
    facts_ = json{{"library", library_version}, {"about", o_.about}};
    facts_.update(depends_on());
    check_same_on_all(ranks_, facts_);
    try {
      if (!o_.file.empty() && std::filesystem::exists(o_.file)) read();
    } catch (const std::exception& e) {
      ranks_.leave(e.what());
      throw;
    }
    check_same_start();
  }

  /// True if the training goes on from a file.
  bool found() const { return found_.has_value(); }
  /// Where it begins, or goes on.
  const fit_position& position() const { return at_; }

  /// Gives a training the numbers of the file, if there is one.
  template <tensor_backend B>
  void restore(B& b, tensor<B>& parameters, optimiser_state<B>& state) {
    saved_ = std::chrono::steady_clock::now();
    if (!found_) return;
    using T = typename B::scalar;
    for (const auto& [name, to] :
         {std::pair("parameters", &parameters), {"first", &state.first}, {"second", &state.second}}) {
      const host_array& from = found_->at(name);
      require(from.type == dtype_of<T> && from.size() == to->size(), o_.file.string(), ": '", name, "' holds ",
              from.size(), " numbers of type ", dtype_name(from.type), ", expected ", to->size(), " of type ",
              dtype_name(dtype_of<T>));
      to->assign(b, 1, to->size(), from.as<T>().data());
    }
    state.steps = at_.steps;
    found_->arrays.clear();
  }

  /// Called after every step: rank 0 saves where it is time to. Throws `stopped` on all ranks, having saved, where
  /// training shall stop on one of them.
  template <tensor_backend B>
  void after_step(B& b, const tensor<B>& parameters, const optimiser_state<B>& state, const fit_position& at) {
    const bool stop = ranks_.any(o_.stop && o_.stop(), "asking whether to stop");
    const auto now = std::chrono::steady_clock::now();
    const bool due = std::chrono::duration<double>(now - saved_).count() >= o_.seconds;
    if (ranks_.leads() && !o_.file.empty() && (stop || due)) {
      tensor_file file;
      for (const auto& [name, from] :
           {std::pair("parameters", &parameters), {"first", &state.first}, {"second", &state.second}})
        file.arrays.emplace(name, host_array::of(from->to_host(b)));
      write(at, std::move(file));
      saved_ = std::chrono::steady_clock::now();
    }
    if (!stop) return;
    ranks_.wait("waiting for what was done to be saved");
    throw stopped(o_.file);
  }

 private:
  /// `Error` on all ranks unless all go on from the same file, or none from any.
  void check_same_start() const {
    if (ranks_.alone()) return;
    const std::string own = found_ ? found_->metadata.at("checksum") : "";
    const auto all = ranks_.all_gather(std::as_bytes(std::span(own)), "comparing where training begins");
    for (std::size_t r = 1; r < all.size(); ++r) {
      require(all[r] == all[0], "fit: ranks 0 and ", r,
              " do not go on from the same interrupted training; all must see ", o_.file.string());
    }
  }
  static constexpr const char *kind = "core_tokensets.interrupted_training", *version = "1";

  /// Over all that the file holds but itself.
  static std::string checksum_of(const tensor_file& file) {
    std::uint64_t sum = fnv1a({});
    for (const auto& [key, value] : file.metadata) {
      if (key != "checksum") sum = fnv1a(value, fnv1a(key, sum));
    }
    for (const auto& [name, array] : file.arrays) sum = fnv1a(array.bytes, fnv1a(name, sum));
    return checksum_text(sum);
  }

  void write(const fit_position& at, tensor_file file) const {
    file.metadata = {{"kind", kind},
                     {"version", version},
                     {"depends_on", facts_.dump()},
                     {"position", json{{"steps", at.steps},
                                       {"seconds", at.seconds},
                                       {"loss", at.loss},
                                       {"replay_cycle", at.replay_cycle},
                                       {"replay_cursor", at.replay_cursor}}
                                      .dump()}};
    file.metadata["checksum"] = checksum_of(file);
    if (o_.file.has_parent_path()) make_folders(o_.file.parent_path());
    save_safetensors(o_.file, file);
  }

  void read() {
    const std::string path = o_.file.string(), anew = "; remove it to begin the task anew";
    try {
      found_ = load_safetensors(o_.file);
    } catch (const Error& e) {
      fail(e.what(), "; it should hold an interrupted training", anew);
    }
    const auto& m = found_->metadata;
    require(m.contains("kind") && m.at("kind") == kind && m.contains("version") && m.contains("depends_on") &&
                m.contains("position") && m.contains("checksum"),
            path, ": not an interrupted training; choose another file");
    require(m.at("version") == version, path, ": an interrupted training of version ", m.at("version"),
            ", this library knows ", version, anew);
    require(m.at("checksum") == checksum_of(*found_), path, ": it was altered (its checksum does not match)", anew);
    const std::string differ = setting_differences(parse_json(m.at("depends_on"), path), facts_);
    require(differ.empty(), path, ": belongs to a training with other settings or data: ", differ,
            "; go on with the old ones, or remove the file to begin the task anew");
    const json at = parse_json(m.at("position"), path);
    at_ = {.steps = at.at("steps").get<index>(),
           .seconds = at.at("seconds").get<double>(),
           .loss = at.at("loss").get<double>(),
           .replay_cycle = at.at("replay_cycle").get<std::uint64_t>(),
           .replay_cursor = at.at("replay_cursor").get<index>()};
  }

  checkpoint_options o_;
  team ranks_;
  json facts_;
  std::optional<tensor_file> found_;
  fit_position at_;
  std::chrono::steady_clock::time_point saved_ = std::chrono::steady_clock::now();
};

/// A number by which the samples of a view are told from others.
inline std::uint64_t checksum_of(const sample_view<dataset>& samples) {
  const dataset& data = *samples.data;
  const std::array shape{data.height, data.width, data.channels};
  std::uint64_t sum = fnv1a(std::as_bytes(std::span(shape)));
  for (const index i : samples.indices) {
    const std::span pixels(data.view_of(i).pixels, static_cast<std::size_t>(data.image_size()));
    const std::int32_t label = data.label(i);
    sum = fnv1a(std::as_bytes(std::span(&label, 1)), fnv1a(std::as_bytes(pixels), sum));
  }
  for (const auto& name : data.class_names) sum = fnv1a(name, sum);
  return sum;
}
inline std::uint64_t checksum_of(const sample_view<visual_text>& samples) {
  return fnv1a(std::as_bytes(std::span(samples.indices)), checksum(*samples.data));
}

/// A number by which a memory is told from others; 0 where there is none.
inline std::uint64_t checksum_of(const token_memory* memory) {
  if (memory == nullptr || memory->empty()) return 0;
  const token_arrays& a = memory->arrays();
  std::uint64_t sum = fnv1a(a.pixels);
  const auto add = [&](const auto& values) { sum = fnv1a(std::as_bytes(std::span(values)), sum); };
  add(a.pixel_offsets), add(a.positions), add(a.offsets), add(a.targets), add(a.weights), add(a.text);
  add(a.text_offsets);
  std::map<std::string, std::span<const std::byte>> columns;  // their order is not said anywhere
  for (std::size_t i = 0; i < a.columns.size(); ++i) columns[a.format.columns[i].name] = a.columns[i];
  for (const auto& [name, values] : columns) sum = fnv1a(values, fnv1a(name, sum));
  return sum;
}

/// A number by which what a model computes is told from others.
template <tensor_backend B, class Model>
std::uint64_t checksum_of_model(B& b, const Model& model) {
  const auto numbers = model.parameters().to_host(b);
  const auto& c = image_config(model);
  const pixel_normalisation n = c.normalisation.for_channels(c.grid.channels);
  std::uint64_t sum = fnv1a(std::as_bytes(std::span(n.mean)), fnv1a(std::as_bytes(std::span(n.stddev))));
  for (const parameter& p : model.layout().parameters.table()) {  // what lies between them is nobody's
    const auto of_p =
        std::span(numbers).subspan(static_cast<std::size_t>(p.where.offset), static_cast<std::size_t>(p.where.size()));
    sum = fnv1a(std::as_bytes(of_p), fnv1a(p.name, sum));
  }
  return sum;
}

/// Name and options of a part that has them; of others the name of its type.
template <class Part>
std::string text_of_part(const Part& part) {
  if constexpr (requires { text_of(part); }) {
    return text_of(part);
  } else {
    return typeid(Part).name();
  }
}

/// Everything that the training of a model on samples depends on.
template <tensor_backend B, class Model, class Data, class Objective, class Optimiser>
json training_facts(B& b, const Model& model, const sample_view<Data>& samples, const token_memory* memory,
                    index number, const fit_options& o, const Objective& what, const Optimiser& optimiser) {
  json fit = json::object();
  fit_options::options(o, [&](const char* key, const auto& value) { fit[key] = option_text(value); });
  return json{{"task", number + 1},
              {"fit", fit},
              {"objective", text_of_part(what)},
              {"optimiser", text_of_part(optimiser)},
              {"data", checksum_text(checksum_of(samples))},
              {"memory", checksum_text(checksum_of(memory))},
              {"start_model", checksum_text(checksum_of_model(b, model))}};
}

}  // namespace detail

}  // namespace core_tokensets
