// With unit_a.cpp: the public header in two translation units, which must link.
#include "core_tokensets/core_tokensets.hpp"

double logits_of_unit_b() {
  core_tokensets::eigen_backend<float> b;
  const core_tokensets::vit<core_tokensets::eigen_backend<float>> model(
      b, {.grid = {8, 8, 1, 4}, .dim = 8, .depth = 1, .heads = 2, .classes = 2});
  return static_cast<double>(model.parameters().size());
}
