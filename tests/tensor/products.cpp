// What one thread multiplies: every product against its definition, in all forms and at the edges of tiles and panels.

#include <cmath>
#include <limits>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/tensor/packed_product.hpp"
#include "support/catch.hpp"

namespace tensor_products_tests {

namespace cts = core_tokensets;
using cts::index;

namespace {

/// A matrix in the middle of other numbers, which must stay.
template <class T>
struct framed {
  index rows, cols, ld;
  std::vector<T> all;

  framed(index r, index c, index more) : rows(r), cols(c), ld(c + more), all(static_cast<std::size_t>((r + 2) * ld)) {
    cts::random_stream random(static_cast<std::uint64_t>(r * 1000 + c));
    for (T& x : all) x = static_cast<T>(random.normal());
  }
  cts::view<T> view() { return {all.data() + ld, rows, cols, ld}; }
  cts::view<const T> in() const { return {all.data() + ld, rows, cols, ld}; }
};

template <class T>
framed<T> factor(index rows, index cols, bool turned) {
  return turned ? framed<T>(cols, rows, 3) : framed<T>(rows, cols, 5);
}

/// Products of many shapes, compared with the sums in double.
template <class T, cts::thread_product<T> Product>
void check_product() {
  const index sizes[][3] = {{1, 1, 1},    {1, 40, 7},   {8, 16, 4},    {6, 16, 256},  {16, 32, 257}, {7, 15, 255},
                            {9, 33, 513}, {13, 70, 20}, {65, 65, 64},  {100, 49, 31}, {256, 48, 48}, {300, 32, 5},
                            {40, 1, 9},   {3, 192, 64}, {64, 17, 300}, {24, 48, 0},   {0, 5, 5},     {9, 9000, 5}};
  cts::block_stack<> memory;
  for (const auto& [m, n, k] : sizes) {
    for (int form = 0; form < 4; ++form) {
      const bool ta = (form & 1) != 0, tb = (form & 2) != 0;
      const auto a = factor<T>(m, k, ta), b = factor<T>(k, n, tb);
      const T alpha = form == 1 ? T(0.5) : T(1);
      framed<T> c(m, n, 4);
      const framed<T> other(m, n, 2), row(1, n, 0), before = c;
      // What is added: nothing, c itself, another matrix, a row.
      const cts::view<const T> start = form == 0   ? cts::view<const T>()
                                       : form == 1 ? c.in()
                                       : form == 2 ? other.in()
                                                   : row.in();
      if (form != 1 && m > 0) c.view()(0, 0) = std::numeric_limits<T>::quiet_NaN();  // it is not read
      Product::multiply(memory, ta, tb, alpha, a.in(), b.in(), start, c.view());
      INFO(m << " x " << n << " x " << k << ", form " << form);
      double worst = 0;
      std::size_t strangers = 0;
      for (index r = -1; r <= m; ++r) {
        for (index j = 0; j < c.ld; ++j) {
          const auto at = static_cast<std::size_t>((r + 1) * c.ld + j);
          if (r < 0 || r == m || j >= n) {
            strangers += c.all[at] != before.all[at];
            continue;
          }
          double sum = 0;
          for (index i = 0; i < k; ++i)
            sum += double(ta ? a.in()(i, r) : a.in()(r, i)) * double(tb ? b.in()(j, i) : b.in()(i, j));
          const double first = form == 0   ? 0
                               : form == 1 ? double(before.all[at])
                                           : double(start(start.rows == 1 ? 0 : r, j));
          const double want = double(alpha) * sum + first;
          worst = std::max(worst, std::isfinite(double(c.all[at])) ? std::abs(double(c.all[at]) - want) : 1e9);
        }
      }
      CHECK(strangers == 0);
      CHECK(worst <= double(std::numeric_limits<T>::epsilon()) * 8 * (1 + double(k)));
    }
  }
}

}  // namespace

TEST_CASE("a product is what it is defined as, whatever computes it", "[product]") {
  check_product<float, cts::eigen_product>();
  check_product<double, cts::eigen_product>();
  check_product<float, cts::packed_product>();
  check_product<double, cts::packed_product>();
}

#if defined(__x86_64__) && defined(__GNUC__)

namespace {

template <class Processor>
struct packed_for {
  static void multiply(cts::block_stack<>& memory, bool ta, bool tb, float alpha, const cts::view<const float>& a,
                       const cts::view<const float>& b, const cts::view<const float>& start,
                       const cts::view<float>& c) {
    cts::packed::wide_product<Processor>(memory, ta, tb, alpha, a, b, start, c);
  }
};

}  // namespace

TEST_CASE("packed products of both kinds of processors, and their bits", "[product]") {
  using cts::packed::avx2, cts::packed::avx512;
  if (!avx2::here()) {
    WARN("this processor has no AVX2: packed products are not tested");
    return;
  }
  check_product<float, packed_for<avx2>>();
  if (!avx512::here()) {
    WARN("this processor has no AVX-512: its products are not tested");
    return;
  }
  check_product<float, packed_for<avx512>>();
  cts::block_stack<> memory;
  for (const index k : {1, 31, 256, 700}) {
    const auto a = factor<float>(70, k, false), b = factor<float>(k, 90, true);
    framed<float> narrow(70, 90, 2);
    framed<float> wide = narrow;
    packed_for<avx2>::multiply(memory, false, true, 0.7f, a.in(), b.in(), narrow.in(), narrow.view());
    packed_for<avx512>::multiply(memory, false, true, 0.7f, a.in(), b.in(), wide.in(), wide.view());
    CHECK(narrow.all == wide.all);
  }
}

TEST_CASE("a row of a packed product does not depend on the other rows", "[product]") {
  if (!cts::packed::avx2::here()) return;
  cts::block_stack<> memory;
  const auto a = factor<float>(67, 300, false), b = factor<float>(300, 50, true);
  framed<float> all(67, 50, 0), some(19, 50, 0);
  packed_for<cts::packed::avx2>::multiply(memory, false, true, 1, a.in(), b.in(), {}, all.view());
  packed_for<cts::packed::avx2>::multiply(memory, false, true, 1, a.in().slice_rows(31, 19), b.in(), {}, some.view());
  for (index r = 0; r < 19; ++r) {
    for (index j = 0; j < 50; ++j) CHECK(some.view()(r, j) == all.view()(31 + r, j));
  }
}

TEST_CASE("products that would mostly be padding are not packed", "[product]") {
  CHECK(cts::packed::fills_tiles(256, 192));
  CHECK(cts::packed::fills_tiles(8, 16));
  CHECK(cts::packed::fills_tiles(65, 65));
  CHECK_FALSE(cts::packed::fills_tiles(1, 192));
  CHECK_FALSE(cts::packed::fills_tiles(192, 4));
  CHECK_FALSE(cts::packed::fills_tiles(17, 17));
}

#endif

}  // namespace tensor_products_tests
