#pragma once
// The tensor backend on a CUDA device. `Device` is what talks to the driver (`cuda/device.hpp`), or what stands in for
// it in the tests, where the same kernels run on the host.

#include <memory>

#include "core_tokensets/tensor/cuda/attention_backward.hpp"
#include "core_tokensets/tensor/cuda/memory.hpp"
#include "core_tokensets/tensor/cuda/plan.hpp"
#include "core_tokensets/tensor/cuda/rows.hpp"
#include "core_tokensets/tensor/ops.hpp"

namespace core_tokensets {

/// Which device, and in which arithmetic matrices are multiplied (sums and everything stored are float32).
struct cuda_options {
  int device = 0;
  cuda::arithmetic arithmetic = cuda::arithmetic::tf32;
};

namespace cuda {

/// All that a backend and its copies share: one stream and what lives on it.
template <class Device>
struct device_state {
  explicit device_state(const cuda_options& o)
      : device(o.device), commands(device), stack(device_blocks<Device>{&device}), plans(device) {}
  Device device;
  queue<Device> commands;
  block_stack<device_blocks<Device>> stack;
  attention_plans<Device> plans;
};

}  // namespace cuda

/// Copies share a stream, so they see each other's work in order; one thread at a time may use them.
template <class Device>
class device_backend {
  using state = cuda::device_state<Device>;

 public:
  using scalar = float;
  static constexpr bool weighs_keys = true;
  using cview = view<const float>;

  explicit device_backend(const cuda_options& options = {})
      : options_(options), state_(std::make_shared<state>(options)) {}

  const cuda_options& options() const { return options_; }
  Device& device() { return state_->device; }
  cuda::queue<Device>& commands() { return state_->commands; }
  block_stack<cuda::device_blocks<Device>>& workspace() { return state_->stack; }

  /// Runs `body`, whose work on the device is captured and replayed as one graph where `key` and the work repeat.
  template <class Body>
  void repeat(index key, const Body& body) {
    commands().repeat(key, body);
  }
  /// Waits until all work given so far is done.
  void synchronise() { commands().synchronise(); }

  template <class U>
  cuda::device_buffer<state, U> allocate(index n) {
    return {state_, n};
  }
  template <class U>
  void upload(U* to, const U* from, index n) {
    commands().upload(to, from, n * static_cast<index>(sizeof(U)));
  }
  template <class U>
  void download(U* to, const U* from, index n) {
    commands().download(to, from, n * static_cast<index>(sizeof(U)));
  }
  void fill(view<float> out, float value) { map(cuda::set_value{value}, out); }

  void gemm(cview a, cview b, view<float> c, gemm_options o = {}) {
    host::check_gemm<float>(a, b, c, o.transpose_a, o.transpose_b);
    if (c.empty()) return;
    if ((o.transpose_a ? a.rows : a.cols) == 0) {  // nothing to add up
      o.beta == 0 ? fill(c, 0.0f) : map(fn::scale<float>{static_cast<float>(o.beta)}, c);
      return;
    }
    cuda::product p;
    p.a.transpose = o.transpose_a;
    p.b.transpose = o.transpose_b;
    p.alpha = static_cast<float>(o.alpha);
    p.beta = static_cast<float>(o.beta);
    multiply(a, b, c, p);
  }

  template <class F, class First, class... Rest>
  void map(const F& f, const view<First>& first, const view<Rest>&... rest) {
    (host::check_operand(first, rest, "map"), ...);
    if (first.empty()) return;
    [[maybe_unused]] const auto joins = [&](const auto& v) {
      return v.size() == 1 || (v.size() == first.size() && v.cols == first.cols && v.rows == first.rows && gapless(v));
    };
    if (gapless(first) && (joins(rest) && ...)) {
      map_rows(f, in_one_row(first), in_one_row(rest)...);
    } else {
      map_rows(f, first, rest...);
    }
  }

