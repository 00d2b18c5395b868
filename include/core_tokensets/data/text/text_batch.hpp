#pragma once
// Texts of a batch, packed behind one another like the patches of `token_batch`: what the text decoder reads and what
// it shall answer.

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Q texts about S pictures. Text q owns rows `offsets[q] .. offsets[q+1]` of the per-token arrays; the texts
/// `images[s]
/// .. images[s+1]` are about picture s, so that a picture with many questions is encoded once. A text is a prompt (a
/// question, or nothing), the token `begin`, and an answer; `targets` says which token shall follow, -1 inside the
/// prompt, where nothing is asked.
struct text_batch {
  std::vector<std::int32_t> tokens;   ///< [L]
  std::vector<std::int32_t> targets;  ///< [L]
  std::vector<index> offsets{0};      ///< [Q + 1]
  std::vector<index> images{0};       ///< [S + 1]
  std::vector<float> weights;         ///< [Q] weight of each text in the loss, or empty (all 1)

  index texts() const { return static_cast<index>(offsets.size()) - 1; }
  index pictures() const { return static_cast<index>(images.size()) - 1; }
  index length() const { return offsets.back(); }

  void clear() {
    tokens.clear(), targets.clear(), weights.clear();
    offsets.assign(1, 0), images.assign(1, 0);
  }
  /// Begins the texts of another picture.
  void next_picture() { images.push_back(images.back()); }
  /// Appends a text about the last picture: prompt, `begin`, answer; the answer is asked for, and `end` behind it.
  void append(std::span<const std::int32_t> prompt, std::span<const std::int32_t> answer, std::int32_t begin,
              std::int32_t end) {
    append_prompt(prompt, begin);
    targets.back() = answer.empty() ? end : answer[0];
    for (std::size_t i = 0; i < answer.size(); ++i) {
      tokens.push_back(answer[i]);
      targets.push_back(i + 1 < answer.size() ? answer[i + 1] : end);
    }
    offsets.back() = static_cast<index>(tokens.size());
  }
  /// Appends a text that ends where the answer begins.
  void append_prompt(std::span<const std::int32_t> prompt, std::int32_t begin) {
    require(pictures() > 0, "text batch: a text before the first picture");
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    tokens.push_back(begin);
    targets.resize(tokens.size(), -1);
    offsets.push_back(static_cast<index>(tokens.size()));
    ++images.back();
  }
};

/// The texts about the first `pictures` pictures.
inline text_batch texts_of_first(const text_batch& all, index pictures) {
  require(pictures >= 0 && pictures <= all.pictures(), "texts_of_first: ", pictures, " of ", all.pictures(),
          " pictures");
  const auto first = [](const auto& values, index n) {
    using values_type = std::remove_cvref_t<decltype(values)>;
    return values.empty() ? values_type() : values_type(values.begin(), values.begin() + n);
  };
  const index texts = all.images[static_cast<std::size_t>(pictures)],
              length = all.offsets[static_cast<std::size_t>(texts)];
  return {.tokens = first(all.tokens, length),
          .targets = first(all.targets, length),
          .offsets = first(all.offsets, texts + 1),
          .images = first(all.images, pictures + 1),
          .weights = first(all.weights, texts)};
}

}  // namespace core_tokensets
