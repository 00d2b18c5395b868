#pragma once
// Text from a picture and a prompt, token by token: greedy or with a beam. Keys and values of earlier tokens are
// cached, those of the picture are computed once.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core_tokensets/model/image_text.hpp"

namespace core_tokensets {

struct generation_options {
  index beams = 1;            ///< 1: greedy
  index length = 24;          ///< most tokens of an answer
  double length_penalty = 1;  ///< scores of finished texts are log-probabilities over length^penalty
};

/// One text that was written: its tokens without `end`, and the score that it was chosen by (`length_penalty`).
struct generated_text {
  std::vector<std::int32_t> tokens;
  double score = 0;
};

namespace detail {

/// A text being written: which prompt it answers, which row of the last step it grew from.
struct hypothesis {
  index text = 0, parent = 0;
  std::vector<std::int32_t> tokens;
  double log_probability = 0;
};

inline double score_of(const hypothesis& h, double penalty) {
  const auto length = static_cast<double>(h.tokens.size());
  return h.log_probability / std::pow(std::max(1.0, length), penalty);
}

/// log softmax of one row, in place.
inline void log_softmax(std::span<double> row) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const double x : row) sum += std::exp(x - top);
  for (double& x : row) x -= top + std::log(sum);
}

/// The `count` largest entries, ties to the lower number.
inline std::vector<std::int32_t> largest(std::span<const double> row, index count) {
  std::vector<std::int32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n = std::min<std::ptrdiff_t>(count, static_cast<std::ptrdiff_t>(row.size()));
  std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](std::int32_t a, std::int32_t b) {
    const double x = row[static_cast<std::size_t>(a)], y = row[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  order.resize(static_cast<std::size_t>(n));
  return order;
}

}  // namespace detail

/// The decoder with its caches. Rows of a step are hypotheses; those about one picture stand together.
template <tensor_backend B>
class cached_decoder {
 public:
  using T = typename B::scalar;

  cached_decoder(B& b, const image_text_model<B>& model) : b_(b), model_(model) {
    tape_.keep = kept::logits;
    cache_.resize(model.layout().decoder.size());
    image_.resize(cache_.size());
  }

  /// Encodes pictures and reads the prompts; returns the logits `[Q, V]` of the tokens that come next.
  std::vector<double> read(const token_batch& images, const text_batch& prompts) {
    encode(b_, model_, images, tape_);
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    const index dim = model_.config().text.dim;
    text_batch asking = prompts;  // the last token of each text is asked, and no other
    asking.targets.assign(asking.tokens.size(), -1);
    for (index q = 0; q < prompts.texts(); ++q) {
      asking.targets[static_cast<std::size_t>(prompts.offsets[static_cast<std::size_t>(q + 1)] - 1)] = 0;
    }
    tape_.text.assign(b_, asking, tape_.plan.all, model_.config().text);
    for (auto& x : stream_) x.resize(b_, prompts.length(), dim);
    forward<B, T>(b_, l.text, p, tape_.text.tokens, tape_.text.positions, *stream_[0]);
    for (std::size_t i = 0; i < l.decoder.size(); ++i) {
      forward<B, T>(b_, l.decoder[i], p, tape_.text.rows, *std::as_const(stream_[i % 2]), *std::as_const(tape_.norm.y),
                    block_, attention_kept::nothing, *stream_[(i + 1) % 2]);
      cache_[i].resize(b_, prompts.length(), 2 * dim);
      b_.map(fn::copy{}, *cache_[i], (*std::as_const(block_.self.qkv)).slice_cols(dim, 2 * dim));
      std::swap(image_[i], block_.cross.kv);
    }
    rows_of_.clear();
    lengths_.clear();
    for (index q = 0; q < prompts.texts(); ++q) {
      const index begin = prompts.offsets[static_cast<std::size_t>(q)],
                  end = prompts.offsets[static_cast<std::size_t>(q + 1)];
      rows_of_.emplace_back(static_cast<std::size_t>(end - begin));
      std::iota(rows_of_.back().begin(), rows_of_.back().end(), static_cast<std::int32_t>(begin));
      lengths_.push_back(end - begin);
    }
    last_.resize(b_, prompts.texts(), dim);
    b_.gather_rows(*last_, *std::as_const(stream_[l.decoder.size() % 2]), tape_.text.asked.data());
    return logits();
  }

