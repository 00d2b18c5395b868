// xtensor's arrays as views and views as xtensor's arrays, without a copy.

#if __has_include(<xtensor/views/xview.hpp>)
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xtensor.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#endif

#include "core_tokensets/tensor/ops.hpp"
#include "core_tokensets/tensor/xtensor.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"

namespace tensor_interop_xtensor_tests {

namespace cts = core_tokensets;

TEST_CASE("xtensor arrays, adaptors and views go in as the same memory", "[interop][xtensor]") {
  xt::xarray<float> dynamic = xt::zeros<float>({3, 4});
  const auto v = cts::as_view(dynamic);
  CHECK((v.data == dynamic.data() && v.rows == 3 && v.cols == 4 && v.ld == 4));
  v(2, 1) = 8;
  CHECK(dynamic(2, 1) == 8);

  xt::xtensor<double, 4> batch = xt::zeros<double>({2, 3, 4, 5});
  const auto b = cts::as_view(batch);
  CHECK((b.n0 == 2 && b.n1 == 3 && b.rows == 4 && b.cols == 5 && b.s0 == 60 && b.s1 == 20 && b.ld == 5));
  const xt::xtensor<double, 4>& fixed = batch;
  static_assert(std::is_same_v<decltype(cts::as_view(fixed)), cts::view<const double>>);

  std::vector<float> memory(24, 1.0f);
  auto adapted = xt::adapt(memory, std::vector<std::size_t>{4, 6});
  CHECK(cts::as_view(adapted).data == memory.data());
  auto part = xt::view(adapted, xt::range(1, 3), xt::range(2, 5));
  const auto of_part = cts::as_view(part);
  CHECK((of_part.data == memory.data() + 8 && of_part.rows == 2 && of_part.cols == 3 && of_part.ld == 6));
  of_part(1, 2) = 3;
  CHECK(memory[16] == 3);

  xt::xarray<float> column = xt::zeros<float>({5, 1}), row = xt::zeros<float>({7});  // xtensor's strides are 0 there
  CHECK((cts::as_view(column).rows == 5 && cts::as_view(column).cols == 1 && cts::as_view(column).ld == 1));
  CHECK((cts::as_view(row).rows == 1 && cts::as_view(row).cols == 7));
}

TEST_CASE("xtensor layouts that do not fit are refused", "[interop][xtensor]") {
  xt::xarray<float, xt::layout_type::column_major> columns = xt::zeros<float>({3, 4});
  CHECK_THROWS_WITH(cts::as_view(columns),
                    "as_view: an array [3, 4] with strides [1, 3]; columns must lie side by side "
                    "(row-major, stride 1)");
  xt::xarray<float> five = xt::zeros<float>({1, 1, 1, 1, 2});
  CHECK_THROWS_AS(cts::as_view(five), cts::Error);
  xt::xarray<float> m = xt::zeros<float>({4, 6});
  auto second = xt::view(m, xt::all(), xt::range(0, 6, 2));
  CHECK_THROWS_AS(cts::as_view(second), cts::Error);
}

TEST_CASE("views come out as xtensor expressions on the same memory", "[interop][xtensor]") {
  std::vector<double> memory(12, 2.0);
  const cts::view<double> v(memory.data(), 3, 2, 4);  // rows 4 apart
  auto x = cts::as_xtensor(v);
  CHECK((x.shape()[0] == 3 && x.shape()[1] == 2));
  x(1, 1) = 5;
  CHECK(memory[5] == 5);
  CHECK(cts::as_view(x).data == memory.data());
  CHECK(cts::as_view(x).ld == 4);
  x *= 3.0;
  CHECK((memory[0] == 6 && memory[5] == 15 && memory[2] == 2));  // the gap is left alone
  const cts::view<const double> fixed = v;
  const auto y = cts::as_xtensor(fixed);
  CHECK(y(1, 1) == 15);
  CHECK_THROWS_AS(cts::as_xtensor(cts::view<double>(memory.data(), 1, 2, 2, 2, 0, 6, 2)), cts::Error);
}

TEST_CASE("the xtensor backend computes on xtensor arrays in place", "[interop][xtensor]") {
  using B = cts::xtensor_backend<float>;
  B b;
  xt::xarray<float> x{{1, 2, 3}, {4, 5, 6}}, w{{1, 0, -1}, {2, 1, 0}, {0, 0, 1}, {1, 1, 1}}, bias{10, 20, 30, 40};
  xt::xtensor<float, 2> y = xt::zeros<float>({2, 4});
  cts::ops::linear<B, float>(b, cts::as_view(x), cts::as_view(w), cts::as_view(bias), {}, cts::as_view(y));
  const xt::xtensor<float, 2> want{{8, 24, 33, 46}, {8, 33, 36, 55}};
  const bool same = y == want;  // outside of CHECK, whose operators xtensor's would join
  CHECK(same);
  cts::ops::softmax<B, float>(b, cts::as_view(y));
  CHECK(std::abs(double(xt::sum(y)()) - 2) <= rounding<B>(8));
}

}  // namespace tensor_interop_xtensor_tests
