#pragma once
// Several copies of the samples of a batch as one batch, for methods that change the patches themselves (noise, paths).

#include "core_tokensets/attribution/workspace.hpp"

namespace core_tokensets {

/// The samples named by `samples`, in that order and as often as they are named.
inline token_batch copy_samples(const token_batch& from, std::span<const index> samples) {
  token_batch out;
  out.patch_dim = from.patch_dim;
  for (const index s : samples) {
    const auto at = static_cast<std::size_t>(s);
    const index begin = from.offsets[at], end = from.offsets[at + 1];
    out.patches.insert(out.patches.end(), from.patches.begin() + begin * from.patch_dim,
                       from.patches.begin() + end * from.patch_dim);
    out.positions.insert(out.positions.end(), from.positions.begin() + begin, from.positions.begin() + end);
    if (!from.scale.empty()) out.scale.insert(out.scale.end(), from.scale.begin() + begin, from.scale.begin() + end);
    if (!from.token_weights.empty()) {
      out.token_weights.insert(out.token_weights.end(), from.token_weights.begin() + begin,
                               from.token_weights.begin() + end);
    }
    if (!from.targets.empty()) out.targets.push_back(from.targets[at]);
    if (!from.weights.empty()) out.weights.push_back(from.weights[at]);
    out.offsets.push_back(static_cast<index>(out.positions.size()));
  }
  return out;
}

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