  /// One token more for each of n hypotheses that grew from rows `parents` of the step before, `per_picture[s]` of
  /// them about picture s; returns the logits `[n, V]` of the tokens behind.
  std::vector<double> step(std::span<const std::int32_t> tokens, std::span<const index> parents,
                           std::span<const index> per_picture) {
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    const index n = static_cast<index>(tokens.size()), dim = model_.config().text.dim,
                heads = model_.config().text.heads;
    advance(parents);
    std::vector<std::int32_t> places, all_rows;
    sequences one_each, lengths, of_picture;
    for (index i = 0; i < n; ++i) {
      places.push_back(static_cast<std::int32_t>(lengths_[static_cast<std::size_t>(i)] - 1));
      one_each.push_back(1);
      lengths.push_back(lengths_[static_cast<std::size_t>(i)]);
      const auto& mine = rows_of_[static_cast<std::size_t>(i)];
      all_rows.insert(all_rows.end(), mine.begin(), mine.end());
    }
    for (const index count : per_picture) of_picture.push_back(count);
    token_rows_.assign(b_, tokens);
    place_rows_.assign(b_, places);
    order_.assign(b_, all_rows);
    const attention_rows self(one_each, lengths);
    attention_rows cross(of_picture, tape_.plan.rows());
    cross.weigh_keys_like(tape_.plan.all);
    for (auto& x : stream_) x.resize(b_, n, dim);
    forward<B, T>(b_, l.text, p, token_rows_, place_rows_, *stream_[0]);
    for (std::size_t i = 0; i < l.decoder.size(); ++i) {
      const block& own = l.decoder[i].self;
      const view<const T> x = *std::as_const(stream_[i % 2]);
      block_tape<B>& t = block_.self;
      forward<B, T>(b_, own.norm1, p, x, t.norm1);
      t.qkv.resize(b_, n, 3 * dim);
      forward<B, T>(b_, own.qkv, p, *t.norm1.y, {}, *t.qkv);
      extend(cache_[i], (*std::as_const(t.qkv)).slice_cols(dim, 2 * dim));
      const view<const T> kv = *std::as_const(cache_[i]);
      for (tensor<B>* rows : {&t.context, &t.middle, &block_.attended}) rows->resize(b_, n, dim);
      ops::attention<B, T>(b_, self, (*std::as_const(t.qkv)).slice_cols(0, dim).split_cols(heads),
                           kv_part(kv, 0, heads), kv_part(kv, 1, heads), attention_scale<T>(dim / heads),
                           (*t.context).split_cols(heads), nullptr);
      forward<B, T>(b_, own.proj, p, *std::as_const(t.context), x, *block_.attended);
      forward_from_kv<B, T>(b_, l.decoder[i].cross, p, cross, *std::as_const(block_.attended),
                            *std::as_const(image_[i]), block_.cross, attention_kept::nothing, *t.middle);
      forward_mlp<B, T>(b_, own, p, t, *stream_[(i + 1) % 2]);
    }
    last_.resize(b_, n, dim);
    b_.map(fn::copy{}, *last_, *std::as_const(stream_[l.decoder.size() % 2]));
    return logits();
  }

 private:
  /// Makes room for one token behind the rows of each parent; the new tokens' rows come behind all that there are.
  void advance(std::span<const index> parents) {
    std::vector<std::vector<std::int32_t>> rows;
    index total = 0;
    for (const auto& old : rows_of_) total += static_cast<index>(old.size());
    for (std::size_t i = 0; i < parents.size(); ++i) {
      rows.push_back(rows_of_[static_cast<std::size_t>(parents[i])]);
      rows.back().push_back(static_cast<std::int32_t>(total + static_cast<index>(i)));
    }
    old_rows_ = total;
    rows_of_ = std::move(rows);
    lengths_.clear();
    for (const auto& mine : rows_of_) lengths_.push_back(static_cast<index>(mine.size()));
  }

  /// cache = the rows of each hypothesis one behind the other, from what was cached and the new rows.
  void extend(tensor<B>& cache, view<const T> fresh) {
    both_.resize(b_, old_rows_ + fresh.rows, fresh.cols);
    b_.map(fn::copy{}, (*both_).slice_rows(0, old_rows_), *std::as_const(cache));
    b_.map(fn::copy{}, (*both_).slice_rows(old_rows_, fresh.rows), fresh);
    cache.resize(b_, order_.size(), fresh.cols);
    b_.gather_rows(*cache, *std::as_const(both_), order_.data());
  }

  std::vector<double> logits() {
    renumber();
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    forward<B, T>(b_, l.text_norm, p, *std::as_const(last_), tape_.text_norm);
    tape_.logits.resize(b_, last_.rows(), model_.config().text.vocabulary);
    forward<B, T>(b_, l.output, p, *tape_.text_norm.y, {}, *tape_.logits);
    const auto host = tape_.logits.to_host(b_);
    return {host.begin(), host.end()};
  }

  /// Behind a step the caches hold the rows of the hypotheses in order.
  void renumber() {
    std::int32_t next = 0;
    for (auto& mine : rows_of_) {
      for (auto& row : mine) row = next++;
    }
  }

  B& b_;
  const image_text_model<B>& model_;
  image_text_tape<B> tape_;
  decoder_block_tape<B> block_;
  std::vector<tensor<B>> cache_, image_;  ///< of each block: keys and values of text and of image tokens, `[rows, 2 C]`
  std::vector<std::vector<std::int32_t>> rows_of_;  ///< rows of each hypothesis in the caches
  std::vector<index> lengths_;
  index old_rows_ = 0;
  row_list<B> token_rows_, place_rows_, order_;  ///< of one step
  tensor<B> stream_[2], both_, last_;
};

