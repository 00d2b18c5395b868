#pragma once
// What the judgement of classes and that of answers share.

#include <string>
#include <vector>

#include "core_tokensets/attribution/measures/judge.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "methods.hpp"

namespace cts_command {

struct judge_arguments {
  std::string weights, data = "scenes", classes, out, target = "argmax", missing = "drop";
  std::string task = "vqa", methods;
  std::ptrdiff_t heads = 0, samples = 200, sanity_samples = 20, batch = 20, steps = 10, sets = 30;
  std::uint64_t seed = 0;
  int threads = 0;
  bool quiet = false, skip_damaged = false;
};

using judge_backend = core_tokensets::eigen_backend<float>;

/// A method, and how it was asked for: the name of its column.
struct listed_method {
  std::string label;
  core_tokensets::any_attribution<judge_backend> method;
};

/// The methods that were asked for, or else these; chance is always among them, and comes first.
std::vector<listed_method> read_methods(const judge_arguments& a, const std::string& unless_given);

/// The table: `right` of so many samples are explained for what the model thinks most probable.
core_tokensets::json judged_json(const judge_arguments& a, const std::vector<listed_method>& methods,
                                 const std::vector<core_tokensets::judgement>& judged, std::size_t samples,
                                 double right);

/// Judges methods on answers of an image-text model.
core_tokensets::json judge_answers(const judge_arguments& a, const core_tokensets::tensor_file& file);

}  // namespace cts_command
