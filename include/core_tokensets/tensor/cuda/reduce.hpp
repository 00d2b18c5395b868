#pragma once
// Sums and other folds over rows and over columns, and rows added at given places. Every order of summation depends on
// the shapes only: no result depends on which thread came first.

#include "core_tokensets/tensor/cuda/map.hpp"

namespace core_tokensets::cuda {

/// op over `value` of all threads of a block, pairwise; the same result for every thread. `memory`: one element a
/// thread.
template <int Threads, class T, class Op, class Thread>
constexpr T reduce_block(const Thread& t, T value, const Op& op, T* memory) {
  const int i = t.thread();
  t.sync();  // whoever read the memory before is done
  memory[i] = value;
  for (int width = Threads / 2; width > 0; width /= 2) {
    t.sync();
    if (i < width) memory[i] = op(memory[i], memory[i + width]);
  }
  t.sync();
  return memory[0];
}

/// op over `value` of the lanes of a warp that differ in the bits below `Lanes`; the same result for each of them.
template <int Lanes = warp_size, class Op, class Thread>
constexpr float reduce_lanes(const Thread& t, float value, const Op& op) {
  for (int mask = Lanes / 2; mask > 0; mask /= 2) value = op(value, t.shuffle_xor(value, mask));
  return value;
}

/// Piece by piece, out[row, piece] = op over the piece's columns of term(in...). Block: (row, piece).
template <class Op, class F, int Threads, std::size_t N>
struct row_reduce_kernel {
  static constexpr int threads = Threads;
  static constexpr bool cooperative = true;
  Op op;
  F term;
  operand in[N];
  row_shape shape;
  index cols, piece, pieces;
  operand out;  ///< of one column where there is one piece; else [row, piece] without gaps

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index row = t.block() / pieces, number = t.block() % pieces;
    const row_place at = shape.place(row);
    const index begin = number * piece, end = begin + piece < cols ? begin + piece : cols;
    const float total = reduce_block<Threads>(t, fold(at, begin + t.thread(), end, std::make_index_sequence<N>()), op,
                                              static_cast<float*>(t.shared()));
    if (t.thread() == 0) (pieces == 1 ? *out.row(at.i, at.j, at.r) : out.data[row * pieces + number]) = total;
  }

 private:
  template <std::size_t... I>
  constexpr float fold(const row_place& at, index from, index end, std::index_sequence<I...>) const {
    const float* rows[N] = {in[I].row(at.i, at.j, at.r)...};
    float sum = Op::template identity<float>();
    for (index c = from; c < end; c += Threads) sum = op(sum, float(term(rows[I][c * in[I].step]...)));
    return sum;
  }
};

/// Several sums that are formed side by side over the rows; a term gives the addends.
template <int K>
struct several {
  float x[K];
};

/// out[k][c] = beta out[k][c] op (over the rows of a chunk of term(in...)), or, where there are several chunks, the
/// partial results [chunk, k, c] that `col_finish_kernel` folds. Block: (32 columns, chunk), 8 rows at a time.
template <class Op, class F, int K, std::size_t N>
struct col_reduce_kernel {
  static constexpr int threads = 256, width = 32, height = threads / width;
  static constexpr bool cooperative = true;
  Op op;
  F term;
  operand in[N];
  index rows, cols, chunk;
  float beta;
  float* out[K];
  float* partial;  ///< null: one chunk

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const int x = t.thread() % width, y = t.thread() / width;
    const index c = t.block() * width + x;
    const index begin = t.block_y() * chunk, end = begin + chunk < rows ? begin + chunk : rows;
    several<K> sum{};
    for (int k = 0; k < K; ++k) sum.x[k] = Op::template identity<float>();
    if (c < cols) fold(c, begin + y, end, sum, std::make_index_sequence<N>());
    for (int k = 0; k < K; ++k) {
      float* memory = static_cast<float*>(t.shared());
      t.sync();
      memory[t.thread()] = sum.x[k];
      t.sync();
      if (y != 0 || c >= cols) continue;
      float total = memory[x];
      for (int i = 1; i < height; ++i) total = op(total, memory[i * width + x]);
      if (partial != nullptr) {
        partial[(t.block_y() * K + k) * cols + c] = total;
      } else {
        out[k][c] = beta == 0.0f ? total : op(beta * out[k][c], total);
      }
    }
  }

 private:
  template <std::size_t... I>
  constexpr void fold(index c, index from, index end, several<K>& sum, std::index_sequence<I...>) const {
    for (index r = from; r < end; r += height) {
      const auto value = term(in[I].row(0, 0, r)[c * in[I].step]...);
      if constexpr (K == 1) {
        sum.x[0] = op(sum.x[0], float(value));
      } else {
        for (int k = 0; k < K; ++k) sum.x[k] = op(sum.x[k], value.x[k]);
      }
    }
  }
};

