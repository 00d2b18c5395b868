#pragma once
// The state that attribution methods reuse from batch to batch, and the forward pass that they start from.

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

/// Runs the forward pass and settles what is explained. Gradients and relevance need `kept::gradients` or more; with
/// `everything` the tape holds the last block for all tokens.
template <tensor_backend B>
void explain_forward(B& b, const vit<B>& model, const token_batch& batch, const target& t, attribution_workspace<B>& ws,
                     kept keep = kept::everything) {
  using T = typename B::scalar;
  ws.tape.keep = keep;
  ws.tape.keep_matrices = true;
  forward(b, model, batch, ws.tape);
  const auto logits = ws.tape.logits.to_host(b);
  ws.explained = settle<T>(t, batch, logits);
  ws.classes = ws.explained.classes;
  const auto k = static_cast<std::size_t>(model.config().classes);
  std::vector<T> gradient(logits.size());
  for (std::size_t s = 0; s < ws.classes.size(); ++s) {
    ws.explained.template gradient<T>(s, std::span(logits).subspan(s * k, k), std::span(gradient).subspan(s * k, k));
  }
  ws.dlogits.assign(b, batch.samples(), model.config().classes, gradient.data());
  ws.all_rows.assign(b, ws.tape.plan.rows());
  ws.class_rows.assign(b, ws.tape.plan.classes.queries());
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
