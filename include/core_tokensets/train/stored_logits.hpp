#pragma once
// The largest logits of each sample as columns of a memory: written when samples are remembered, read at replay.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/model/vit.hpp"

namespace core_tokensets {

/// Columns of a memory that keeps `top` logits of each sample: their values in 16 bits, and their classes, 65,535 where
/// there are fewer.
inline std::vector<memory_column> logit_columns(index top) {
  return {{"logits", dtype::f16, top, false}, {"logit_classes", dtype::u16, top, false}};
}

namespace detail {

inline constexpr std::uint16_t no_class = 0xffff;

inline void check_stored_logits(const token_memory& memory) {
  require(memory.has_column("logits") && memory.has_column("logit_classes"),
          "fit: the objective wants stored logits, which the memory does not keep; give its format logit_columns()");
}

/// What the memory keeps of the samples of a step.
struct recalled_logits {
  std::vector<float> values;          ///< [R, width]
  std::vector<std::int32_t> classes;  ///< [R, width], -1: none

  void read(const token_memory& memory, std::span<const index> samples) {
    values.clear(), classes.clear();
    for (const index s : samples) {
      const auto kept = memory.column("logits", s), of = memory.column("logit_classes", s);
      for (std::size_t i = 0; i < kept.size() / 2; ++i) {
        std::uint16_t bits = 0, c = 0;
        std::memcpy(&bits, kept.data() + 2 * i, 2);
        std::memcpy(&c, of.data() + 2 * i, 2);
        values.push_back(c == no_class ? 0.0f : static_cast<float>(half::from_bits(bits)));
        classes.push_back(c == no_class ? -1 : c);
      }
    }
  }
};

}  // namespace detail

/// Stores the largest logits that the model now has for the samples `first ..` of the memory, as they are kept.
template <tensor_backend B>
void store_logits(B& b, const vit<B>& model, token_memory& memory, index first, missing_tokens missing) {
  detail::check_stored_logits(memory);
  require(model.config().classes < detail::no_class, "store_logits: ", model.config().classes, " classes");
  vit_tape<B> tape;
  tape.keep = kept::logits;
  const index classes = model.config().classes;
  constexpr index batch_size = 128;
  for (index begin = first; begin < memory.samples(); begin += batch_size) {
    std::vector<index> part(static_cast<std::size_t>(std::min(batch_size, memory.samples() - begin)));
    std::iota(part.begin(), part.end(), begin);
    forward(b, model, make_batch(memory, part, model.config().normalisation, {.missing = missing}), tape);
    const auto logits = tape.logits.to_host(b);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto row = logits.begin() + static_cast<index>(i) * classes;
      std::vector<index> order(static_cast<std::size_t>(classes));
      std::iota(order.begin(), order.end(), index{0});
      std::stable_sort(order.begin(), order.end(), [&](index a, index c) { return row[a] > row[c]; });
      const auto values = memory.column("logits", part[i]), names = memory.column("logit_classes", part[i]);
      for (std::size_t k = 0; k < values.size() / 2; ++k) {
        const bool known = k < order.size();
        const std::uint16_t bits = known ? half(double(row[order[k]])).bits : std::uint16_t{0},
                            c = known ? static_cast<std::uint16_t>(order[k]) : detail::no_class;
        std::memcpy(values.data() + 2 * k, &bits, 2);
        std::memcpy(names.data() + 2 * k, &c, 2);
      }
    }
  }
}

}  // namespace core_tokensets