/// out[k][c] = beta out[k][c] op (over the chunks of partial[chunk, k, c]). Block: (32 columns, k), 8 chunks at a time,
/// since a thread that reads one number after the other waits for each.
template <class Op, int K>
struct col_finish_kernel {
  static constexpr int threads = 256, width = 32, height = threads / width;
  static constexpr bool cooperative = true;
  Op op;
  const float* partial;
  index cols, chunks;
  float beta;
  float* out[K];

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const int x = t.thread() % width, y = t.thread() / width;
    const index k = t.block_y(), c = t.block() * width + x;
    float* memory = static_cast<float*>(t.shared());
    float total = Op::template identity<float>();
    if (c < cols) {
      for (index i = y; i < chunks; i += height) total = op(total, partial[(i * K + k) * cols + c]);
    }
    memory[t.thread()] = total;
    t.sync();
    if (y != 0 || c >= cols) return;
    for (int i = 1; i < height; ++i) total = op(total, memory[i * width + x]);
    out[k][c] = beta == 0.0f ? total : op(beta * out[k][c], total);
  }
};

/// p[i] = -1
struct clear_marks_kernel {
  static constexpr int threads = 256;
  static constexpr bool cooperative = false;
  std::int32_t* p;
  index n;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index i = t.block() * threads + t.thread();
    if (i < n) p[i] = -1;
  }
};

/// For every row of the result the last source row that goes there, and behind those, the first one (as count - 1 - i).
/// Maxima of integers: the order of the threads does not matter.
struct mark_rows_kernel {
  static constexpr int threads = 256;
  static constexpr bool cooperative = false;
  const std::int32_t* rows;
  std::int32_t* marks;
  index count, out_rows;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index i = t.block() * threads + t.thread();
    if (i >= count) return;
    t.atomic_max(marks + rows[i], static_cast<std::int32_t>(i));
    t.atomic_max(marks + out_rows + rows[i], static_cast<std::int32_t>(count - 1 - i));
  }
};

/// out[r] += in[i] for all i with rows[i] == r, in the order of i. A warp has a row of the result and 32 columns; it
/// looks through the sources between the first and the last that go there, 32 at a time.
struct scatter_add_kernel {
  static constexpr int threads = 128, warps = threads / warp_size;
  static constexpr bool cooperative = true;
  operand out, in;
  const std::int32_t *rows, *marks;
  index count, out_rows, cols, groups;  ///< groups of 32 columns

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index item = t.block() * warps + t.warp();
    if (item >= out_rows * groups) return;  // the whole warp
    const index r = item / groups, c = item % groups * warp_size + t.lane();
    const index last = marks[r], first = count - 1 - marks[out_rows + r];
    if (last < 0) return;
    float sum = c < cols ? out.row(0, 0, r)[c] : 0.0f;
    for (index i = first; i <= last; i += warp_size) {
      const bool mine = i + t.lane() <= last && rows[i + t.lane()] == r;
      for (std::uint32_t set = t.ballot(mine); set != 0; set &= set - 1) {
        if (c < cols) sum += in.row(0, 0, i + t.lowest(set))[c];
      }
    }
    if (c < cols) out.row(0, 0, r)[c] = sum;
  }
};

}  // namespace core_tokensets::cuda
