#pragma once
// Attention inside each sample of a ragged batch, tile by tile with a running softmax (Milakov & Gimelshein 2018, Dao
// et al. 2022): forward. Probabilities are written only where they are asked for.

#include <cmath>

#include "core_tokensets/core/functors.hpp"
#include "core_tokensets/tensor/cuda/reduce.hpp"
#include "core_tokensets/tensor/cuda/tile.hpp"

namespace core_tokensets::cuda {

/// Where a sample's queries and keys lie, and its matrices (times the heads) in an array of probabilities.
struct attention_sample {
  index place = 0;
  std::int32_t query = 0, queries = 0, key = 0, keys = 0;
};

/// Some rows of a sample: those from `first` on that a block works on.
struct attention_tile {
  std::int32_t sample = 0, first = 0;
};

/// Rows of a sample that a block owns, and rows of the other side that it looks at between two barriers.
inline constexpr int tile_rows = 64, tile_columns = 32;
inline constexpr float no_log_sum = 3e38f;  ///< of a query that sees no key: every exp(x - it) is 0

/// What all kernels of attention take.
struct attention_operands {
  const attention_sample* samples = nullptr;
  const attention_tile* tiles = nullptr;
  head_operand q, k, v, out, dout;
  float *probabilities = nullptr, *log_sums = nullptr;  ///< as in `ops::attention`; each may be null
  const float* key_weights = nullptr;                   ///< [Tk], or null: every key counts once
  index heads = 1, total_queries = 0;
  int width = 0;  ///< columns of a head
  float scale = 1;
  bool causal = false, quads = false;
  arithmetic rounding = arithmetic::f32;

  /// Keys that query i sees.
  constexpr int visible(const attention_sample& s, int i) const {
    const int seen = causal ? smaller(s.keys, s.keys - s.queries + i + 1) : s.keys;
    return seen > 0 ? seen : 0;
  }
  template <int Rows, int D, int Threads, class Thread, int N>
  constexpr void load(const Thread& t, const tile_source (&sources)[N]) const {
    load_tiles<Rows, D, Threads>(t, sources, width, quads, rounding);
  }
  /// Row i of head h of the sample's attention matrices in `p`.
  constexpr float* matrix_row(float* p, const attention_sample& s, index h, int i) const {
    return p + s.place * heads + (h * s.queries + i) * s.keys;
  }
};

/// Element e of group n of a fragment of scores: its row and column.
struct fragment_place {
  int row, column;
};
template <class Thread>
constexpr fragment_place place_of(const Thread& t, int n, int e) {
  return {t.lane() / 4 + 8 * (e / 2), 8 * n + 2 * (t.lane() % 4) + e % 2};
}

/// Exponentials x times the weights of their keys; `key(place)` is the number of the key of an element.
template <int N, class Thread, class Key>
constexpr void weigh_keys(const Thread& t, const attention_operands& o, const attention_sample& s, const Key& key,
                          float (&x)[N][4]) {
  if (o.key_weights == nullptr) return;
  for (int n = 0; n < N; ++n) {
    for (int e = 0; e < 4; ++e) {
      const int j = key(place_of(t, n, e));
      if (j < s.keys) x[n][e] *= o.key_weights[s.key + j];
    }
  }
}

/// The weights of a product, rounded as its other operand is.
template <int N>
constexpr void round_fragments(float (&w)[N][4], arithmetic a) {
  for (int n = 0; n < N; ++n) {
    for (int e = 0; e < 4; ++e) w[n][e] = rounded(w[n][e], a);
  }
}

/// Block: a tile of queries, a head. A warp has 16 queries.
template <tile_product P, int D>
struct attention_kernel {
  static constexpr int threads = 128, groups = tile_columns / 8;
  static constexpr index shared_bytes = (tile_rows + 2 * tile_columns) * tile_ld<D> * sizeof(float);
  static constexpr bool cooperative = true;
  attention_operands o;

  /// The running softmax of the two queries of a lane.
  struct running {
    float top[2] = {-3e38f, -3e38f}, sum[2] = {0, 0}, out[D / 8][4] = {};
  };

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const attention_tile tile = o.tiles[t.block()];
    const attention_sample s = o.samples[tile.sample];
    const index h = t.block_y();
    float *qs = static_cast<float*>(t.shared()), *ks = qs + tile_rows * tile_ld<D>,
          *vs = ks + tile_columns * tile_ld<D>;
    const int rows = smaller(tile_rows, s.queries - tile.first), row = 16 * t.warp();
    o.template load<tile_rows, D, threads>(t, {tile_source{o.q.row(h, s.query + tile.first), o.q.ld, rows, qs}});
    running state;
    const int end = o.visible(s, tile.first + rows - 1);
    for (int key = 0; key < end; key += tile_columns) {
      t.sync();  // all are done with the tiles before
      o.template load<tile_columns, D, threads>(t, {of_keys(o.k, s, h, key, ks), of_keys(o.v, s, h, key, vs)});
      t.sync();
      if (row < rows) look(t, s, tile.first + row, key, qs + row * tile_ld<D>, ks, vs, state);
    }
    float factor[2] = {};
    for (int i = 0; i < 2; ++i) {
      state.sum[i] = reduce_lanes<4>(t, state.sum[i], fn::plus{});
      factor[i] = state.sum[i] > 0 ? 1.0f / state.sum[i] : 0.0f;
    }
    finish(t, s, h, tile.first + row, rows - row, state, factor);
    if (o.probabilities != nullptr) write_probabilities(t, s, h, tile.first, rows, qs, ks, state, factor);
  }

