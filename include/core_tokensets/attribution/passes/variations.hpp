#pragma once
// Many changed versions of the samples of a batch (tokens dropped, zeroed or suppressed), run through a model in large
// ragged batches. What does not depend on the change is computed once: embeddings, and norm, queries, keys and values
// of the first block. The last block is computed for class tokens only.

#include <algorithm>

#include "core_tokensets/attribution/workspace.hpp"
#include "core_tokensets/data/token_drop.hpp"

namespace core_tokensets {

namespace detail {

/// The sample that each patch of a batch belongs to.
inline std::vector<index> sample_of_patch(const token_batch& batch) {
  std::vector<index> samples;
  for (index s = 0; s < batch.samples(); ++s) {
    samples.resize(static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(s + 1)]), s);
  }
  return samples;
}

}  // namespace detail

/// One changed version: rows of the engine's table of tokens, class token first and registers last, and where wanted a
/// factor on the attention score of each as a key (all or none of the versions of a run).
struct variation {
  std::vector<std::int32_t> rows;
  std::vector<double> factors;
};

template <tensor_backend B>
class variation_engine {
 public:
  using T = typename B::scalar;
  /// Tokens that are computed at a time, unless one version has more.
  static constexpr index most_tokens = 4096;

  variation_engine(B& b, const vit<B>& model, const token_batch& batch) : b_(b), model_(model), batch_(batch) {
    core_tokensets::detail::check_batch(batch, model.config());
    const auto& l = model.layout();
    const auto p = model.view_parameters();
    const index dim = model.config().dim;
    plan_.assign(b, l.embedding, batch.offsets, batch.positions, batch.scale, batch.token_weights);
    weights_ = plan_.key_weights.to_host(b);
    if (!weights_.empty()) weights_.insert(weights_.end(), batch.token_weights.begin(), batch.token_weights.end());
    core_tokensets::detail::upload_patches(b, batch, patches_);
    table_.resize(b, plan_.tokens() + batch.tokens(), dim);
    const view<T> tokens = (*table_).slice_rows(0, plan_.tokens()),
                  zeroed = (*table_).slice_rows(plan_.tokens(), batch.tokens());
    forward<B, T>(b, l.embedding, p, plan_, *std::as_const(patches_), embedding_, tokens);
    std::vector<std::int32_t> positions(batch.positions);
    for (auto& position : positions) position += static_cast<std::int32_t>(l.embedding.first_patch());
    row_list<B> of_patch;
    of_patch.assign(b, positions);
    b.gather_rows(zeroed, p[l.embedding.positions], of_patch.data());
    if (l.embedding.norm) {
      layer_norm_tape<B> norm;
      forward<B, T>(b, *l.embedding.norm, p, zeroed, norm);
      b.map(fn::copy{}, zeroed, *std::as_const(norm.y));
    }
    if (shares_first_block()) {
      block_tape<B> tape;
      table_qkv_.resize(b, table_.rows(), 3 * dim);
      forward<B, T>(b, l.blocks[0].norm1, p, *std::as_const(table_), tape.norm1);
      forward<B, T>(b, l.blocks[0].qkv, p, *tape.norm1.y, {}, *table_qkv_);
    }
  }

  const embedding_plan<B>& plan() const { return plan_; }
  /// Patch embeddings `[P, D]` before positions are added, and tokens `[T, D]`, of the unchanged batch.
  view<const T> embeddings() const { return *embedding_.patches; }
  view<const T> tokens() const { return (*table_).slice_rows(0, plan_.tokens()); }

  /// The whole sample s.
  void whole(index s, variation& out) const {
    out.rows.clear();
    for (index t = plan_.rows().begin(s); t < plan_.rows().begin(s + 1); ++t) {
      out.rows.push_back(static_cast<std::int32_t>(t));
    }
  }
  /// Sample s with the patches of which `keep` (of its own patches) is 0 left out. `Error`: the meaning `rescaled`.
  void without(index s, std::span<const std::uint8_t> keep, missing_tokens how, variation& out) const {
    require(how != missing_tokens::rescaled, "attribution: tokens are left out by drop or zero");
    const index begin = batch_.offsets[static_cast<std::size_t>(s)];
    whole(s, out);
    for (std::size_t i = 0; i < keep.size(); ++i) {
      if (keep[i] == 0) {
        out.rows[i + 1] = how == missing_tokens::drop
                              ? -1
                              : static_cast<std::int32_t>(plan_.tokens() + begin) + static_cast<std::int32_t>(i);
      }
    }
    std::erase(out.rows, -1);
  }

  /// Calls `describe(v, variation&)` for versions 0 .. count - 1 in order and `result(v, logits [K])` for each.
  template <class Describe, class Result>
  void run(index count, bool from_minimum, const Describe& describe, const Result& result) {
    variation next;
    for (index v = 0; v < count; ++v) {
      next.factors.clear();
      describe(v, next);
      const auto tokens = static_cast<index>(next.rows.size());
      if (rows_.count() > 0 && rows_.tokens() + tokens > most_tokens) flush(from_minimum, result);
      rows_.push_back(tokens);
      gathered_.insert(gathered_.end(), next.rows.begin(), next.rows.end());
      factors_.insert(factors_.end(), next.factors.begin(), next.factors.end());
    }
    if (rows_.count() > 0) flush(from_minimum, result);
    done_ = 0;
  }

