#pragma once
// Cross-entropy in which all classes compete for every sample, and the asymmetric one, in which most new samples
// compete among the new classes only.

#include <algorithm>

#include "core_tokensets/train/objectives/objective.hpp"

namespace core_tokensets {

/// All classes compete for new and replayed samples alike: the paper's loss.
struct summed {
  static constexpr const char* name = "sum";
  static constexpr const char* about = "cross-entropy, all classes compete for every sample (the paper's)";
  double smoothing = 0;  ///< share of the target that is spread evenly over the competing classes

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("smoothing", self.smoothing);
  }
};

template <tensor_backend B, class T = typename B::scalar>
void loss(const summed& o, B& b, const_view<T> logits, const objective_batch<T>& batch, loss_tape<B>& tape) {
  cross_entropy(b, logits, batch.targets, tape, batch.weights, {.label_smoothing = o.smoothing});
}

/// Asymmetric cross-entropy (ER-ACE, Caccia et al., ICLR 2022): new samples compete among the classes of their own task
/// only, so that they do not push the old ones down. There the memory holds samples of the current task too, for which
/// all classes compete; here it does not yet, so some of the new samples take their place: as many for each new class
/// as are replayed for each old one. On equal footing these look as the memory's samples do (its tokens, its codec), so
/// that nothing but the picture tells which are old; all others stay whole.
struct ace {
  static constexpr const char* name = "ace";
  static constexpr const char* about = "asymmetric cross-entropy: most new samples compete among the new classes only";
  double smoothing = 0;
  bool equal_footing = true;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("smoothing", self.smoothing);
    visit("equal_footing", self.equal_footing);
  }

  /// How many of the new samples compete with the old classes too, the first ones of the batch.
  static index open_contest(index fresh, index replayed, index first_class, index classes) {
    if (first_class == 0) return fresh;
    return std::min(fresh, replayed * (classes - first_class) / first_class);
  }
  /// None where nothing is replayed or nobody knows which classes are old.
  index on_equal_footing(index fresh, index replayed, index first_class, index classes) const {
    const bool contest = equal_footing && replayed > 0 && first_class > 0;
    return contest ? open_contest(fresh, replayed, first_class, classes) : 0;
  }
};

template <tensor_backend B, class T = typename B::scalar>
void loss(const ace& o, B& b, const_view<T> logits, const objective_batch<T>& batch, loss_tape<B>& tape) {
  const index open = ace::open_contest(batch.fresh, logits.rows - batch.fresh, batch.first_class, logits.cols);
  auto& first = tape.competing;
  first.assign(batch.targets.size(), 0);
  std::fill(first.begin() + open, first.begin() + batch.fresh, static_cast<std::int32_t>(batch.first_class));
  cross_entropy(b, logits, batch.targets, tape, batch.weights, {.label_smoothing = o.smoothing, .first_class = first});
}

}  // namespace core_tokensets
