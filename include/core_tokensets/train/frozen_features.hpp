#pragma once
// Rivals of a memory that keep features still: after the first task nothing is trained, and classes are told by sums
// over features. Classes only.

#include <optional>

#include "core_tokensets/train/feature_classifiers.hpp"
#include "core_tokensets/train/strategies.hpp"

namespace core_tokensets {

/// No training after the first task (none at all if `frozen`); pictures are classified by their features alone.
/// It is priced as what the classifier needs to keep, as floats; its file has them in double precision.
template <class Classifier>
struct frozen_features {
  static constexpr const char* name = Classifier::name;
  static constexpr const char* about = Classifier::about;
  bool frozen = false;
  Classifier classifier = Classifier();
  bool trained = false;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("frozen", self.frozen);
    if constexpr (requires { self.classifier.penalty; }) visit("penalty", self.classifier.penalty);
  }
};

/// Pictures belong to the class with the nearest mean feature (Mensink et al. 2013).
using class_means = frozen_features<nearest_class_mean>;
/// Pictures belong to the class that a ridge regression of all features so far says.
using ridge_head = frozen_features<ridge_regression>;

template <class C>
std::optional<task> training_task(frozen_features<C>& s, const task& t) {
  if (s.frozen || s.trained) return {};
  s.trained = true;
  return t;
}
template <tensor_backend B, class C>
consolidation consolidate(B& b, frozen_features<C>& s, const vit<B>& model, const task& t, token_memory&, index,
                          std::uint64_t = 0) {
  const model_outputs got = run_model(b, model, t.train());
  s.classifier.add(got.features, got.labels, model.config().classes);
  return {};
}
template <tensor_backend B, class C>
std::vector<double> class_scores(B& b, const frozen_features<C>& s, const vit<B>& model,
                                 const sample_view<dataset>& samples) {
  return s.classifier.scores(run_model(b, model, samples).features);
}
template <class C>
index memory_price(const frozen_features<C>& s, const token_memory&) {
  return s.classifier.bytes();
}
template <class C>
tensor_file save_state(const frozen_features<C>& s) {
  tensor_file file;
  file.metadata["trained"] = s.trained ? "true" : "false";
  s.classifier.save(file);
  return file;
}
template <class C>
void load_state(frozen_features<C>& s, const tensor_file& file) {
  s.trained = file.metadata.contains("trained") && file.metadata.at("trained") == "true";
  s.classifier = C::load(file);
}

}  // namespace core_tokensets
