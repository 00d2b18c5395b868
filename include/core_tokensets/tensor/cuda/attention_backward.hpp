#pragma once
// Attention backwards, without atomic additions: one kernel owns the queries (dq), one the keys (dk and dv). Each
// computes the probabilities again from q, k and the logarithms of the sums, or reads them where they were kept.

#include "core_tokensets/tensor/cuda/attention.hpp"

namespace core_tokensets::cuda {

/// What the backward kernels take besides.
struct attention_gradients {
  head_operand dq, dk, dv;
  float* dprobabilities = nullptr;  ///< may be null
  float* inner = nullptr;           ///< [H, Tq] sum over the keys of probability times its gradient
};

/// Probabilities of a fragment of scores x: w exp(scale x - log sum), or as they were kept; 0 where nothing is seen.
template <int N, class Thread, class Query, class Key, class LogSum>
constexpr void probabilities_of(const Thread& t, const attention_operands& o, const attention_sample& s, index h,
                                const Query& query, const Key& key, const LogSum& log_sum, float (&x)[N][4]) {
  for (int n = 0; n < N; ++n) {
    for (int e = 0; e < 4; ++e) {
      const fragment_place at = place_of(t, n, e);
      const int i = query(at), j = key(at);
      if (i >= s.queries || j >= o.visible(s, i)) {
        x[n][e] = 0.0f;
      } else if (o.probabilities != nullptr) {
        x[n][e] = o.matrix_row(o.probabilities, s, h, i)[j];
      } else {
        x[n][e] = fn::exp(x[n][e] * o.scale - log_sum(at, e));
      }
    }
  }
  if (o.probabilities == nullptr) weigh_keys(t, o, s, key, x);
}

/// dq (=), `inner`, and the gradient at the probabilities. Block: a tile of queries, a head.
template <tile_product P, int D>
struct attention_query_kernel {
  static constexpr int threads = 128, groups = tile_columns / 8;
  static constexpr index shared_bytes = (2 * tile_rows + 2 * tile_columns) * tile_ld<D> * sizeof(float);
  static constexpr bool cooperative = true;
  attention_operands o;
  attention_gradients g;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const attention_tile tile = o.tiles[t.block()];
    const attention_sample s = o.samples[tile.sample];
    const index h = t.block_y();
    const int rows = smaller(tile_rows, s.queries - tile.first), row = 16 * t.warp();
    tiles m{static_cast<float*>(t.shared())};
    o.template load<tile_rows, D, threads>(t,
                                           {tile_source{o.q.row(h, s.query + tile.first), o.q.ld, rows, m.q},
                                            tile_source{o.dout.row(h, s.query + tile.first), o.dout.ld, rows, m.dout}});
    float inner[2] = {}, log_sums[2] = {};
    if (o.log_sums != nullptr) {
      product_with_out(t, s, h, tile.first + row, rows - row, inner);
    } else {
      for (int key = 0; key < s.keys; key += tile_columns) add_inner(t, s, h, tile.first, rows, key, m, inner);
    }
    for (int i = 0; i < 2; ++i) {
      inner[i] = reduce_lanes<4>(t, inner[i], fn::plus{});
      const int r = row + t.lane() / 4 + 8 * i;
      if (r >= rows) continue;
      const index at = h * o.total_queries + s.query + tile.first + r;
      log_sums[i] = o.log_sums != nullptr ? o.log_sums[at] : 0.0f;
      if (t.lane() % 4 == 0) g.inner[at] = inner[i];
    }
    float dq[D / 8][4] = {};
    const int end = g.dprobabilities != nullptr ? int(s.keys) : o.visible(s, tile.first + rows - 1);
    for (int key = 0; key < end; key += tile_columns) {
      float x[groups][4] = {}, dx[groups][4] = {};
      if (!look(t, s, h, tile.first, rows, key, m, log_sums, x, dx)) continue;
      write_gradient(t, s, h, tile.first + row, rows - row, key, dx);
      for (int n = 0; n < groups; ++n) {
        for (int e = 0; e < 4; ++e) x[n][e] *= (dx[n][e] - inner[e / 2]) * o.scale;
      }
      round_fragments(x, o.rounding);
      multiply_weights<P, groups, D>(t, x, m.k, dq);
    }
    const float one[2] = {1.0f, 1.0f};
    store_rows<D>(t, dq, one, g.dq.row(h, s.query + tile.first + row), g.dq.ld, rows - row, o.width);
  }

