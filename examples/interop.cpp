// A backend computes on arrays of other libraries in place: Eigen matrices in, a DLPack tensor out, nothing copied.

#include "core_tokensets/tensor/interop.hpp"

#include <cstdio>

#include "core_tokensets/core_tokensets.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  backend b;
  matrix x(2, 3), weight(2, 3), y(2, 2);
  x << 1, 2, 3, 4, 5, 6;
  weight << 1, 0, -1, 0, 1, 1;

  // y = x weight^T, then twice as much, by way of a view.
  cts::ops::linear<backend, float>(b, cts::as_view(x), cts::as_view(weight), {}, {}, cts::as_view(y));
  b.map(cts::fn::scale<float>{2}, cts::as_view(y));
  std::printf("y: %g %g %g %g\n", double(y(0, 0)), double(y(0, 1)), double(y(1, 0)), double(y(1, 1)));

  // The same memory for whoever speaks DLPack.
  cts::dlpack::lent<float> lent(cts::as_view(y));
  const auto tensor = lent.get();
  std::printf("lent: [%d, %d], %s\n", int(tensor.shape[0]), int(tensor.shape[1]),
              tensor.data == y.data() ? "the same memory" : "a copy");

  // A layout that no view can describe is refused.
  Eigen::MatrixXf columns(2, 3);
  try {
    cts::as_view(columns);
  } catch (const cts::Error& error) {
    std::printf("%s\n", error.what());
  }
}