  template <class Op, class F, class First, class... Rest>
  void row_reduce(const Op& op, const F& term, view<float> out, const view<First>& first, const view<Rest>&... rest) {
    (host::check_operand(first, rest, "row_reduce"), ...);
    require(out.rows == first.rows && out.n0 == first.n0 && out.n1 == first.n1, "row_reduce: the result has ", out.rows,
            " rows, the operand ", first.rows);
    constexpr index longest = 1 << 14, most_pieces = 1024;
    const index cols = first.cols, length = std::max(longest, cuda::blocks_for(cols, most_pieces)),
                pieces = std::max<index>(1, cuda::blocks_for(cols, length));
    const cuda::row_shape shape(first);
    cuda::row_reduce_kernel<Op, F, 128, 1 + sizeof...(Rest)> k{
        op, term, {{first, first}, {rest, first}...}, shape, cols, length, pieces, {out, out}};
    if (pieces == 1) {
      run(k, shape.total, 128 * sizeof(float));
      return;
    }
    scratch<device_backend> partial(*this, shape.total, pieces);
    k.out.data = partial.data();
    run(k, shape.total * pieces, 128 * sizeof(float));
    const cview parts(partial.data(), first.n0, first.n1, first.rows, pieces, first.n1 * first.rows * pieces,
                      first.rows * pieces, pieces);
    row_reduce(op, fn::value{}, out, parts);
  }

  template <class Op, class F, class First, class... Rest>
  void col_reduce(const Op& op, const F& term, float beta, view<float> out, const view<First>& first,
                  const view<Rest>&... rest) {
    require(out.cols == first.cols && first.n0 * first.n1 == 1, "col_reduce: the result has ", out.cols,
            " columns, the operand ", first.cols);
    float* const results[1] = {out.data};
    reduce_columns(op, term, beta, results, first, rest...);
  }

  void gather_rows(view<float> out, cview in, const std::int32_t* rows) {
    const auto with = [&]<int Width>(std::integral_constant<int, Width>) {
      const index groups = out.cols / Width, items = out.rows * groups;
      run(cuda::gather_kernel<Width>{{out, out}, {in, out}, rows, out.rows, groups, small(items)},
          cuda::blocks_for(items, 256));
    };
    const bool quads = out.cols % 4 == 0 && quads_in(out) && quads_in(in);
    quads ? with(std::integral_constant<int, 4>()) : with(std::integral_constant<int, 1>());
  }

  void scatter_add_rows(view<float> out, cview in, const std::int32_t* rows) {
    if (in.rows == 0 || out.cols == 0) return;
    const scratch<device_backend, std::int32_t> marks(*this, 2, out.rows);
    run(cuda::clear_marks_kernel{marks.data(), 2 * out.rows}, cuda::blocks_for(2 * out.rows, 256));
    run(cuda::mark_rows_kernel{rows, marks.data(), in.rows, out.rows}, cuda::blocks_for(in.rows, 256));
    const index groups = cuda::blocks_for(out.cols, cuda::warp_size);
    run(cuda::scatter_add_kernel{{out, out}, {in, in}, rows, marks.data(), in.rows, out.rows, out.cols, groups},
        cuda::blocks_for(out.rows * groups, cuda::scatter_add_kernel::warps));
  }

  // ---- overrides ------------------------------------------------------------------------------------------------

  void softmax(view<float> x) {
    if (x.empty()) return;
    const cuda::row_shape shape(x);
    run(cuda::softmax_kernel{{x, x}, shape, x.cols}, shape.total, 128 * sizeof(float));
  }

  void layer_norm(cview x, cview gamma, cview beta, view<float> y, view<float> mean, view<float> rstd, float eps) {
    const auto with = [&]<int Width>(std::integral_constant<int, Width>) {
      using kernel = cuda::layer_norm_kernel<Width>;
      run(kernel{{x, x}, {y, y}, {mean, mean}, {rstd, rstd}, gamma.data, beta.data, x.rows, x.cols, eps},
          cuda::blocks_for(x.rows, kernel::warps));
    };
    const bool quads = x.cols % 4 == 0 && quads_in(x) && quads_in(y) && quads_in(gamma) && quads_in(beta);
    quads ? with(std::integral_constant<int, 4>()) : with(std::integral_constant<int, 1>());
  }