 private:
  struct tiles {
    float *q, *dout, *k, *v;
    explicit constexpr tiles(float* p)
        : q(p), dout(q + tile_rows * tile_ld<D>), k(dout + tile_rows * tile_ld<D>), v(k + tile_columns * tile_ld<D>) {}
  };

  /// Probabilities x and their gradients dx for the keys of a tile; false for a warp without queries.
  template <class Thread>
  constexpr bool look(const Thread& t, const attention_sample& s, index h, int first, int rows, int key, const tiles& m,
                      const float (&log_sums)[2], float (&x)[groups][4], float (&dx)[groups][4]) const {
    t.sync();  // all are done with the tiles before
    o.template load<tile_columns, D, threads>(t, {tile_source{o.k.row(h, s.key + key), o.k.ld, s.keys - key, m.k},
                                                  tile_source{o.v.row(h, s.key + key), o.v.ld, s.keys - key, m.v}});
    t.sync();
    const int row = 16 * t.warp();
    if (row >= rows) return false;
    if (o.probabilities == nullptr) multiply_transposed<P, groups, D>(t, m.q + row * tile_ld<D>, m.k, x);
    probabilities_of(
        t, o, s, h, [&](const fragment_place& at) { return first + row + at.row; },
        [&](const fragment_place& at) { return key + at.column; },
        [&](const fragment_place&, int e) { return log_sums[e / 2]; }, x);
    multiply_transposed<P, groups, D>(t, m.dout + row * tile_ld<D>, m.v, dx);
    return true;
  }

  /// inner += probability times its gradient, for the keys of a tile.
  template <class Thread>
  constexpr void add_inner(const Thread& t, const attention_sample& s, index h, int first, int rows, int key,
                           const tiles& m, float (&inner)[2]) const {
    const float none[2] = {};
    float x[groups][4] = {}, dx[groups][4] = {};
    if (!look(t, s, h, first, rows, key, m, none, x, dx)) return;
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) inner[e / 2] += x[n][e] * dx[n][e];
    }
  }

  /// The same sum from the result: out dout, a quarter of the columns for each lane of a query.
  template <class Thread>
  constexpr void product_with_out(const Thread& t, const attention_sample& s, index h, int query, int rows,
                                  float (&inner)[2]) const {
    for (int i = 0; i < 2; ++i) {
      const int r = t.lane() / 4 + 8 * i;
      if (r >= rows) continue;
      const float *out = o.out.row(h, s.query + query + r), *dout = o.dout.row(h, s.query + query + r);
      for (int c = t.lane() % 4; c < o.width; c += 4) inner[i] += out[c] * dout[c];
    }
  }

  template <class Thread>
  constexpr void write_gradient(const Thread& t, const attention_sample& s, index h, int query, int rows, int key,
                                const float (&dx)[groups][4]) const {
    if (g.dprobabilities == nullptr) return;
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) {
        const auto [r, c] = place_of(t, n, e);
        if (r < rows && key + c < s.keys) o.matrix_row(g.dprobabilities, s, h, query + r)[key + c] = dx[n][e];
      }
    }
  }
};

