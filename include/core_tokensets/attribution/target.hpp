#pragma once
// What is explained, and the state that attribution methods reuse from batch to batch.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/model/vit.hpp"

namespace core_tokensets {

/// Activations and gradients of the explained batch. One workspace serves one backend at a time.
template <tensor_backend B>
struct attribution_workspace {
  vit_tape<B> tape;
  tensor<B> dlogits, dtokens, relevance, attention_relevance;
  std::vector<std::int32_t> classes;  ///< [S] explained class of each sample
};

/// Runs the forward pass and settles the explained classes: `targets` `[S]`, or where it is empty the largest logit.
template <tensor_backend B>
void explain_forward(B& b, const vit<B>& model, const token_batch& batch, std::span<const std::int32_t> targets,
                     attribution_workspace<B>& ws) {
  const index k = model.config().classes;
  require(targets.empty() || static_cast<index>(targets.size()) == batch.samples(), "attribution: ", targets.size(),
          " targets for ", batch.samples(), " samples");
  ws.tape.keep = kept::everything;
  forward(b, model, batch, ws.tape);
  ws.classes.assign(targets.begin(), targets.end());
  if (targets.empty()) {
    const auto logits = ws.tape.logits.to_host(b);
    for (index s = 0; s < batch.samples(); ++s) {
      const auto row = logits.begin() + s * k;
      ws.classes.push_back(static_cast<std::int32_t>(std::max_element(row, row + k) - row));
    }
  }
  for (const std::int32_t c : ws.classes) require(c >= 0 && c < k, "attribution: class ", c, " of ", k, " classes");
}

/// Leaves d logit / d attention of every block in the tape.
template <tensor_backend B>
void explain_backward(B& b, const vit<B>& model, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  const auto samples = static_cast<index>(ws.classes.size()), k = model.config().classes;
  std::vector<T> one_hot(static_cast<std::size_t>(samples * k), T(0));
  for (index s = 0; s < samples; ++s) {
    one_hot[static_cast<std::size_t>(s * k + ws.classes[static_cast<std::size_t>(s)])] = T(1);
  }
  ws.dlogits.assign(b, samples, k, one_hot.data());
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.dtokens, {}, {.attention_gradients = true});
}

/// The class-token row of one sample, carried through the blocks from the last to the first: row <- row M. This
/// replaces the product of whole matrices, of which only that row is ever used.
template <class T>
class class_row {
 public:
  explicit class_row(index n) : row_(static_cast<std::size_t>(n), 0.0), next_(row_) { row_[0] = 1; }

  /// row <- row (C + I) D with C `[n, n]` given by `element(r, c)` and D the division of each row of C + I by its sum,
  /// if wanted.
  template <class Element>
  void multiply(const Element& element, bool normalise_rows) {
    const auto n = static_cast<index>(row_.size());
    std::fill(next_.begin(), next_.end(), 0.0);
    std::vector<double> values(row_.size());
    for (index r = 0; r < n; ++r) {
      const double weight = row_[static_cast<std::size_t>(r)];
      if (weight == 0) continue;
      double total = 0;
      for (index c = 0; c < n; ++c) total += values[static_cast<std::size_t>(c)] = element(r, c) + (r == c ? 1.0 : 0.0);
      const double factor = normalise_rows ? weight / total : weight;
      for (std::size_t c = 0; c < row_.size(); ++c) next_[c] += factor * values[c];
    }
    row_.swap(next_);
  }
  /// Relevance of the patches: the row without the class token's own entry.
  void copy_patches(double* out) const { std::copy(row_.begin() + 1, row_.end(), out); }

 private:
  std::vector<double> row_, next_;
};

}  // namespace core_tokensets