  void layer_norm_backward(cview x, cview gamma, cview mean, cview rstd, cview dy, view<float> dx, view<float> dgamma,
                           view<float> dbeta) {
    if (!dgamma.empty() && !dbeta.empty()) {
      float* const results[2] = {dgamma.data, dbeta.data};
      reduce_columns(fn::plus{}, cuda::layer_norm_weight_term{}, 1.0f, results, dy, x, mean, rstd);
    } else {
      if (!dgamma.empty()) col_reduce(fn::plus{}, fn::norm_scale_term{}, 1.0f, dgamma, dy, x, mean, rstd);
      if (!dbeta.empty()) col_reduce(fn::plus{}, fn::value{}, 1.0f, dbeta, dy);
    }
    const auto with = [&]<int Width>(std::integral_constant<int, Width>) {
      using kernel = cuda::layer_norm_backward_kernel<Width>;
      run(kernel{{x, x}, {dy, dy}, {dx, dx}, {mean, mean}, {rstd, rstd}, gamma.data, x.rows, x.cols},
          cuda::blocks_for(x.rows, kernel::warps));
    };
    const bool quads = x.cols % 4 == 0 && quads_in(x) && quads_in(dy) && quads_in(dx) && quads_in(gamma);
    quads ? with(std::integral_constant<int, 4>()) : with(std::integral_constant<int, 1>());
  }

  /// One product: bias and residual are added by it. GELU after it is a kernel of its own (`ops::linear_gelu`), since
  /// the library's fused one is the tanh approximation and not x Phi(x).
  void linear(cview x, cview weight, cview bias, cview residual, view<float> y) {
    host::check_gemm<float>(x, weight, y, false, true);
    if (y.empty()) return;
    cuda::product p;
    p.b.transpose = true;
    p.bias = bias.empty() ? nullptr : bias.data;
    if (!residual.empty()) {
      p.addend = residual.data;
      p.ld_addend = std::max(residual.ld, residual.cols);
      p.beta = 1;
    }
    multiply(x, weight, y, p);
  }

  void cross_entropy(cview logits, const cross_entropy_operands<float>& o, view<float> dlogits, view<float> losses) {
    run(cuda::cross_entropy_kernel{{logits, logits},
                                   {dlogits, dlogits},
                                   {losses, losses},
                                   o.targets,
                                   o.first_class,
                                   o.weights,
                                   o.label_smoothing,
                                   logits.rows,
                                   logits.cols},
        logits.rows, 128 * sizeof(double));
  }

  void attention(const attention_rows& rows, cview q, cview k, cview v, float scale, view<float> out,
                 float* probabilities, float* log_sums) {
    if (q.cols > widest_head) {
      ops::detail::attention(*this, rows, q, k, v, scale, out, probabilities);
      return;
    }
    const auto tables = state_->plans.find(commands(), rows);
    cuda::attention_operands o = operands(rows, q, k, v, scale, tables);
    o.out = cuda::head_operand(out);
    o.probabilities = probabilities;
    o.log_sums = log_sums;
    with_tiles(q.cols, [&]<cuda::tile_product P, int D>() {
      using kernel = cuda::attention_kernel<P, D>;
      o.tiles = tables.query_tiles;
      commands().run(kernel{o}, {tables.queries, q.n1, kernel::shared_bytes});
    });
  }