 private:
  bool shares_first_block() const { return model_.config().depth > 1; }

  template <class Result>
  void flush(bool from_minimum, const Result& result) {
    require(factors_.empty() || factors_.size() == gathered_.size(), "attribution: ", factors_.size(), " factors for ",
            gathered_.size(), " tokens");
    forward_changed(from_minimum);
    const auto logits = logits_.to_host(b_);
    const auto k = static_cast<std::size_t>(model_.config().classes);
    for (index v = 0; v < rows_.count(); ++v) {
      result(done_ + v, std::span<const T>(logits).subspan(static_cast<std::size_t>(v) * k, k));
    }
    done_ += rows_.count();
    rows_.offsets.assign(1, 0);
    gathered_.clear();
    factors_.clear();
  }

  /// From the rows that were gathered to `logits_`.
  void forward_changed(bool from_minimum) {
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    const index dim = model_.config().dim, tokens = rows_.tokens(), versions = rows_.count();
    sequences one_each;
    std::vector<std::int32_t> class_rows;
    for (index v = 0; v < versions; ++v) {
      one_each.push_back(1);
      class_rows.push_back(static_cast<std::int32_t>(rows_.begin(v)));
    }
    all_.assign(rows_, rows_);
    classes_.assign(one_each, rows_);
    class_rows_.assign(b_, class_rows);
    gathered_rows_.assign(b_, gathered_);
    if (!weights_.empty()) {
      std::vector<T> host;
      for (const std::int32_t row : gathered_) host.push_back(weights_[static_cast<std::size_t>(row)]);
      device_weights_.assign(b_, 1, tokens, host.data());
      all_.weigh_keys(device_weights_.data());
      classes_.weigh_keys(device_weights_.data());
    }
    key_factors<T> factors;
    if (!factors_.empty()) {
      const std::vector<T> host(factors_.begin(), factors_.end());
      device_factors_.assign(b_, 1, tokens, host.data());
      factors = {device_factors_.data(), from_minimum};
    }
    for (auto& x : stream_) x.resize(b_, tokens, dim);
    b_.gather_rows(*stream_[0], *std::as_const(table_), gathered_rows_.data());
    const std::size_t last = l.blocks.size() - 1;
    for (std::size_t i = 0; i < last; ++i) {
      const view<const T> x = *std::as_const(stream_[i % 2]);
      const view<T> y = *stream_[(i + 1) % 2];
      if (i == 0) {
        tape_.qkv.resize(b_, tokens, 3 * dim);
        b_.gather_rows(*tape_.qkv, *std::as_const(table_qkv_), gathered_rows_.data());
        forward_from_qkv<B, T>(b_, l.blocks[i], p, all_, x, tape_, attention_kept::nothing, y, factors);
      } else {
        forward<B, T>(b_, l.blocks[i], p, all_, x, tape_, attention_kept::nothing, y, factors);
      }
    }
    class_out_.resize(b_, versions, dim);
    forward<B, T>(b_, l.blocks[last], p, classes_, class_rows_, *std::as_const(stream_[last % 2]), last_,
                  attention_kept::nothing, *class_out_, factors);
    forward<B, T>(b_, l.norm, p, *std::as_const(class_out_), norm_);
    logits_.resize(b_, versions, model_.config().classes);
    forward<B, T>(b_, l.head, p, *norm_.y, {}, *logits_);
  }

  B& b_;
  const vit<B>& model_;
  const token_batch& batch_;
  embedding_plan<B> plan_;
  tensor<B> patches_;
  embedding_tape<B> embedding_;
  tensor<B> table_;         ///< [T + P, D] tokens, then the patches' tokens with their embeddings set to 0
  tensor<B> table_qkv_;     ///< [T + P, 3 D] of the first block
  std::vector<T> weights_;  ///< [T + P] of the table's rows as keys, or empty
  sequences rows_;
  std::vector<std::int32_t> gathered_;
  std::vector<double> factors_;
  index done_ = 0;
  attention_rows all_, classes_;
  row_list<B> class_rows_, gathered_rows_;
  tensor<B> device_factors_, device_weights_, stream_[2], class_out_, logits_;
  block_tape<B> tape_;
  class_block_tape<B> last_;
  layer_norm_tape<B> norm_;
};

/// Logits `[S, K]` of the unchanged samples, and what `t` explains in them.
template <tensor_backend B>
settled_target settle_unchanged(variation_engine<B>& engine, const token_batch& batch, const target& t,
                                std::vector<double>& logits) {
  using T = typename B::scalar;
  logits.clear();
  engine.run(
      batch.samples(), false, [&](index s, variation& v) { engine.whole(s, v); },
      [&](index, std::span<const T> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  return settle<double>(t, batch, logits);
}

}  // namespace core_tokensets
