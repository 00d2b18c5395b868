// Other libraries' arrays as views: the same memory both ways, and a clear refusal of layouts that do not fit.

#include "core_tokensets/tensor/interop.hpp"

#include <numeric>

#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/ops.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace tensor_interop_tests {

namespace {

namespace cts = core_tokensets;
using cts::index;
using support::has;
using support::message_of;
using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The official structures, as dlpack.h declares them.
enum DLDeviceType : std::int32_t { kDLCPU = 1, kDLCUDA = 2 };
struct DLDevice {
  DLDeviceType device_type;
  std::int32_t device_id;
};
struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
static_assert(sizeof(DLTensor) == sizeof(cts::dlpack::tensor));
static_assert(offsetof(DLTensor, strides) == offsetof(cts::dlpack::tensor, strides));
static_assert(offsetof(DLManagedTensor, deleter) == offsetof(cts::dlpack::managed_tensor, deleter));

template <class M>
concept viewable = requires(M&& m) {
  cts::as_view(std::forward<M>(m));
};

}  // namespace

TEST_CASE("Eigen arrays go in and come out as the same memory", "[interop]") {
  row_major m = row_major::Random(4, 6);
  const auto v = cts::as_view(m);
  static_assert(std::is_same_v<decltype(v), const cts::view<float>>);
  CHECK(v.data == m.data());
  CHECK((v.rows == 4 && v.cols == 6 && v.ld == 6));
  v(2, 3) = 42;
  CHECK(m(2, 3) == 42);

  const row_major& fixed = m;
  static_assert(std::is_same_v<decltype(cts::as_view(fixed)), cts::view<const float>>);
  const auto inner = cts::as_view(m.block(1, 2, 2, 3));
  CHECK(inner.data == &m(1, 2));
  CHECK((inner.rows == 2 && inner.cols == 3 && inner.ld == 6));
  const Eigen::Map<row_major, 0, Eigen::OuterStride<>> strided(m.data(), 2, 3, Eigen::OuterStride<>(12));
  CHECK(cts::as_view(strided).ld == 12);

  Eigen::VectorXf column = Eigen::VectorXf::Ones(5);
  Eigen::RowVectorXf row = Eigen::RowVectorXf::Ones(5);
  CHECK((cts::as_view(column).rows == 5 && cts::as_view(column).cols == 1 && cts::as_view(column).ld == 1));
  CHECK((cts::as_view(row).rows == 1 && cts::as_view(row).cols == 5));
  CHECK(cts::as_view(m.col(2)).ld == 6);  // a column of a matrix: one number a row

  auto out = cts::as_eigen(v.slice_cols(1, 4));
  CHECK(out.data() == m.data() + 1);
  out(3, 0) = -7;
  CHECK(m(3, 1) == -7);
  static_assert(std::is_same_v<decltype(cts::as_eigen(cts::as_view(fixed)).data()), const float*>);
}

TEST_CASE("a backend computes on Eigen arrays in place", "[interop]") {
  row_major x = row_major::Random(5, 3), w = row_major::Random(4, 3), y = row_major::Zero(5, 4);
  cts::eigen_backend<float> b;
  cts::ops::linear<cts::eigen_backend<float>, float>(b, cts::as_view(x), cts::as_view(w), {}, {}, cts::as_view(y));
  CHECK((y - x * w.transpose()).norm() < 1e-5f * y.norm());
}

TEST_CASE("Eigen arrays whose rows are not contiguous are refused", "[interop]") {
  Eigen::MatrixXf column_major(4, 3);
  CHECK(has(message_of([&] { cts::as_view(column_major); }), "[4, 3] whose columns lie 4 apart"));
  row_major m(4, 6);
  const Eigen::Map<row_major, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> every_second(
      m.data(), 4, 3, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(6, 2));
  CHECK(has(message_of([&] { cts::as_view(every_second); }), "columns lie 2 apart"));
  CHECK(has(message_of([&] { cts::as_eigen(cts::view<float>(m.data(), 1, 2, 2, 3, 0, 12, 6)); }), "a batch of 2"));
  static_assert(viewable<row_major&> && !viewable<row_major>, "a view of a temporary would look at nothing");
}

TEST_CASE("spans and pointers are views", "[interop]") {
  std::vector<double> numbers(6, 1.0);
  const auto v = cts::as_view(std::span(numbers));
  CHECK((v.data == numbers.data() && v.rows == 1 && v.cols == 6));
  const cts::view<double> matrix(numbers.data(), 2, 2, 3);
  matrix(1, 1) = 5;
  CHECK(numbers[4] == 5);
}

TEST_CASE("DLPack tensors of this and of the official header become views", "[interop][dlpack]") {
  std::vector<float> numbers(60);
  std::iota(numbers.begin(), numbers.end(), 0.0f);
  std::int64_t shape[] = {2, 3, 4}, strides[] = {24, 8, 1};
  const auto check = [&]<class DL>(DL t) {
    t.data = numbers.data();
    t.device.device_type = static_cast<decltype(t.device.device_type)>(1);
    t.ndim = 3;
    t.dtype = {2, 32, 1};
    t.shape = shape;
    t.byte_offset = 2 * sizeof(float);
    t.strides = strides;
    const auto v = cts::dlpack::as_view<float>(t);
    CHECK(v.data == numbers.data() + 2);
    CHECK((v.n0 == 1 && v.n1 == 2 && v.rows == 3 && v.cols == 4 && v.s1 == 24 && v.ld == 8));
    CHECK(v.matrix(0, 1)(2, 3) == 2 + 24 + 16 + 3);
    t.strides = nullptr;
    const auto dense = cts::dlpack::as_view<const float>(t);
    CHECK((dense.s1 == 12 && dense.ld == 4));
  };
  check(cts::dlpack::tensor{});
  check(DLTensor{});
}