  void attention_backward(const attention_rows& rows, cview q, cview k, cview v, float scale,
                          const float* probabilities, cview dout, view<float> dq, view<float> dk, view<float> dv,
                          float* dprobabilities, const attention_result<float>& result) {
    require(probabilities != nullptr || result.log_sums != nullptr || rows.size(1) == 0,
            "attention_backward: neither probabilities nor the logarithms of their sums were kept");
    if (q.cols > widest_head) {
      wide_backward(rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities);
      return;
    }
    const index total = rows.queries().tokens();
    scratch<device_backend> inner(*this, q.n1, total);
    const auto tables = state_->plans.find(commands(), rows);
    cuda::attention_operands o = operands(rows, q, k, v, scale, tables);
    o.dout = cuda::head_operand(dout);
    o.quads = o.quads && quads_in(dout);
    o.probabilities = const_cast<float*>(probabilities);
    if (result.log_sums != nullptr) {
      o.log_sums = const_cast<float*>(result.log_sums);
      o.out = cuda::head_operand(result.out);
    }
    const cuda::attention_gradients g{cuda::head_operand(dq), cuda::head_operand(dk), cuda::head_operand(dv),
                                      dprobabilities, inner.data()};
    with_tiles(q.cols, [&]<cuda::tile_product P, int D>() {
      using of_queries = cuda::attention_query_kernel<P, D>;
      using of_keys = cuda::attention_key_kernel<P, D>;
      o.tiles = tables.query_tiles;
      commands().run(of_queries{o, g}, {tables.queries, q.n1, of_queries::shared_bytes});
      o.tiles = tables.key_tiles;
      commands().run(of_keys{o, g}, {tables.keys, q.n1, of_keys::shared_bytes});
    });
  }

 private:
  static constexpr index widest_head = 128;

  static bool small(index items) { return items < (index{1} << 31); }
  template <class T>
  static bool gapless(const view<T>& v) {
    return (v.rows == 1 || v.ld == v.cols) && (v.n1 == 1 || v.s1 == v.rows * v.cols) &&
           (v.n0 == 1 || v.s0 == v.n1 * v.rows * v.cols);
  }
  template <class T>
  static view<T> in_one_row(const view<T>& v) {
    return {v.data, 1, v.size()};
  }
  /// Every row starts on 16 bytes.
  template <class T>
  static bool quads_in(const view<T>& v) {
    return cuda::aligned(v.data) && (v.rows <= 1 || v.ld % 4 == 0) && (v.n0 == 1 || v.s0 % 4 == 0) &&
           (v.n1 == 1 || v.s1 % 4 == 0);
  }

  template <cuda::kernel K>
  void run(const K& k, index blocks, std::size_t shared_bytes = 0) {
    commands().run(k, {blocks, 1, static_cast<index>(shared_bytes)});
  }

  template <class F, class First, class... Rest>
  void map_rows(const F& f, const view<First>& first, const view<Rest>&... rest) {
    const auto with = [&]<int Width>(std::integral_constant<int, Width>) {
      const cuda::row_shape shape(first);
      const index groups = first.cols / Width, items = shape.total * groups;
      run(
          cuda::map_kernel<F, Width, 1 + sizeof...(Rest)>{
              f, {{first, first}, {rest, first}...}, shape, groups, small(items)},
          cuda::blocks_for(items, 256));
    };
    [[maybe_unused]] const auto quads = [&](const auto& v) { return (v.cols == 1 && first.cols != 1) || quads_in(v); };
    if (first.cols % 4 == 0 && quads(first) && (quads(rest) && ...)) {
      with(std::integral_constant<int, 4>());
    } else {
      with(std::integral_constant<int, 1>());
    }
  }

  template <int K, class Op, class F, class First, class... Rest>
  void reduce_columns(const Op& op, const F& term, float beta, float* const (&out)[K], const view<First>& first,
                      const view<Rest>&... rest) {
    (host::check_operand(first, rest, "col_reduce"), ...);
    if (first.cols == 0) return;
    constexpr index most_chunks = 64, shortest = 64;
    const index chunk = std::max(shortest, cuda::blocks_for(first.rows, most_chunks)),
                chunks = std::max<index>(1, cuda::blocks_for(first.rows, chunk));
    using kernel = cuda::col_reduce_kernel<Op, F, K, 1 + sizeof...(Rest)>;
    kernel k{op, term, {{first, first}, {rest, first}...}, first.rows, first.cols, chunk, beta, {}, nullptr};
    std::copy_n(out, K, k.out);
    scratch<device_backend> partial(*this, chunks > 1 ? chunks * K : 0, first.cols);
    if (chunks > 1) k.partial = partial.data();
    commands().run(k, {cuda::blocks_for(first.cols, kernel::width), chunks, kernel::threads * sizeof(float)});
    if (chunks == 1) return;
    using finish_kernel = cuda::col_finish_kernel<Op, K>;
    finish_kernel finish{op, partial.data(), first.cols, chunks, beta, {}};
    std::copy_n(out, K, finish.out);
    commands().run(finish,
                   {cuda::blocks_for(first.cols, finish_kernel::width), K, finish_kernel::threads * sizeof(float)});
  }

