#pragma once
// Dark experience replay (DER++, Buzzega et al., NeurIPS 2020): the memory keeps some logits of each sample as they
// were, and training is asked to keep them.

#include <vector>

#include "core_tokensets/train/objectives/distilled.hpp"

namespace core_tokensets {

namespace fn {

/// d += factor weight mask (z - stored)
struct add_masked_difference {
  double factor;
  template <class T>
  constexpr void operator()(T& d, const T& z, const T& stored, const T& mask) const {
    d += T(factor) * mask * (z - stored);
  }
};

/// mask (z - stored)^2
struct masked_square {
  template <class T>
  constexpr T operator()(const T& z, const T& stored, const T& mask) const {
    return mask * (z - stored) * (z - stored);
  }
};

}  // namespace fn

/// `base`, plus for replayed samples `alpha` times the mean over the stored logits h_c of (z_c - h_c)^2. The `top`
/// largest logits of each sample are stored, 4 bytes each; all of them if there are no more classes.
template <class Base = ace>
struct dark_experience {
  static constexpr const char* name = "der";
  static constexpr const char* about =
      "asymmetric cross-entropy, and replayed samples keep the logits that were stored";
  Base base = {};
  double alpha = 0.5;
  index top = 10;

  index stored_logits() const { return top; }

  index on_equal_footing(index fresh, index replayed, index first_class, index classes) const {
    return core_tokensets::on_equal_footing(base, fresh, replayed, first_class, classes);
  }
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("alpha", self.alpha);
    visit("top", self.top);
    if constexpr (requires { Base::options(self.base, visit); }) Base::options(self.base, visit);
  }
};

template <class Base, tensor_backend B, class T = typename B::scalar>
void loss(const dark_experience<Base>& o, B& b, const_view<T> logits, const objective_batch<T>& batch,
          loss_tape<B>& tape) {
  loss(o.base, b, logits, batch, tape);
  require(o.alpha >= 0 && o.top > 0, "der: alpha ", o.alpha, ", top ", o.top, ", expected at least 0, and more than 0");
  const index rows = logits.rows, classes = logits.cols, replayed = rows - batch.fresh;
  if (replayed == 0 || batch.stored_logits.empty()) return;
  const index width = static_cast<index>(batch.stored_logits.size()) / replayed;
  require(batch.stored_classes.size() == batch.stored_logits.size() &&
              width * replayed == static_cast<index>(batch.stored_logits.size()),
          "der: ", batch.stored_logits.size(), " stored logits for ", replayed, " replayed samples");
  auto& host = tape.on_host;  // stored logits, then what each counts, as matrices
  host.assign(static_cast<std::size_t>(2 * replayed * classes), T(0));
  for (index r = 0; r < replayed; ++r) {
    index known = 0;
    const auto of_row =
        batch.stored_classes.subspan(static_cast<std::size_t>(r * width), static_cast<std::size_t>(width));
    for (const std::int32_t c : of_row) known += c >= 0 ? 1 : 0;
    const float weight = batch.weights.empty() ? 1.0f : batch.weights[static_cast<std::size_t>(batch.fresh + r)];
    for (index i = 0; i < width; ++i) {
      const index c = of_row[static_cast<std::size_t>(i)];
      if (c < 0) continue;
      require(c < classes, "der: a stored logit of class ", c, ", the model has ", classes);
      host[static_cast<std::size_t>(r * classes + c)] = T(batch.stored_logits[static_cast<std::size_t>(r * width + i)]);
      host[static_cast<std::size_t>((replayed + r) * classes + c)] = T(1) / T(known) * T(weight);
    }
  }
  tape.stored.assign(b, 2 * replayed, classes, host.data());
  const view<const T> stored = (*std::as_const(tape.stored)).slice_rows(0, replayed),
                      mask = (*std::as_const(tape.stored)).slice_rows(replayed, replayed),
                      z = logits.slice_rows(batch.fresh, replayed);
  b.map(fn::add_masked_difference{2 * o.alpha / static_cast<double>(rows)},
        (*tape.dlogits).slice_rows(batch.fresh, replayed), z, stored, mask);
  // The losses are without weights, which the masks hold: divided out where they are not 0.
  scratch<B> squares(b, replayed, 1);
  b.row_reduce(fn::plus{}, fn::masked_square{}, *squares, z, stored, mask);
  if (!tape.weights.empty()) {
    b.map(fn::divide_safely{}, *squares, view<const T>(*squares),
          (*std::as_const(tape.weights)).slice_rows(batch.fresh, replayed));
  }
  b.map(fn::add_scaled{o.alpha}, (*tape.losses).slice_rows(batch.fresh, replayed), view<const T>(*squares));
}

}  // namespace core_tokensets