TEST_CASE("DLPack tensors that are something else are refused", "[interop][dlpack]") {
  std::vector<float> numbers(60);
  std::int64_t shape[] = {3, 4, 1, 1, 1}, strides[] = {4, 1, 1, 1, 1};
  cts::dlpack::tensor good{.data = numbers.data(), .ndim = 2, .dtype = {2, 32, 1}, .shape = shape, .strides = strides};
  const auto refusal = [&](auto change) {
    auto t = good;
    change(t);
    return message_of([&] { cts::dlpack::as_view<float>(t); });
  };
  CHECK(refusal([](auto&) {}).empty());
  CHECK(has(refusal([](auto& t) { t.device = {2, 1}; }), "on device 2:1, expected 1:0"));
  CHECK(has(refusal([](auto& t) { t.dtype = {2, 64, 1}; }), "64 bits"));
  CHECK(has(refusal([](auto& t) { t.dtype = {0, 32, 1}; }), "type code 0"));
  CHECK(has(refusal([](auto& t) { t.dtype = {2, 32, 4}; }), "4 lanes"));
  CHECK(has(refusal([](auto& t) { t.ndim = 5; }), "5 dimensions"));
  CHECK(has(refusal([](auto& t) { t.byte_offset = 3; }), "offset 3"));
  CHECK(has(refusal([](auto& t) { t.data = nullptr; }), "null pointer"));
  CHECK(has(refusal([&](auto&) { strides[1] = 2; }), "[3, 4] with strides [4, 2]; columns must lie side by side"));
  CHECK(has(refusal([&](auto&) { strides[1] = 1, strides[0] = 3; }), "rows that overlap"));
  CHECK(has(refusal([&](auto&) { strides[0] = -4; }), "runs backwards"));
  CHECK(has(refusal([&](auto&) { strides[0] = 4, shape[0] = -1; }), "negative extent"));
  shape[0] = 0;
  CHECK(refusal([](auto& t) { t.data = nullptr; }).empty());  // nothing at no address
  shape[0] = 3;
  const auto on_device = [&] {
    auto t = good;
    t.device = {2, 0};
    return cts::dlpack::as_view<float>(t, {2, 0});
  }();
  CHECK(on_device.data == numbers.data());  // addresses of a device are passed on, not followed
}

TEST_CASE("views are lent and tensors given away through DLPack", "[interop][dlpack]") {
  std::vector<float> numbers(24);
  cts::dlpack::lent<float> lent(cts::view<float>(numbers.data(), 2, 3, 4));
  const auto theirs = lent.get<DLTensor>();
  CHECK((theirs.data == numbers.data() && theirs.ndim == 2 && theirs.shape[0] == 2 && theirs.shape[1] == 3));
  CHECK(
      (theirs.strides[0] == 4 && theirs.strides[1] == 1 && theirs.dtype.bits == 32 && theirs.device.device_type == 1));
  const auto back = cts::dlpack::as_view<float>(lent.get());
  back(1, 2) = 9;
  CHECK(numbers[6] == 9);
  const cts::view<float> batch(numbers.data(), 1, 2, 3, 4, 0, 12, 4);
  cts::dlpack::lent<float> of_batch(batch);
  CHECK((of_batch.get().ndim == 4 && cts::dlpack::as_view<float>(of_batch.get()).s1 == 12));

  using B = cts::eigen_backend<float>;
  B b;
  cts::tensor<B> x(b, 2, 3);
  b.fill(*x, 1.5f);
  const float* memory = x.data();
  auto* given = cts::dlpack::give<DLManagedTensor>(std::move(x));
  CHECK((given->dl_tensor.data == memory && given->dl_tensor.shape[1] == 3));
  const cts::dlpack::taken<float, DLManagedTensor> taken(given);  // calls the deleter in the end
  CHECK((*taken)(1, 2) == 1.5f);
}

TEST_CASE("what is taken through DLPack is released once, and not where it was refused", "[interop][dlpack]") {
  static int released = 0;
  released = 0;
  std::vector<double> numbers(4);
  std::int64_t shape[] = {4};
  cts::dlpack::managed_tensor theirs{
      .dl_tensor = {.data = numbers.data(), .ndim = 1, .dtype = {2, 64, 1}, .shape = shape},
      .manager_ctx = nullptr,
      .deleter = [](cts::dlpack::managed_tensor*) { ++released; }};
  CHECK_THROWS_AS(cts::dlpack::taken<float>(&theirs), cts::Error);
  CHECK(released == 0);
  {
    cts::dlpack::taken<double> first(&theirs);
    const auto second = std::move(first);
    (*second)(0, 3) = 2;
    CHECK(released == 0);
  }
  CHECK(released == 1);
  CHECK(numbers[3] == 2);
}

}  // namespace tensor_interop_tests