  /// c = alpha op(a) op(b) + ...: `p` says all but places and shapes. bfloat16 factors are made from the floats first.
  void multiply(cview a, cview b, view<float> c, cuda::product p) {
    p.how = options_.arithmetic;
    const auto give = [&](const cuda::product& one) { commands().multiply(one); };
    if (options_.arithmetic != cuda::arithmetic::bf16) {
      cuda::for_each_batch(p, cuda::matrices(a), cuda::matrices(b), cuda::matrices(c), sizeof(float), give);
      return;
    }
    p.narrow = true;
    const narrowed na(*this, a), nb(*this, b);
    cuda::for_each_batch(p, na.rounded, nb.rounded, cuda::matrices(c), sizeof(cuda::bfloat), give);
  }

  /// The matrices of a view rounded to bfloat16, in scratch memory.
  struct narrowed {
    index ld;
    scratch<device_backend, cuda::bfloat> memory;
    cuda::matrices rounded;

    narrowed(device_backend& b, const cview& v)
        : ld(cuda::blocks_for(v.cols, 8) * 8), memory(b, cuda::row_shape(v).total, ld), rounded(v) {
      const cuda::row_shape shape(v);
      const index groups = ld / 8, items = shape.total * groups;
      b.run(cuda::narrow_kernel{{v, v}, shape, v.cols, groups, quads_in(v), small(items), memory.data()},
            cuda::blocks_for(items, 256));
      rounded.data = memory.data();
      rounded.ld = ld;
      rounded.s1 = v.n1 == 1 ? 0 : v.rows * ld;
      rounded.s0 = v.n0 == 1 ? 0 : v.n1 * v.rows * ld;
    }
  };

  cuda::attention_operands operands(const attention_rows& rows, cview q, cview k, cview v, float scale,
                                    const cuda::attention_tables& tables) const {
    cuda::attention_operands o;
    o.samples = tables.samples;
    o.q = cuda::head_operand(q);
    o.k = cuda::head_operand(k);
    o.v = cuda::head_operand(v);
    o.heads = q.n1;
    o.total_queries = rows.queries().tokens();
    o.key_weights = rows.key_weights<float>();
    o.width = static_cast<int>(q.cols);
    o.scale = scale;
    o.causal = rows.causal();
    o.quads = q.cols % 4 == 0 && quads_in(q) && quads_in(k) && quads_in(v);
    o.rounding = options_.arithmetic;
    return o;
  }

  /// Calls `body.operator()<P, D>()` with the smallest tiles that hold a head of `width` columns.
  template <class Body>
  void with_tiles(index width, const Body& body) const {
    const auto with = [&]<cuda::tile_product P>() {
      width <= 32   ? body.template operator()<P, 32>()
      : width <= 64 ? body.template operator()<P, 64>()
                    : body.template operator()<P, 128>();
    };
    options_.arithmetic == cuda::arithmetic::f32 ? with.template operator()<cuda::tile_product::split>()
                                                 : with.template operator()<cuda::tile_product::rounded>();
  }

  /// Heads that no tile holds: the default, with probabilities computed again where none were kept.
  void wide_backward(const attention_rows& rows, cview q, cview k, cview v, float scale, const float* probabilities,
                     cview dout, view<float> dq, view<float> dk, view<float> dv, float* dprobabilities) {
    const bool again = probabilities == nullptr;
    scratch<device_backend> a(*this, 1, again ? rows.size(q.n1) : 0), out(*this, again ? q.rows : 0, q.n1 * q.cols);
    if (again) ops::detail::attention(*this, rows, q, k, v, scale, (*out).split_cols(q.n1), a.data());
    ops::detail::attention_backward(*this, rows, q, k, v, scale, again ? a.data() : probabilities, dout, dq, dk, dv,
                                    dprobabilities);
  }

  cuda_options options_;
  std::shared_ptr<state> state_;
};

}  // namespace core_tokensets
