// Matrix products of the shapes of Vision Transformers by everything that can compute them, as a share of what the
// processor can multiply and add at most; one JSON line each.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/tensor.hpp"
#include "machine.hpp"
#ifdef CTS_HAS_CBLAS
#include "core_tokensets/tensor/cblas_product.hpp"
#endif

namespace cts = core_tokensets;

namespace {

struct shape {
  cts::index rows, cols, depth;
  bool ta, tb;
  const char* what;
};

const shape shapes[] = {
    {4096, 576, 192, false, true, "queries, keys and values, width 192"},
    {4096, 768, 192, false, true, "first layer of the MLP, width 192"},
    {4096, 192, 768, false, true, "second layer of the MLP, width 192"},
    {4096, 192, 768, false, false, "gradient of an input, width 192"},
    {768, 192, 4096, true, false, "gradient of weights, width 192"},
    {3152, 1152, 384, false, true, "queries, keys and values, width 384"},
    {12608, 2304, 768, false, true, "queries, keys and values, width 768"},
    {12608, 768, 3072, false, true, "second layer of the MLP, width 768"},
    {197, 197, 64, false, true, "scores of a head"},
    {197, 64, 197, false, false, "output of a head"},
};

template <class Product>
void measure(const shape& s, const char* name, int threads, const bench::machine& most) {
  using backend = cts::eigen_backend<float, Product>;
  backend b(threads);
  const auto noise = [&](cts::index rows, cts::index cols) {
    cts::random_stream random(static_cast<std::uint64_t>(rows));
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (float& x : values) x = static_cast<float>(random.normal());
    cts::tensor<backend> m;
    m.assign(b, rows, cols, values.data());
    return m;
  };
  const auto a = s.ta ? noise(s.depth, s.rows) : noise(s.rows, s.depth);
  const auto x = s.tb ? noise(s.cols, s.depth) : noise(s.depth, s.cols);
  cts::tensor<backend> c(b, s.rows, s.cols);
  const double flops = 2.0 * static_cast<double>(s.rows) * static_cast<double>(s.cols) * static_cast<double>(s.depth);
  const int times = static_cast<int>(std::clamp(4e11 / flops, 15.0, 2000.0));
  const double seconds =
      bench::least_seconds(times, [&] { b.gemm(*a, *x, *c, {.transpose_a = s.ta, .transpose_b = s.tb}); });
  std::printf(
      "{\"shape\": \"%td x %td x %td\", \"what\": \"%s\", \"product\": \"%s\", \"gflops\": %.0f, \"of_the_most\": "
      "%.2f}\n",
      s.rows, s.cols, s.depth, s.what, name, flops / seconds / 1e9, flops / seconds / 1e9 / most.gflops);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  int threads = 0;
  CLI::App app{"matrix products by everything that can compute them"};
  app.add_option("--threads", threads, "0: as many as there are");
  CLI11_PARSE(app, argc, argv);
  threads = threads > 0 ? threads : cts::default_threads();
  const bench::machine most = bench::measure_machine(threads);
  bench::print(most, threads);
  for (const shape& s : shapes) {
    measure<cts::packed_product>(s, "packed", threads, most);
    measure<cts::eigen_product>(s, "eigen", threads, most);
#ifdef CTS_HAS_CBLAS
    measure<cts::cblas_product>(s, "blas", threads, most);
#endif
  }
}
