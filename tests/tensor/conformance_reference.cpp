// The reference and the archetype in the conformance suite.

#include "support/archetype.hpp"
#include "tensor/conformance/all.hpp"

namespace tensor_conformance_reference_tests {

TEST_CASE("reference<float> conforms", "[backend]") {
  conformance::check_backend(core_tokensets::reference_backend<float>());
}
TEST_CASE("archetype<double> conforms", "[backend]") {
  conformance::check_backend(support::archetype_backend<double>());
}

}  // namespace tensor_conformance_reference_tests
