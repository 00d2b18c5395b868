#pragma once
// Where the class token looks: the raw attention of the last block.

#include "core_tokensets/attribution/passes/class_row.hpp"

namespace core_tokensets {

/// Class-token row of the last block's attention, mean over heads. Does not depend on the target.
struct last_attention {
  static constexpr const char* name = "attention";
  static constexpr const char* about = "where the class token looks in the last block, mean over heads";
};

template <tensor_backend B>
std::vector<double> attribute(const last_attention&, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  explain_forward(b, model, batch, t, ws, kept::attention);
  const index last = model.config().depth - 1;
  return mean_class_row(b, ws.tape.plan, attention_layout(ws.tape, last, model), model.config().heads,
                        std::as_const(tape_of_block(ws.tape, last, model).a).data());
}

}  // namespace core_tokensets
