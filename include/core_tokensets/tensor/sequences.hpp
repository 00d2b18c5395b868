#pragma once
// Which rows of a packed batch belong to which sample.

#include <algorithm>
#include <vector>

#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Sample s owns token rows `offsets[s] .. offsets[s+1]`.
struct sequences {
  std::vector<index> offsets{0};

  index count() const { return static_cast<index>(offsets.size()) - 1; }
  index tokens() const { return offsets.back(); }
  index begin(index s) const { return offsets[static_cast<std::size_t>(s)]; }
  index length(index s) const { return begin(s + 1) - begin(s); }
  void push_back(index tokens_of_sample) { offsets.push_back(offsets.back() + tokens_of_sample); }
};

/// Where attention matrices of ragged sequences lie in one array: sample s holds `[H, n_s, n_s]`, samples one
/// after the other.
struct attention_layout {
  index heads = 1;
  std::vector<index> offsets{0};

  attention_layout() = default;
  attention_layout(const sequences& s, index h) { assign(s, h); }
  void assign(const sequences& s, index h) {
    heads = h;
    offsets.resize(1);
    for (index i = 0; i < s.count(); ++i) offsets.push_back(offsets.back() + h * s.length(i) * s.length(i));
  }
  index size() const { return offsets.back(); }

  /// `[H, n, n]` of sample s in an array `p` of `size()` elements.
  template <class T>
  view<T> of(T* p, index s) const {
    const index total = offsets[static_cast<std::size_t>(s) + 1] - offsets[static_cast<std::size_t>(s)];
    index n = 0;
    while (heads * n * n < total) ++n;
    return {p + offsets[static_cast<std::size_t>(s)], 1, heads, n, n, 0, n * n, n};
  }
};

}  // namespace core_tokensets
