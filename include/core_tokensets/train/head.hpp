#pragma once
// The head of a classifier when classes arrive: room for them, rows that start from class means, rows of one length.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core_tokensets/data/tasks.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/train/evaluate.hpp"
#include "core_tokensets/train/feature_classifiers.hpp"

namespace core_tokensets {

/// The first class of a task whose classes are the last ones, to a model that knows the first `known` ones, and new; 0
/// where they are not: then all compete with all. They are old where the memory holds a sample of one of them. A class
/// that comes back alone is old as well, since a sample that competes with its own class alone teaches nothing.
inline index first_new_class(const task& t, index known, const token_memory& memory) {
  if (t.classes.empty()) return 0;
  const auto [least, most] = std::minmax_element(t.classes.begin(), t.classes.end());
  const index first = *least, end = index{*most} + 1;
  const bool gaps = end - first != static_cast<index>(t.classes.size()), alone = end - first == 1 && first < known;
  const auto& stored = memory.arrays().targets;
  const bool kept = std::any_of(stored.begin(), stored.end(), [&](std::int32_t k) { return k >= first && k < end; });
  return gaps || end < known || alone || kept ? 0 : first;
}

/// Gives the model a head for all classes up to those of the task, with their names. A head whose classes have no names
/// was for something else, and is replaced unless it has the right size; one with names grows. `Error`: names that are
/// not those of the data.
template <tensor_backend B>
void prepare_head(B& b, vit<B>& model, const task& t) {
  const index needed = seen_classes(t), have = model.config().classes;
  const std::vector<std::string> old = model.config().class_names;
  std::vector<std::string> names = class_names_of(t, needed);
  for (std::size_t k = 0; k < std::min(old.size(), names.size()); ++k) {
    require(old[k] == names[k], "fit: class ", k, " of the model is '", old[k], "', that of the task '", names[k],
            "'; give the model a fresh head (replace_head), or number the classes as the model does");
  }
  if (old.empty()) {
    if (have != needed) model.replace_head(b, needed);
    model.set_class_names(std::move(names));
  } else if (needed > have) {
    model.grow_head(b, needed, std::move(names));
  }
}

namespace detail {

/// Rows `[K, D]` of the head's weight on the host, and where they lie among the parameters.
template <tensor_backend B>
class head_rows {
 public:
  using T = typename B::scalar;
  head_rows(B& b, vit<B>& model) : b_(b), model_(model), all_(model.parameters().to_host(b)) {}
  std::span<T> operator[](index k) {
    const slot& w = model_.layout().head.weight;
    return std::span(all_).subspan(static_cast<std::size_t>(w.offset + k * w.cols), static_cast<std::size_t>(w.cols));
  }
  double length(index k) {
    double sum = 0;
    for (const T x : (*this)[k]) sum += double(x) * double(x);
    return std::sqrt(sum);
  }
  /// Mean length of the rows `begin` .. `end`.
  double mean_length(index begin, index end) {
    double sum = 0;
    for (index k = begin; k < end; ++k) sum += length(k);
    return end > begin ? sum / static_cast<double>(end - begin) : 0.0;
  }
  void store() { model_.parameters().assign(b_, 1, model_.parameters().size(), all_.data()); }

 private:
  B& b_;
  vit<B>& model_;
  std::vector<T> all_;
};

}  // namespace detail

/// Rows of the head from class `first` on become the mean features of their classes in `samples`, at the mean length of
/// the older rows (Qi et al., CVPR 2018, weight imprinting). Classes without samples keep theirs.
template <tensor_backend B>
void imprint_head(B& b, vit<B>& model, const sample_view<dataset>& samples, index first) {
  const model_outputs known = run_model(b, model, samples);
  const index classes = model.config().classes, dim = model.config().dim;
  const nearest_class_mean means(known.features, known.labels, classes);
  detail::head_rows<B> rows(b, model);
  const double old = rows.mean_length(0, first);
  for (index k = first; k < classes; ++k) {
    if (means.count(k) == 0) continue;
    double norm = 0;
    for (const double x : means.mean(k)) norm += x * x;
    if (!(norm > 0)) continue;
    const double target = old > 0 ? old : rows.length(k), scale = target / std::sqrt(norm);
    for (index d = 0; d < dim; ++d)
      rows[k][static_cast<std::size_t>(d)] = typename B::scalar(scale * means.mean(k)[static_cast<std::size_t>(d)]);
  }
  rows.store();
}

/// Scales the rows of the head from class `first` on so that their mean length is that of the older ones (weight
/// aligning, Zhao et al., CVPR 2020). Without older ones nothing changes.
template <tensor_backend B>
void align_head(B& b, vit<B>& model, index first) {
  const index classes = model.config().classes;
  if (first <= 0 || first >= classes) return;
  detail::head_rows<B> rows(b, model);
  const double fresh = rows.mean_length(first, classes);
  if (!(fresh > 0)) return;
  const double scale = rows.mean_length(0, first) / fresh;
  for (index k = first; k < classes; ++k) {
    for (auto& x : rows[k]) x = typename B::scalar(double(x) * scale);
  }
  rows.store();
}

}  // namespace core_tokensets
