#pragma once
// Several copies of the samples of a batch as one batch, for methods that change the patches themselves (noise, paths).

#include "core_tokensets/attribution/workspace.hpp"

namespace core_tokensets {

/// What was settled for the samples of a batch, for such copies of them.
inline target repeat_target(const settled_target& settled, std::span<const index> samples) {
  target t{settled.what, explained_class::given};
  for (const index s : samples) {
    t.classes.push_back(settled.classes[static_cast<std::size_t>(s)]);
    if (settled.what == explained_score::margin) t.against.push_back(settled.others[static_cast<std::size_t>(s)]);
  }
  return t;
}

/// Calls `body(copies, number)` for `count` copies of every sample, cut into parts of at most `most_tokens` tokens (or
/// one sample): `copies` are the samples of a part and `number` which of its copies each is.
template <class Body>
void for_each_part(const token_batch& batch, index count, index most_tokens, const Body& body) {
  std::vector<index> copies, number;
  index tokens = 0;
  const auto flush = [&] {
    if (!copies.empty()) body(std::span<const index>(copies), std::span<const index>(number));
    copies.clear(), number.clear(), tokens = 0;
  };
  for (index s = 0; s < batch.samples(); ++s) {
    const index n = batch.offsets[static_cast<std::size_t>(s + 1)] - batch.offsets[static_cast<std::size_t>(s)] + 1;
    for (index c = 0; c < count; ++c) {
      if (tokens + n > most_tokens) flush();
      copies.push_back(s), number.push_back(c), tokens += n;
    }
  }
  flush();
}

/// Settles `t` for the batch itself, before copies of it are changed.
template <tensor_backend B>
settled_target settle_batch(B& b, const vit<B>& model, const token_batch& batch, const target& t,
                            attribution_workspace<B>& ws) {
  explain_forward(b, model, batch, t, ws, kept::logits);
  return ws.explained;
}

}  // namespace core_tokensets
