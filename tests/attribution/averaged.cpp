// Relevance averaged over halves of the picture and its mirror image.

#include "core_tokensets/attribution/averaged.hpp"

#include <map>
#include <set>

#include "core_tokensets/attribution/generic_attention.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/ragged.hpp"
#include "support/scratch.hpp"

namespace attribution_averaged_tests {

namespace cts = core_tokensets;
using B = cts::eigen_backend<double>;

const cts::vit_config small{.grid = {20, 24, 3, 4}, .dim = 16, .depth = 3, .heads = 2, .classes = 5, .seed = 3};

/// Relevance is the position, counted from 1; notes which positions it was shown of the first sample.
struct places {
  std::vector<std::vector<std::int32_t>>* shown;
};
template <cts::tensor_backend Backend>
std::vector<double> attribute(const places& p, Backend&, const cts::vit<Backend>&, const cts::token_batch& batch,
                              const cts::target&, cts::attribution_workspace<Backend>&) {
  p.shown->emplace_back(batch.positions.begin(), batch.positions.begin() + batch.offsets[1]);
  std::vector<double> relevance;
  for (const auto position : batch.positions) relevance.push_back(position + 1);
  return relevance;
}

TEST_CASE("every patch is seen as often, in halves of the picture and of its mirror image", "[attribution]") {
  B b;
  const cts::vit<B> model(b, small);
  const auto batch = ragged::noise(small, {9});
  std::vector<std::vector<std::int32_t>> shown;
  const auto relevance = attribute(cts::averaged<places>{{&shown}, 3, true, 5}, b, model, batch);
  REQUIRE(shown.size() == 12);
  std::map<std::int32_t, double> expected;  // by position in the picture
  for (std::size_t v = 0; v < shown.size(); v += 2) {
    std::set<std::int32_t> both(shown[v].begin(), shown[v].end());
    both.insert(shown[v + 1].begin(), shown[v + 1].end());
    CHECK(both.size() == 9);
    CHECK(shown[v].size() + shown[v + 1].size() == 9);
    CHECK(shown[v].size() / 4 == 1);  // 4 or 5
    CHECK(shown[v + 1].size() / 4 == 1);
    for (const auto& view : {shown[v], shown[v + 1]}) {
      double sum = 0;
      for (const auto p : view) sum += p + 1;
      for (const auto p : view) {
        const auto at = v < 6 ? p : p / 6 * 6 + 5 - p % 6;
        expected[at] += (p + 1) * static_cast<double>(view.size()) / sum / 6;
      }
    }
  }
  for (std::size_t i = 0; i < 9; ++i) CHECK(relevance[i] == Approx(expected.at(batch.positions[i])));
  CHECK(shown[0] != shown[2]);
}

TEST_CASE("a mirror image has the mirrored relevance", "[attribution]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {12, 7});
  const auto mirrored = cts::detail::mirror_image(batch, small.grid);
  CHECK(mirrored.patches != batch.patches);
  const auto twice = cts::detail::mirror_image(mirrored, small.grid);
  CHECK(twice.patches == batch.patches);
  CHECK(twice.positions == batch.positions);
  for (cts::index i = 0; i < batch.tokens(); ++i) {
    const auto p = static_cast<std::size_t>(i);
    CHECK(mirrored.positions[p] == batch.positions[p] / 6 * 6 + 5 - batch.positions[p] % 6);
    CHECK(mirrored.patches[p * 48] == batch.patches[p * 48 + 3]);
  }
  const cts::averaged<cts::generic_attention> both{{}, 0, true, 0};
  const auto t = cts::target::of_class(1);
  CHECK(golden::distance(attribute(both, b, model, batch, t), attribute(both, b, model, mirrored, t)) <= 1e-12);
  const cts::averaged<cts::generic_attention> one{{}, 0, false, 0};
  CHECK(golden::distance(attribute(one, b, model, batch, t), attribute(one, b, model, mirrored, t)) > 1e-3);
}

TEST_CASE("averaging alone changes no order, and refuses fewer than no views", "[attribution]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {12});
  const auto plain = attribute(cts::generic_attention{}, b, model, batch);
  const auto same = attribute(cts::averaged<cts::generic_attention>{{}, 0, false, 0}, b, model, batch);
  double size = 0;
  for (const double r : plain) size += std::abs(r) / 12;
  for (std::size_t i = 0; i < plain.size(); ++i) CHECK(same[i] == Approx(plain[i] / size));
  CHECK(support::message_of([&] { attribute(cts::averaged<>{.pairs = -1}, b, model, batch); }).find("-1 pairs") !=
        std::string::npos);
}

}  // namespace attribution_averaged_tests
