#pragma once
// Which rows of a packed batch belong to which sample, and which of them look at which.

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

/// Who looks at whom: the queries of sample s look at its keys. Causal: query i of nq sees the keys up to nk - nq + i,
/// so that the last query sees all of them (queries may be the end of a longer sequence whose keys are cached).
/// Attention matrices of all samples lie in one array: sample s holds `[H, nq_s, nk_s]`, samples one after the other.
/// Keys may have weights: one of weight w counts as w equal keys, A = w e^s / sum w e^s, which is log w added to its
/// scores (proportional attention of merged tokens, Bolya et al., ICLR 2023, eq. 1). They are constants.
class attention_rows {
 public:
  attention_rows() = default;
  /// Self-attention: every token is a query and a key.
  attention_rows(const sequences& all) { assign(all, all); }
  attention_rows(const sequences& queries, const sequences& keys, bool causal = false) {
    assign(queries, keys, causal);
  }
  /// Memory is reused; keys are without weights then.
  void assign(const sequences& queries, const sequences& keys, bool causal = false) {
    queries_.offsets = queries.offsets;
    keys_.offsets = keys.offsets;
    causal_ = causal;
    key_weights_ = nullptr;
    places_.assign(1, 0);
    for (index s = 0; s < queries.count(); ++s) {
      places_.push_back(places_.back() + queries.length(s) * keys.length(s));
    }
  }

  /// Gives the keys weights `[Tk]`, in the memory of the backend that computes with these rows and of its scalar; null:
  /// every key counts once. Whoever owns the memory outlives this object.
  template <class T>
  void weigh_keys(const T* weights) {
    key_weights_ = weights;
  }
  /// The weights that the same keys have elsewhere.
  void weigh_keys_like(const attention_rows& other) { key_weights_ = other.key_weights_; }
  bool has_key_weights() const { return key_weights_ != nullptr; }
  /// All weights, or null.
  template <class T>
  const T* key_weights() const {
    return static_cast<const T*>(key_weights_);
  }
  /// `[1, n]` of the first n keys of sample s, or empty.
  template <class T>
  view<const T> key_weights(index s, index n) const {
    return has_key_weights() ? view<const T>(key_weights<T>() + keys_.begin(s), 1, n) : view<const T>();
  }

  const sequences& queries() const { return queries_; }
  const sequences& keys() const { return keys_; }
  bool causal() const { return causal_; }
  index count() const { return queries_.count(); }

  /// Keys that query i of sample s sees.
  index visible(index s, index i) const {
    const index n = keys_.length(s);
    return causal_ ? std::clamp<index>(n - queries_.length(s) + i + 1, 0, n) : n;
  }
  /// Elements of the attention matrices of so many heads.
  index size(index heads) const { return places_.back() * heads; }
  /// `[H, nq, nk]` of sample s in an array `p` of `size(heads)` elements.
  template <class T>
  view<T> matrices(T* p, index s, index heads) const {
    const index nq = queries_.length(s), nk = keys_.length(s);
    return {p + places_[static_cast<std::size_t>(s)] * heads, 1, heads, nq, nk, 0, nq * nk, nk};
  }

 private:
  sequences queries_, keys_;
  bool causal_ = false;
  const void* key_weights_ = nullptr;
  std::vector<index> places_{0};
};

}  // namespace core_tokensets
