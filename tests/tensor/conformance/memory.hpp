#pragma once
// Conformance of allocate, upload, download and fill.

#include "tensor/conformance/suite.hpp"

namespace conformance {

template <class B>
void check_memory(suite<B>& s) {
  using T = typename B::scalar;
  B& b = s.backend;
  for (const index n : {0, 1, 7, 1000}) {
    INFO("upload and download n = " << n);
    std::vector<T> numbers(static_cast<std::size_t>(n) + 1, T(-1)), back(numbers);
    std::vector<std::int32_t> rows(static_cast<std::size_t>(n) + 1, -1), rows_back(rows);
    for (index i = 0; i < n; ++i) {
      numbers[static_cast<std::size_t>(i)] = T(0.1) * T(i);
      rows[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(1000000007 - i);
    }
    auto of_numbers = b.template allocate<T>(n);
    auto of_rows = b.template allocate<std::int32_t>(n);
    b.upload(of_numbers.data(), numbers.data(), n);
    b.upload(of_rows.data(), rows.data(), n);
    auto moved = std::move(of_numbers);
    b.download(back.data(), moved.data(), n);
    b.download(rows_back.data(), of_rows.data(), n);
    CHECK(back == numbers);
    CHECK(rows_back == rows);
  }
  for (const shape& extents : {shape{}, shape{1, 1, 7, 13}, shape{2, 3, 5, 17}, shape{1, 1, 0, 4}, shape{2, 0, 3, 4}}) {
    s.check(describe("fill ", text(extents)), 1, {{extents}},
            []<class X>(X& x, operands<X>& out) { x.fill(out[0].mut(), typename X::scalar(2.5)); });
  }
  b.fill(cts::view<T>{}, T(1));  // a view of nothing
}

}  // namespace conformance
