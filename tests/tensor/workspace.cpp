// Scratch memory when there is none: nothing is left behind, and the next attempt finds the stack as it was.

#include "core_tokensets/tensor/workspace.hpp"

#include <new>

#include "core_tokensets/tensor/ops.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"

namespace tensor_workspace_tests {

namespace {

namespace cts = core_tokensets;

int blocks_before_failure = -1, blocks = 0;

/// Memory of the host that once fails to come, and counts the blocks that it gave.
struct failing_blocks {
  static constexpr cts::index alignment = 64, least = 1024;
  cts::host_buffer<std::byte> allocate(cts::index bytes) const {
    if (blocks_before_failure >= 0 && blocks_before_failure-- == 0) throw std::bad_alloc();
    ++blocks;
    return cts::host_buffer<std::byte>(bytes);
  }
};

struct failing_backend : cts::reference_backend<float> {
  cts::block_stack<failing_blocks> stack;
  cts::block_stack<failing_blocks>& workspace() { return stack; }
};
using scratch = cts::scratch<failing_backend>;

}  // namespace

TEST_CASE("scratch memory that is not there leaves the stack as it was", "[workspace]") {
  failing_backend b;
  const float *first = nullptr, *second = nullptr;
  {
    const scratch outer(b, 1, 100), inner(b, 1, 50);
    first = outer.data(), second = inner.data();
  }
  blocks_before_failure = 0;
  {
    const scratch outer(b, 1, 100);
    CHECK(outer.data() == first);
    CHECK_THROWS_AS(scratch(b, 100, 100), std::bad_alloc);
    const scratch inner(b, 1, 50);  // where it was before
    CHECK(inner.data() == second);
    blocks_before_failure = 0;
    CHECK_THROWS_AS(scratch(b, 100, 100), std::bad_alloc);
  }
  const scratch outer(b, 1, 100), inner(b, 1, 50);
  CHECK(outer.data() == first);
  CHECK(inner.data() == second);
  const scratch large(b, 100, 100);  // the retry that finds memory
  CHECK(large.data() != nullptr);
}

TEST_CASE("an operation without memory can be tried as often as one likes", "[workspace]") {
  failing_backend b;
  cts::tensor<failing_backend> x(b, 1000, 2);
  blocks = 0;
  for (int i = 0; i < 5; ++i) {
    blocks_before_failure = i == 0 ? 1 : 0;  // the first piece has memory, the second has none
    const scratch outer(b, 1, 200);
    CHECK_THROWS_AS(cts::ops::softmax(b, *x), std::bad_alloc);
  }
  CHECK(blocks == 1);
  blocks_before_failure = -1;
  b.fill(*x, 3);
  cts::ops::softmax(b, *x);
  CHECK(x.to_host(b)[1999] == 0.5f);
  const int grown = blocks;
  cts::ops::softmax(b, *x);
  CHECK(blocks == grown);
}

TEST_CASE("a buffer of more bytes than there are numbers for is refused", "[workspace]") {
  CHECK_THROWS_AS(cts::host_buffer<double>(cts::index{1} << 60), std::bad_array_new_length);
}

}  // namespace tensor_workspace_tests