 private:
  static constexpr tile_source of_keys(const head_operand& m, const attention_sample& s, index h, int key, float* to) {
    return {m.row(h, s.key + key), m.ld, s.keys - key, to};
  }

  /// Scores of a warp's queries, from `query` on, with the keys of a tile, times `scale`.
  template <class Thread>
  constexpr void scores(const Thread& t, const float* qs, const float* ks, float (&x)[groups][4]) const {
    multiply_transposed<P, groups, D>(t, qs, ks, x);
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) x[n][e] *= o.scale;
    }
  }

  /// Takes the keys of a tile into the running softmax.
  template <class Thread>
  constexpr void look(const Thread& t, const attention_sample& s, int query, int key, const float* qs, const float* ks,
                      const float* vs, running& state) const {
    float x[groups][4] = {};
    scores(t, qs, ks, x);
    const int seen[2] = {o.visible(s, query + t.lane() / 4) - key, o.visible(s, query + t.lane() / 4 + 8) - key};
    float top[2] = {state.top[0], state.top[1]};
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) {
        if (place_of(t, n, e).column < seen[e / 2]) top[e / 2] = fn::maximum{}(top[e / 2], x[n][e]);
      }
    }
    for (int i = 0; i < 2; ++i) {
      top[i] = reduce_lanes<4>(t, top[i], fn::maximum{});
      const float shrink = fn::exp(state.top[i] - top[i]);
      state.top[i] = top[i];
      state.sum[i] *= shrink;
      for (int d = 0; d < D / 8; ++d) {
        state.out[d][2 * i] *= shrink;
        state.out[d][2 * i + 1] *= shrink;
      }
    }
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) {
        x[n][e] = place_of(t, n, e).column < seen[e / 2] ? fn::exp(x[n][e] - top[e / 2]) : 0.0f;
      }
    }
    weigh_keys(
        t, o, s, [&](const fragment_place& at) { return key + at.column; }, x);
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) state.sum[e / 2] += x[n][e];
    }
    round_fragments(x, o.rounding);
    multiply_weights<P, groups, D>(t, x, vs, state.out);
  }

  template <class Thread>
  constexpr void finish(const Thread& t, const attention_sample& s, index h, int query, int rows, const running& state,
                        const float (&factor)[2]) const {
    store_rows<D>(t, state.out, factor, o.out.row(h, s.query + query), o.out.ld, rows, o.width);
    if (o.log_sums == nullptr || t.lane() % 4 != 0) return;
    for (int i = 0; i < 2; ++i) {
      const int r = t.lane() / 4 + 8 * i;
      if (r >= rows) continue;
      o.log_sums[h * o.total_queries + s.query + query + r] =
          state.sum[i] > 0 ? state.top[i] + std::log(state.sum[i]) : no_log_sum;
    }
  }

  /// The scores once more, now that the sums are known.
  template <class Thread>
  constexpr void write_probabilities(const Thread& t, const attention_sample& s, index h, int first, int rows,
                                     const float* qs, float* ks, const running& state, const float (&factor)[2]) const {
    const int row = 16 * t.warp();
    for (int key = 0; key < s.keys; key += tile_columns) {
      t.sync();
      o.template load<tile_columns, D, threads>(t, {of_keys(o.k, s, h, key, ks)});
      t.sync();
      if (row >= rows) continue;
      float x[groups][4] = {};
      scores(t, qs + row * tile_ld<D>, ks, x);
      for (int n = 0; n < groups; ++n) {
        for (int e = 0; e < 4; ++e) x[n][e] = fn::exp(x[n][e] - state.top[e / 2]);
      }
      weigh_keys(
          t, o, s, [&](const fragment_place& at) { return key + at.column; }, x);
      for (int n = 0; n < groups; ++n) {
        for (int e = 0; e < 4; ++e) {
          const auto [r, c] = place_of(t, n, e);
          if (row + r >= rows || key + c >= s.keys) continue;
          const bool sees = key + c < o.visible(s, first + row + r);
          o.matrix_row(o.probabilities, s, h, first + row + r)[key + c] = sees ? x[n][e] * factor[e / 2] : 0.0f;
        }
      }
    }
  }
};

}  // namespace core_tokensets::cuda
