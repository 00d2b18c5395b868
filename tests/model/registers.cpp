// Register tokens: their gradients against finite differences, and a model with registers against one without that sees
// them as patches more, in its logits and in what every kind of attribution says.

#include "core_tokensets/attribution/atman.hpp"
#include "core_tokensets/attribution/atman_first_order.hpp"
#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/audit.hpp"
#include "core_tokensets/attribution/generic_attention.hpp"
#include "core_tokensets/attribution/grad_cam.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/gradient_x_input.hpp"
#include "core_tokensets/attribution/lrp.hpp"
#include "core_tokensets/attribution/occlusion.hpp"
#include "core_tokensets/attribution/partial_lrp.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/model/image_text.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "model/gradient_checks.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"

namespace model_registers_tests {

namespace cts = core_tokensets;
using cts::index;
using gradient_checks::noise;
using backend = cts::eigen_backend<double>;

namespace {

constexpr index registers = 3, patch_numbers = 4;

cts::vit<backend> lively(backend& b, index count, index columns) {
  return gradient_checks::lively(b, {.grid = {4, 2 * columns, 1, 2},
                                     .dim = 12,
                                     .depth = 2,
                                     .heads = 3,
                                     .classes = 3,
                                     .registers = count,
                                     .mlp_ratio = 1});
}

/// The same network without registers: they are patches of zeros at positions of their own, in a third row of the grid.
cts::vit<backend> with_patches_for_registers(backend& b, const cts::vit<backend>& model) {
  auto file = cts::to_file(b, model);
  const auto tokens = file.at("reg_token").as<double>(), stored = file.at("pos_embed").as<double>(),
             bias = file.at("patch_embed.proj.bias").as<double>();
  constexpr std::size_t dim = 12;
  std::vector<double> positions(stored.begin(), stored.begin() + dim);
  positions.insert(positions.end(), stored.begin() + (1 + registers) * dim, stored.end());
  for (std::size_t i = 0; i < registers * dim; ++i) positions.push_back(tokens[i] + stored[dim + i] - bias[i % dim]);
  file.arrays.erase("reg_token");
  file.arrays["pos_embed"] = cts::host_array::of(positions, {1, 1 + 9, dim});
  auto config = cts::parse_json(file.metadata["config"], "config");
  config["H"] = index{6};
  file.metadata["config"] = config.dump();
  return cts::load_vit(b, file);
}

cts::token_batch with_patches_for_registers(const cts::token_batch& from) {
  cts::token_batch to;
  to.patch_dim = from.patch_dim, to.targets = from.targets, to.offsets = {0};
  for (std::size_t s = 0; s + 1 < from.offsets.size(); ++s) {
    const auto begin = from.offsets[s], end = from.offsets[s + 1];
    to.positions.insert(to.positions.end(), from.positions.begin() + begin, from.positions.begin() + end);
    to.patches.insert(to.patches.end(), from.patches.begin() + begin * patch_numbers,
                      from.patches.begin() + end * patch_numbers);
    to.patches.insert(to.patches.end(), registers * patch_numbers, 0.0f);
    for (std::int32_t r = 0; r < registers; ++r) to.positions.push_back(6 + r);
    to.offsets.push_back(to.offsets.back() + end - begin + registers);
    if (from.token_weights.empty()) continue;
    to.token_weights.insert(to.token_weights.end(), from.token_weights.begin() + begin,
                            from.token_weights.begin() + end);
    to.token_weights.insert(to.token_weights.end(), registers, 1.0f);
  }
  return to;
}

/// The numbers of the patches that both have.
std::vector<double> without_registers(const std::vector<double>& of_all) {
  std::vector<double> some(of_all.begin(), of_all.begin() + 5);
  some.insert(some.end(), of_all.begin() + 5 + registers, of_all.begin() + 5 + registers + 2);
  REQUIRE(of_all.size() == 7 + 2 * registers);
  return some;
}

template <class Method>
void check_same(backend& b, const Method& method, const std::string& name, bool weighted) {
  INFO(name << (weighted ? " with weights" : ""));
  const auto model = lively(b, registers, 3);
  const auto other = with_patches_for_registers(b, model);
  const auto batch = noise(weighted), wide = with_patches_for_registers(batch);
  cts::attribution_workspace<backend> ws;
  const auto got = attribute(method, b, model, batch, cts::target::label(), ws);
  const auto want = without_registers(attribute(method, b, other, wide, cts::target::label(), ws));
  REQUIRE(got.size() == 7);
  double largest = 0;
  for (const double x : want) largest = std::max(largest, std::abs(x));
  CHECK(largest > 0);
  for (std::size_t i = 0; i < got.size(); ++i)
    CHECK(std::abs(got[i] - want[i]) <= tolerance<double>(kind::plain) * largest);
}

}  // namespace

TEST_CASE("registers are patches of zeros at positions of their own", "[vit][registers]") {
  backend b;
  const auto model = lively(b, registers, 3);
  const auto other = with_patches_for_registers(b, model);
  for (const bool weighted : {false, true}) {
    const auto batch = noise(weighted);
    cts::vit_tape<backend> tape, wide;
    for (const auto keep : {cts::kept::logits, cts::kept::gradients, cts::kept::everything}) {
      tape.keep = wide.keep = keep;
      cts::forward(b, model, batch, tape);
      cts::forward(b, other, with_patches_for_registers(batch), wide);
      const auto got = tape.logits.to_host(b), want = wide.logits.to_host(b);
      for (std::size_t i = 0; i < want.size(); ++i)
        CHECK(std::abs(got[i] - want[i]) <= tolerance<double>(kind::outputs));
    }
  }
}

TEST_CASE("gradients with registers are those of finite differences", "[vit][registers]") {
  backend b;
  const auto model = lively(b, registers, 3);
  const auto of_tokens = [](const std::string& name) {
    return name == "reg_token" || name == "pos_embed" || name == "cls_token";
  };
  auto sizes = gradient_checks::check(b, model, noise(true), cts::kept::gradients, of_tokens);
  CHECK(sizes["reg_token"] > 1e-3);
}

TEST_CASE("relevance with registers is that of the same tokens as patches", "[registers][attribution]") {
  backend b;
  for (const bool weighted : {false, true}) {
    check_same(b, cts::last_attention{}, "attention", weighted);
    check_same(b, cts::rollout{}, "rollout", weighted);
    check_same(b, cts::rollout{.fusion = cts::head_fusion::max}, "rollout of maxima", weighted);
    check_same(b, cts::grad_lrp{}, "grad_lrp", weighted);
    check_same(b, cts::partial_lrp{}, "partial_lrp", weighted);
    check_same(b, cts::lrp_attribution{}, "lrp", weighted);
    check_same(b, cts::lrp_attribution{.level = cts::relevance_level::pixels}, "lrp at the pixels", weighted);
    check_same(b, cts::generic_attention{}, "generic_attention", weighted);
    check_same(b, cts::gradient_x_input{}, "gradient_x_input", weighted);
    check_same(b, cts::atman{}, "atman", weighted);
    check_same(b, cts::atman_first_order{}, "atman_first_order", weighted);
    check_same(b, cts::occlusion{}, "occlusion", weighted);
  }
}

TEST_CASE("what registers keep of the relevance is counted with the class token", "[registers][attribution]") {
  backend b;
  const auto model = lively(b, registers, 3);
  const auto other = with_patches_for_registers(b, model);
  const auto batch = noise(false), wide = with_patches_for_registers(batch);
  cts::attribution_workspace<backend> ws;
  const auto got = cts::audit(cts::lrp::attn_lrp(), b, model, batch, cts::target::label(), ws),
             want = cts::audit(cts::lrp::attn_lrp(), b, other, wide, cts::target::label(), ws);
  const auto of_patches = attribute(cts::lrp_attribution{}, b, other, wide, cts::target::label(), ws);
  for (std::size_t s = 0; s < got.size(); ++s) {
    double kept = want[s].class_token;
    const auto end = static_cast<std::size_t>(wide.offsets[s + 1]);
    for (std::size_t i = end - registers; i < end; ++i) kept += of_patches[i];
    CHECK(std::abs(got[s].class_token - kept) < tolerance<double>());
    CHECK(std::abs(got[s].at_tokens - want[s].at_tokens) < tolerance<double>());
  }
}

TEST_CASE("methods that look at patches beside one another leave registers out", "[registers][attribution]") {
  backend b;
  const auto model = lively(b, registers, 3);
  const auto batch = noise(false);
  cts::attribution_workspace<backend> ws;
  const auto cam = attribute(cts::grad_cam{}, b, model, batch, cts::target::label(), ws);
  CHECK(cam.size() == 7);
  const auto neighbours = attribute(cts::atman{.neighbours = cts::neighbourhood::patchpos, .threshold = 2}, b, model,
                                    batch, cts::target::label(), ws);
  CHECK(neighbours == attribute(cts::atman{}, b, model, batch, cts::target::label(), ws));
}

TEST_CASE("a model with registers is stored as timm would, and an encoder of texts has none", "[registers]") {
  backend b;
  const auto model = lively(b, registers, 3);
  const auto file = cts::to_file(b, model);
  CHECK(file.at("reg_token").shape == std::vector<index>{1, 3, 12});
  CHECK(file.at("pos_embed").shape == std::vector<index>{1, 1 + 3 + 6, 12});
  const auto weights = cts::read_vit(file);
  CHECK(weights.notes.empty());
  CHECK(weights.config.registers == 3);
  CHECK(cts::to_file(b, cts::load_vit(b, weights)).arrays == file.arrays);
  auto grown = model.copy(b);
  grown.grow_head(b, 5);
  CHECK(cts::to_file(b, grown).at("reg_token") == file.at("reg_token"));
  cts::image_text_config texts;
  texts.image.registers = 1;
  CHECK_THROWS_WITH(check(texts), Catch::Contains("1 registers"));
  cts::vit_config bad;
  bad.registers = -1;
  CHECK_THROWS_AS(check(bad), cts::Error);
}

}  // namespace model_registers_tests
