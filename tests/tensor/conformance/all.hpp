#pragma once
// The whole conformance suite. A backend joins with one line:
//   TEST_CASE("mine conforms", "[backend]") { conformance::check_backend(my_backend<float>()); }

#include "tensor/conformance/attention.hpp"
#include "tensor/conformance/fused.hpp"
#include "tensor/conformance/gemm.hpp"
#include "tensor/conformance/map.hpp"
#include "tensor/conformance/memory.hpp"
#include "tensor/conformance/reduce.hpp"

namespace conformance {

/// `B(int threads)`, where a backend has that and `threads()`, is used to try other numbers of threads.
template <class B>
void check_backend(B b) {
  suite<B> s(std::move(b));
  SECTION("memory") { check_memory(s); }
  SECTION("gemm") { check_gemm(s); }
  SECTION("map") { check_map(s); }
  SECTION("rows") { check_rows(s); }
  SECTION("reductions") { check_reduce(s); }
  SECTION("row operations and linear layers") { check_fused(s); }
  SECTION("attention") { check_attention(s); }
}

}  // namespace conformance
