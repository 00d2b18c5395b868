#pragma once
// The state that attribution methods reuse from batch to batch, and the forward pass that they start from.

#include <algorithm>
#include <cmath>
#include <string>

#include "core_tokensets/attribution/target.hpp"
#include "core_tokensets/model/vit.hpp"
#include "core_tokensets/nn/lrp/elementwise.hpp"

namespace core_tokensets {

/// Activations, gradients and relevance of the explained batch. One workspace serves one backend at a time.
template <tensor_backend B>
struct attribution_workspace {
  vit_tape<B> tape;
  std::vector<std::int32_t> classes;  ///< [S] explained class of each sample
  settled_target explained;
  tensor<B> dlogits;              ///< [S, K] gradient of what is explained
  tensor<B> dtokens;              ///< [T, D] its gradient at the input of a block
  tensor<B> attention_gradient;   ///< its gradient at the attention of a block
  tensor<B> relevance;            ///< [T, D] relevance at the input of a block
  tensor<B> attention_relevance;  ///< relevance of the attention of a block
  lrp::sample_rows<B> all_rows, class_rows;
};

namespace detail {

/// |x|, for reductions
struct magnitude {
  template <class T>
  constexpr T operator()(const T& x) const {
    return x < T(0) ? -x : x;
  }
};

/// Sums of absolute values `[S]` over the rows of each sample.
template <tensor_backend B, class T = typename B::scalar>
std::vector<double> sample_magnitudes(B& b, const lrp::sample_rows<B>& rows, const_view<T> r) {
  scratch<B> of_row(b, r.rows, 1), of_sample(b, rows.samples, 1);
  b.row_reduce(fn::plus{}, magnitude{}, *of_row, r);
  b.fill(*of_sample, T(0));
  b.scatter_add_rows(*of_sample, *of_row, rows.sample_of_row.data());
  std::vector<T> host(static_cast<std::size_t>(rows.samples));
  b.download(host.data(), of_sample.data(), rows.samples);
  return {host.begin(), host.end()};
}

/// `Error` where a logit is not finite; it names the first block behind which the sample's numbers are not.
template <tensor_backend B, class T>
void require_finite_logits(B& b, const attribution_workspace<B>& ws, const std::vector<T>& logits, index classes) {
  const auto bad = std::find_if(logits.begin(), logits.end(), [](T x) { return !std::isfinite(x); });
  if (bad == logits.end()) return;
  const index sample = (bad - logits.begin()) / classes;
  const bool kept_streams = ws.tape.keep == kept::gradients || ws.tape.keep == kept::everything;
  std::string where = kept_streams ? "; nor are its numbers at the head" : "";
  for (std::size_t i = kept_streams ? ws.tape.stream.size() : 0; i-- > 0;) {
    if (ws.tape.stream[i].rows() != ws.all_rows.sample_of_row.size()) continue;
    const auto sizes = sample_magnitudes<B, T>(b, ws.all_rows, *ws.tape.stream[i]);
    if (std::isfinite(sizes[static_cast<std::size_t>(sample)])) break;
    where = i == 0 ? "; nor are its numbers from the embedding on"
                   : "; nor are its numbers from block " + std::to_string(i - 1) + " on";
  }
  fail("attribution: the logits of sample ", sample, " are not finite", where,
       "; expected weights that fit their arithmetic");
}

}  // namespace detail

/// Runs the forward pass and settles what is explained. `Error` where logits are not finite. Gradients and relevance
/// need `kept::gradients` or more; with `everything` the tape holds the last block for all tokens.
template <tensor_backend B>
void explain_forward(B& b, const vit<B>& model, const token_batch& batch, const target& t, attribution_workspace<B>& ws,
                     kept keep = kept::everything) {
  using T = typename B::scalar;
  ws.tape.keep = keep;
  ws.tape.keep_matrices = true;
  forward(b, model, batch, ws.tape);
  ws.all_rows.assign(b, ws.tape.plan.rows());
  ws.class_rows.assign(b, ws.tape.plan.classes.queries());
  const auto logits = ws.tape.logits.to_host(b);
  detail::require_finite_logits<B, T>(b, ws, logits, model.config().classes);
  ws.explained = settle<T>(t, batch, logits);
  ws.classes = ws.explained.classes;
  const auto k = static_cast<std::size_t>(model.config().classes);
  std::vector<T> gradient(logits.size());
  for (std::size_t s = 0; s < ws.classes.size(); ++s) {
    ws.explained.template gradient<T>(s, std::span(logits).subspan(s * k, k), std::span(gradient).subspan(s * k, k));
  }
  ws.dlogits.assign(b, batch.samples(), model.config().classes, gradient.data());
}

/// True if the last block was computed for the class tokens only.
template <tensor_backend B>
bool is_class_block(const vit_tape<B>& tape, index i, const vit<B>& model) {
  return i + 1 == model.config().depth && tape.keep != kept::everything;
}

/// Who looks at whom in the attention of block i, which is the layout of its matrices.
template <tensor_backend B>
const attention_rows& attention_layout(const vit_tape<B>& tape, index i, const vit<B>& model) {
  return is_class_block(tape, i, model) ? tape.plan.classes : tape.plan.all;
}

/// Activations of the attention of block i (for the last one of its class tokens, unless everything was kept).
template <tensor_backend B>
const block_tape<B>& tape_of_block(const vit_tape<B>& tape, index i, const vit<B>& model) {
  return is_class_block(tape, i, model) ? tape.last.block : tape.blocks[static_cast<std::size_t>(i)];
}

}  // namespace core_tokensets