namespace detail {

/// The live hypotheses of all texts, and what was finished.
class beam_search {
 public:
  /// `lengths` `[Q]`: most tokens of each text.
  beam_search(std::vector<index> lengths, const generation_options& o, std::int32_t end)
      : options_(o), end_(end), lengths_(std::move(lengths)), live_(lengths_.size()), done_(lengths_.size()) {
    for (std::size_t q = 0; q < live_.size(); ++q) {
      const auto text = static_cast<index>(q);
      live_[q] = {{text, text, {}, 0}};
    }
  }

  /// Takes log-probabilities `[n, V]` of what comes next, rows in the order of `all()`.
  void grow(std::span<double> logits, index vocabulary) {
    index row = 0;
    for (std::size_t q = 0; q < live_.size(); ++q) {
      std::vector<hypothesis> grown;
      for (const hypothesis& h : live_[q]) {
        const auto next =
            logits.subspan(static_cast<std::size_t>(row * vocabulary), static_cast<std::size_t>(vocabulary));
        log_softmax(next);
        for (const std::int32_t token : largest(next, options_.beams + 1)) {
          hypothesis more = h;
          more.parent = row;
          more.log_probability += next[static_cast<std::size_t>(token)];
          more.tokens.push_back(token);
          grown.push_back(std::move(more));
        }
        ++row;
      }
      std::stable_sort(grown.begin(), grown.end(),
                       [](const hypothesis& a, const hypothesis& b) { return a.log_probability > b.log_probability; });
      live_[q].clear();
      for (hypothesis& h : grown) {
        if (static_cast<index>(live_[q].size() + done_[q].size()) >= options_.beams) break;
        const bool ended = h.tokens.back() == end_;
        if (ended || static_cast<index>(h.tokens.size()) >= lengths_[q]) {
          done_[q].push_back(std::move(h));
        } else {
          live_[q].push_back(std::move(h));
        }
      }
    }
  }

  std::vector<hypothesis> all() const {
    std::vector<hypothesis> flat;
    for (const auto& of_text : live_) flat.insert(flat.end(), of_text.begin(), of_text.end());
    return flat;
  }

  std::vector<generated_text> best() const {
    std::vector<generated_text> result;
    for (const auto& finished : done_) {
      const auto top =
          std::max_element(finished.begin(), finished.end(), [&](const hypothesis& a, const hypothesis& b) {
            return score_of(a, options_.length_penalty) < score_of(b, options_.length_penalty);
          });
      generated_text text{top->tokens, score_of(*top, options_.length_penalty)};
      if (!text.tokens.empty() && text.tokens.back() == end_) text.tokens.pop_back();
      result.push_back(std::move(text));
    }
    return result;
  }

 private:
  generation_options options_;
  std::int32_t end_;
  std::vector<index> lengths_;
  std::vector<std::vector<hypothesis>> live_, done_;
};

}  // namespace detail

/// The most probable continuation of each of the Q prompts, found greedily or with a beam. An answer is cut where it
/// and its prompt would exceed the model's text length.
template <tensor_backend B>
std::vector<generated_text> generate(B& b, const image_text_model<B>& model, const token_batch& images,
                                     const text_batch& prompts, std::int32_t end, const generation_options& o = {}) {
  const text_config& c = model.config().text;
  require(o.beams > 0 && o.length > 0 && o.beams < c.vocabulary, "generate: ", o.beams, " beams and ", o.length,
          " tokens, expected more than 0 and fewer beams than the ", c.vocabulary, " tokens");
  require_finite("generate: length_penalty", o.length_penalty);
  std::vector<index> lengths;
  for (index q = 0; q < prompts.texts(); ++q) {
    const index used = prompts.offsets[static_cast<std::size_t>(q + 1)] - prompts.offsets[static_cast<std::size_t>(q)];
    require(used < c.length, "generate: prompt ", q, " has ", used, " tokens and leaves no room in ", c.length);
    lengths.push_back(std::min(o.length, c.length - used));
  }
  cached_decoder<B> decoder(b, model);
  detail::beam_search search(std::move(lengths), o, end);
  auto logits = decoder.read(images, prompts);
  search.grow(logits, c.vocabulary);
  std::vector<index> picture_of;
  for (index s = 0; s < prompts.pictures(); ++s) {
    picture_of.resize(static_cast<std::size_t>(prompts.images[static_cast<std::size_t>(s + 1)]), s);
  }
  for (auto live = search.all(); !live.empty(); live = search.all()) {
    std::vector<std::int32_t> tokens;
    std::vector<index> parents, per_picture(static_cast<std::size_t>(prompts.pictures()), 0);
    for (const auto& h : live) {
      tokens.push_back(h.tokens.back());
      parents.push_back(h.parent);
      ++per_picture[static_cast<std::size_t>(picture_of[static_cast<std::size_t>(h.text)])];
    }
    logits = decoder.step(tokens, parents, per_picture);
    search.grow(logits, c.vocabulary);
  }
  return search.best();
}

}  // namespace core_tokensets
