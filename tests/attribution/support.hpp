#pragma once
// What the tests of attribution share: comparison with golden arrays, on every golden case and backend.

#include <string>
#include <vector>

#include "core_tokensets/attribution/target.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/ragged.hpp"
#include "support/tolerance.hpp"

namespace attribution_tests {

namespace cts = core_tokensets;
using cts::index;

template <class T>
void check_close(const cts::tensor_file& want, const std::string& name, const std::vector<T>& got, double limit) {
  INFO(want.path << " " << name);
  CHECK(golden::distance(got, want.at(name).as<double>()) <= limit);
}

/// Calls `body(backend, case)` for the golden ViTs: all in double, all in float, and the smallest on the reference
/// backend.
template <class Body>
void on_every_case(const Body& body) {
  const auto run = [&](auto b, const std::string& name) {
    const auto where = golden::folder(name);
    if (where.empty()) {
      WARN("golden case " << name << " not found (CTS_SHARED); skipped");
      return;
    }
    const auto c = golden::load_case(b, where);
    body(b, c);
  };
  run(cts::reference_backend<double>(), "vit_c");
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) {
    run(cts::eigen_backend<double>(), name);
    run(cts::eigen_backend<float>(), name);
  }
}

/// The targets that golden arrays are named after.
inline std::vector<std::pair<std::string, cts::target>> golden_targets() {
  return {{"argmax", cts::target{}}, {"label", cts::target::label()}};
}

}  // namespace attribution_tests