/// dk, dv (=) from `inner`. Block: a tile of keys, a head. The matrices are those of the queries transposed.
template <tile_product P, int D>
struct attention_key_kernel {
  static constexpr int threads = 128, groups = tile_columns / 8;
  static constexpr index shared_bytes =
      ((2 * tile_rows + 2 * tile_columns) * tile_ld<D> + 2 * tile_columns) * sizeof(float);
  static constexpr bool cooperative = true;
  attention_operands o;
  attention_gradients g;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const attention_tile tile = o.tiles[t.block()];
    const attention_sample s = o.samples[tile.sample];
    const index h = t.block_y();
    const int rows = smaller(tile_rows, s.keys - tile.first), row = 16 * t.warp();
    tiles m{static_cast<float*>(t.shared())};
    o.template load<tile_rows, D, threads>(t, {tile_source{o.k.row(h, s.key + tile.first), o.k.ld, rows, m.k},
                                               tile_source{o.v.row(h, s.key + tile.first), o.v.ld, rows, m.v}});
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int query = 0; query < s.queries; query += tile_columns) {
      const int last = smaller(query + tile_columns, s.queries) - 1;
      if (o.visible(s, last) <= tile.first) continue;  // none of these queries sees these keys
      t.sync();                                        // all are done with the tiles before
      load(t, s, h, query, m);
      t.sync();
      if (row < rows) add(t, s, h, tile.first + row, row, query, m, dk, dv);
    }
    const float one[2] = {1.0f, 1.0f};
    store_rows<D>(t, dk, one, g.dk.row(h, s.key + tile.first + row), g.dk.ld, rows - row, o.width);
    store_rows<D>(t, dv, one, g.dv.row(h, s.key + tile.first + row), g.dv.ld, rows - row, o.width);
  }

 private:
  struct tiles {
    float *k, *v, *q, *dout, *log_sums, *inner;
    explicit constexpr tiles(float* p)
        : k(p),
          v(k + tile_rows * tile_ld<D>),
          q(v + tile_rows * tile_ld<D>),
          dout(q + tile_columns * tile_ld<D>),
          log_sums(dout + tile_columns * tile_ld<D>),
          inner(log_sums + tile_columns) {}
  };

  template <class Thread>
  constexpr void load(const Thread& t, const attention_sample& s, index h, int query, const tiles& m) const {
    const int rows = s.queries - query;
    o.template load<tile_columns, D, threads>(t,
                                              {tile_source{o.q.row(h, s.query + query), o.q.ld, rows, m.q},
                                               tile_source{o.dout.row(h, s.query + query), o.dout.ld, rows, m.dout}});
    if (t.thread() < tile_columns) {
      const index at = h * o.total_queries + s.query + query + t.thread();
      const bool there = t.thread() < rows;
      m.log_sums[t.thread()] = there && o.log_sums != nullptr ? o.log_sums[at] : 0.0f;
      m.inner[t.thread()] = there ? g.inner[at] : 0.0f;
    }
  }

  /// Adds what the queries of a tile give to 16 keys: dv += A^T dout, dk += dS^T q with dS = A (dA - inner) scale.
  template <class Thread>
  constexpr void add(const Thread& t, const attention_sample& s, index h, int key, int row, int query, const tiles& m,
                     float (&dk)[D / 8][4], float (&dv)[D / 8][4]) const {
    float x[groups][4] = {}, dx[groups][4] = {}, w[groups][4] = {};
    if (o.probabilities == nullptr) multiply_transposed<P, groups, D>(t, m.k + row * tile_ld<D>, m.q, x);
    probabilities_of(
        t, o, s, h, [&](const fragment_place& at) { return query + at.column; },
        [&](const fragment_place& at) { return key + at.row; },
        [&](const fragment_place& at, int) { return m.log_sums[at.column]; }, x);
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) w[n][e] = rounded(x[n][e], o.rounding);
    }
    multiply_weights<P, groups, D>(t, w, m.dout, dv);
    multiply_transposed<P, groups, D>(t, m.v + row * tile_ld<D>, m.dout, dx);
    for (int n = 0; n < groups; ++n) {
      for (int e = 0; e < 4; ++e) {
        w[n][e] = rounded(x[n][e] * (dx[n][e] - m.inner[place_of(t, n, e).column]) * o.scale, o.rounding);
      }
    }
    multiply_weights<P, groups, D>(t, w, m.q, dk);
  }
};

}  // namespace core_tokensets::cuda
