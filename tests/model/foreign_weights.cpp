// Weights as timm and Hugging Face publish them: what a restatement of each model computes comes out, and what cannot
// be computed is refused by its name.

#include "core_tokensets/model/describe_weights.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/tolerance.hpp"

namespace model_foreign_weights_tests {

namespace cts = core_tokensets;
using cts::index;

namespace {

cts::tensor_file weights_of(const std::string& name) {
  return cts::load_safetensors(golden::folder("foreign") / (name + ".safetensors"));
}

/// Features and, where the file has a head, logits of a case on a backend of this scalar.
template <class T>
void check_case(const std::string& name, const std::vector<std::string>& noted) {
  INFO(name << " in " << sizeof(T) << " bytes");
  const auto expected = weights_of(name + ".expected");
  const auto& shape = expected.at("images").shape;
  const bool head = expected.contains("logits");  // else the one in the file is not computed, or there is none
  cts::vit_hints hints{.heads = 3, .height = shape[2], .width = shape[3]};
  if (!head) hints.new_head = 5;
  const auto weights = cts::read_vit(weights_of(name), hints);
  CHECK(weights.has_head == head);
  CHECK(weights.config.classes == (head ? 4 : 5));
  REQUIRE(weights.notes.size() == noted.size());
  for (std::size_t i = 0; i < noted.size(); ++i) CHECK(weights.notes[i].find(noted[i]) != std::string::npos);

  cts::eigen_backend<T> b;
  const auto model = cts::load_vit(b, weights);
  cts::vit_tape<cts::eigen_backend<T>> tape;
  cts::forward(b, model, cts::patchify(expected.at("images").as<float>(), model.config().grid), tape);
  const double limit = tolerance<T>(kind::outputs);
  CHECK(golden::distance(tape.norm.y.to_host(b), expected.at("features").as<double>()) < limit);
  if (head) CHECK(golden::distance(tape.logits.to_host(b), expected.at("logits").as<double>()) < limit);
}

/// A small model under timm's names, to be changed.
cts::tensor_file plain_file() {
  cts::eigen_backend<float> b;
  const cts::vit<cts::eigen_backend<float>> model(
      b, {.grid = {16, 16, 3, 8}, .dim = 12, .depth = 2, .heads = 3, .classes = 4, .mlp_ratio = 1, .seed = 5});
  auto file = cts::to_file(b, model);
  file.metadata.clear();
  file.path = "w.st";
  return file;
}

void add(cts::tensor_file& file, const std::string& name, std::vector<index> shape) {
  index size = 1;
  for (const index n : shape) size *= n;
  file.arrays[name] = cts::host_array::of(std::vector<float>(static_cast<std::size_t>(size), 0.5f), std::move(shape));
}

/// The message of reading a file, or nothing.
std::string refusal(cts::tensor_file file, cts::vit_hints hints = {}) {
  hints.heads = 3;
  try {
    (void)cts::read_vit(std::move(file), hints);
  } catch (const cts::Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("weights as they are published compute what their definition says", "[weights][golden]") {
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases{
      {"layer_scale", {"LayerScale"}},
      {"no_embed_class", {"that of the class token is 0"}},
      {"grid_of_positions", {"that of the class token is 0"}},
      {"fewer_positions", {"positions of 4 x 4 patches interpolated to 2 x 2"}},
      {"oblong_pictures", {"positions of 3 x 3 patches interpolated to 2 x 5"}},
      {"oblong_positions", {}},
      {"no_biases", {"no biases in patch_embed.proj, head, attn.proj, mlp.fc1, mlp.fc2"}},
      {"no_head", {"without a head"}},
      {"registers", {"positions of patches alone"}},
      {"registers_with_positions", {"positions of 3 x 3 patches interpolated to 2 x 2"}},
      {"distilled", {"distillation token", "without a head"}},
      {"norm_pre", {"no biases in patch_embed.proj"}},
      {"qk_norms", {}},
      {"hf_vit", {"Hugging Face's ViT, queries, keys and values packed", "pooler"}},
      {"hf_dinov2", {"Hugging Face's DINOv2, queries", "LayerScale", "mask token", "without a head"}}};
  for (const auto& [name, noted] : cases) {
    check_case<float>(name, noted);
    check_case<double>(name, noted);
  }
}

TEST_CASE("weights are stored in half the bytes, rounded to the nearest, and open again", "[weights]") {
  cts::eigen_backend<float> b;
  const cts::vit<cts::eigen_backend<float>> model(
      b, {.grid = {8, 16, 1, 4}, .dim = 12, .depth = 2, .heads = 3, .classes = 4});
  const auto whole = cts::to_file(b, model);
  for (const auto& [type, digits] : {std::pair(cts::dtype::bf16, 8), {cts::dtype::f16, 11}}) {
    const auto small = cts::stored_as(type, whole);
    const auto again = cts::to_file(b, cts::load_vit(b, small));
    for (const auto& [name, array] : whole.arrays) {
      CHECK(small.at(name).type == type);
      CHECK(2 * small.at(name).bytes.size() == array.bytes.size());
      const auto before = array.as<double>(), after = again.at(name).as<double>();
      for (std::size_t i = 0; i < before.size(); ++i)
        CHECK(std::abs(after[i] - before[i]) <= std::ldexp(std::abs(before[i]), -digits) + std::ldexp(1.0, -25));
    }
    CHECK(cts::stored_as(type, again).arrays == small.arrays);
  }
  auto large = whole;
  large.path = "w.st";
  add(large, "head.bias", {4});
  large.arrays["head.bias"] = cts::host_array::of(std::vector<float>{1, 2, 70000, 4});
  CHECK_THROWS_WITH(cts::stored_as(cts::dtype::f16, large),
                    "w.st: 'head.bias' holds 70000, which F16 cannot; BF16 can");
  CHECK(cts::stored_as(cts::dtype::bf16, large).at("head.bias").as<float>()[2] == 70144);
  large.arrays["head.bias"] = cts::host_array::of(std::vector<float>{1, 2, 3.4e38f, 4});
  CHECK_THROWS_WITH(cts::stored_as(cts::dtype::bf16, large),
                    Catch::Contains("cannot") && !Catch::Contains("; BF16 can"));
  CHECK_THROWS_WITH(cts::stored_as(cts::dtype::i32, whole), Catch::Contains("weights in I32"));
  large.arrays["head.bias"] = cts::host_array::of(std::vector<std::int32_t>{1, 2, 3, 4});
  CHECK_THROWS_WITH(cts::stored_as(cts::dtype::f32, large), Catch::Contains("'head.bias' holds I32"));
}

TEST_CASE("our own files need no changes and have no notes", "[weights]") {
  cts::eigen_backend<double> b;
  const cts::vit<cts::eigen_backend<double>> model(
      b, {.grid = {8, 16, 1, 4}, .dim = 12, .depth = 2, .heads = 3, .classes = 4});
  const auto file = cts::to_file(b, model);
  const auto weights = cts::read_vit(file);
  CHECK(weights.notes.empty());
  CHECK(weights.file.arrays == file.arrays);
  CHECK(weights.config.grid == model.config().grid);
}

TEST_CASE("positions of a constant and of a ramp stay what they are", "[weights]") {
  const std::vector<double> same(6 * 4, 2.5);
  for (const double x : cts::resample_positions(same, {3, 2}, {5, 7}, 4)) CHECK(std::abs(x - 2.5) < 1e-14);
  std::vector<double> ramp;
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 12; ++x) ramp.push_back(3 * (y + 0.5) / 8 - 2 * (x + 0.5) / 12);
  const auto fine = cts::resample_positions(ramp, {8, 12}, {16, 24}, 1);
  for (int y = 6; y < 10; ++y)
    for (int x = 6; x < 18; ++x)
      CHECK(std::abs(fine[static_cast<std::size_t>(y * 24 + x)] - (3 * (y + 0.5) / 16 - 2 * (x + 0.5) / 24)) < 1e-13);
  CHECK(cts::resample_positions(ramp, {8, 12}, {8, 12}, 1) == ramp);
  CHECK_THROWS_AS(cts::resample_positions(ramp, {8, 11}, {8, 12}, 1), cts::Error);
  CHECK_THROWS_AS(cts::resample_positions(ramp, {8, 12}, {8, 0}, 1), cts::Error);
}

TEST_CASE("the grid of positions is that of the metadata, of the pictures, or a square", "[weights]") {
  using cts::grid_extent, cts::stored_positions;
  const auto of = [](index rows, std::optional<grid_extent> known, std::optional<grid_extent> wanted) {
    return cts::positions_of({1, rows, 8}, 0, known, wanted);
  };
  CHECK(of(17, {}, {}) == stored_positions{{4, 4}, 1});
  CHECK(of(16, {}, {}) == stored_positions{{4, 4}, 0});
  CHECK(of(9, {}, grid_extent{2, 4}) == stored_positions{{2, 4}, 1});
  CHECK(of(17, {}, grid_extent{2, 8}) == stored_positions{{2, 8}, 1});
  CHECK(of(17, {}, grid_extent{3, 3}) == stored_positions{{4, 4}, 1});
  CHECK(of(10, {}, grid_extent{2, 5}) == stored_positions{{3, 3}, 1});
  CHECK(of(9, grid_extent{2, 4}, grid_extent{3, 3}) == stored_positions{{2, 4}, 1});
  CHECK(of(8, grid_extent{2, 4}, {}) == stored_positions{{2, 4}, 0});
  CHECK_FALSE(of(17, grid_extent{2, 4}, {}).has_value());
  CHECK_FALSE(of(12, {}, {}).has_value());
  for (const index before : {0, 1, 5})
    CHECK(cts::positions_of({1, 16 + before, 8}, 4, {}, {}) == stored_positions{{4, 4}, before});
}

TEST_CASE("parts that are not computed are refused by name", "[weights]") {
  const auto with = [](const std::string& name, std::vector<index> shape) {
    auto file = plain_file();
    add(file, name, std::move(shape));
    return refusal(std::move(file));
  };
  CHECK(refusal(plain_file()) == "");
  const std::vector<std::tuple<std::string, std::vector<index>, std::string>> parts{
      {"dist_token", {1, 1, 12}, "distillation token ('dist_token')"},
      {"fc_norm.weight", {12}, "mean of the patches"},
      {"attn_pool.q.weight", {12, 12}, "attention pooling"},
      {"blocks.0.attn.norm.weight", {12}, "norm inside of the attention"},
      {"blocks.0.attn.q_norm.weight", {4}, "norms of queries and keys of another kind ('blocks.0.attn.q_norm.weight')"},
      {"blocks.0.attn.k_norm.weight", {4}, "norms of queries and keys of another kind ('blocks.0.attn.k_norm.weight')"},
      {"blocks.0.mlp.w12.weight", {24, 12}, "gated MLP"},
      {"blocks.0.mlp.fc1_g.weight", {12, 12}, "gated MLP"},
      {"blocks.0.attn.relative_position_bias_table", {9, 3}, "relative positions"},
      {"rope.freqs", {4}, "rotary positions"},
      {"patch_embed.norm.weight", {12}, "norm of the patches"},
      {"pre_logits.fc.weight", {12, 12}, "pre_logits"}};
  for (const auto& [name, shape, told] : parts) {
    const std::string said = with(name, shape);
    INFO(name << ": " << said);
    CHECK(said.find("w.st: ") == 0);
    CHECK(said.find(told) != std::string::npos);
    CHECK(said.find("no parameter") == std::string::npos);
  }
  auto distilled = plain_file();
  add(distilled, "dist_token", {1, 1, 12}), add(distilled, "head_dist.weight", {4, 12});
  add(distilled, "rope.freqs", {4}), add(distilled, "pos_embed", {1, 6, 12});
  CHECK(refusal(distilled).find("it also has: rotary positions") != std::string::npos);
  distilled.arrays.erase("rope.freqs");
  CHECK(refusal(distilled, {.new_head = 2}) == "");
  add(distilled, "reg_token", {1, 1, 12});
  CHECK(refusal(distilled, {.new_head = 2}).find("'dist_token' and 'reg_token'") != std::string::npos);
}

TEST_CASE("parts that only a shape or something missing tells are refused by name", "[weights]") {
  auto file = plain_file();
  file.arrays.erase("cls_token");
  CHECK(refusal(file).find("no class token") != std::string::npos);
  file = plain_file();
  add(file, "blocks.0.mlp.fc1.weight", {24, 12});
  CHECK(refusal(file).find("gated MLP") != std::string::npos);
  file = plain_file();
  add(file, "patch_embed.proj.weight", {12, 3, 8, 4});
  CHECK(refusal(file).find("oblong patches") != std::string::npos);
  file = plain_file();
  add(file, "head.weight", {4, 24});
  CHECK(refusal(file).find("head on class token and mean") != std::string::npos);
  file = plain_file();
  std::erase_if(file.arrays, [](const auto& e) { return e.first.starts_with("head."); });
  CHECK(refusal(file).find("a model without a head") != std::string::npos);
  file = plain_file();
  add(file, "vision_model.embeddings.class_embedding", {12});
  CHECK(refusal(file).find("CLIP") != std::string::npos);
  file = plain_file();
  add(file, "pos_embed", {1, 13, 12});
  CHECK(refusal(file).find("12 patches, which is no square") != std::string::npos);
  CHECK(refusal(file, {.height = 24, .width = 32}) == "");
  CHECK(refusal(plain_file(), {.height = 24, .width = 30}).find("do not tile pictures of 24 x 30") !=
        std::string::npos);
}

TEST_CASE("a new head takes the place of one that cannot be computed", "[weights]") {
  auto file = plain_file();
  add(file, "pre_logits.fc.weight", {12, 12});
  CHECK(refusal(file, {.new_head = 7}) == "");
  add(file, "head.weight", {4, 24});
  cts::eigen_backend<float> b;
  const auto weights = cts::read_vit(file, {.heads = 3, .new_head = 7});
  CHECK_FALSE(weights.has_head);
  const auto model = cts::load_vit(b, weights);
  CHECK(model.config().classes == 7);
  CHECK(cts::to_file(b, model).at("norm.weight") == file.at("norm.weight"));
  CHECK(cts::read_vit(plain_file(), {.heads = 3, .new_head = 7}).config.classes == 4);
}

TEST_CASE("names inside of other models are found, and two for one refused", "[weights]") {
  const auto plain = plain_file();
  cts::tensor_file inside{.arrays = {}, .metadata = {}, .path = "w.st"};
  for (const auto& [name, array] : plain.arrays) inside.arrays["module.backbone." + name] = array;
  const auto weights = cts::read_vit(inside, {.heads = 3});
  CHECK(weights.file.arrays == plain.arrays);
  CHECK(weights.notes == std::vector<std::string>{"names of timm behind 'module.backbone.'"});
  inside.arrays["head.weight"] = plain.at("head.weight");
  CHECK(refusal(inside).find("both stand for 'head.weight'") != std::string::npos);
}

TEST_CASE("a description says what a file is and what becomes of its parts", "[weights]") {
  const auto line = [](const cts::described_weights& lines, const std::string& name, std::size_t which = 0) {
    for (const auto& [key, text] : lines)
      if (key == name && which-- == 0) return text;
    return std::string("no such line");
  };
  auto lines = cts::describe_weights(weights_of("hf_dinov2"));
  CHECK(line(lines, "stored").find("43 arrays, BF16") != std::string::npos);
  CHECK(line(lines, "kind") == "Vision Transformer under the names of Hugging Face's DINOv2");
  CHECK(line(lines, "pictures").find("4 x 4 x 3 in patches of 2, positions of 2 x 2 patches") == 0);
  CHECK(line(lines, "network") == "2 blocks of 12 channels, 12 in the MLP");
  CHECK(line(lines, "heads").find("not in the file") == 0);
  CHECK(line(lines, "head") == "none");
  CHECK(line(lines, "normalised").find("mean 0.5 0.5 0.5, standard deviation 0.5 0.5 0.5; the file does not") == 0);
  CHECK(line(lines, "unusual", 0).find("folded: queries, keys and values") == 0);
  CHECK(line(lines, "unusual", 1).find("folded: LayerScale ('blocks.0.ls1.gamma')") == 0);
  CHECK(line(lines, "unusual", 2).find("left out: mask token") == 0);
  CHECK(line(lines, "loads") == "yes with --heads, to start a sequence from, which gives it a head");

  auto file = plain_file();
  lines = cts::describe_weights(weights_of("distilled"));
  CHECK(line(lines, "pictures").find("4 x 4 x 3 in patches of 2, positions of 2 x 2 patches") == 0);
  CHECK(line(lines, "unusual").find("refused, left out where the model gets a new head: distillation token") == 0);
  file.metadata["config"] = R"({"heads": 3, "H": 16, "W": 16, "mean": [0.4], "std": [0.2]})";
  lines = cts::describe_weights(file);
  CHECK(line(lines, "heads") == "3");
  CHECK(line(lines, "normalised") == "mean 0.4 0.4 0.4, standard deviation 0.2 0.2 0.2");
  CHECK(line(lines, "loads") == "yes");
  add(file, "reg_token", {1, 4, 12});
  lines = cts::describe_weights(file);
  CHECK(line(lines, "unusual").find("computed: register tokens ('reg_token')") == 0);
  CHECK(line(lines, "loads") == "yes");
  auto half = file;
  add(half, "norm_pre.bias", {12});
  CHECK(line(cts::describe_weights(half), "unusual").find("computed: norm before the first block (norm_pre)") == 0);
  CHECK(line(cts::describe_weights(half), "loads").find("'norm_pre.bias' is no parameter") != std::string::npos);
  add(file, "rope.freqs", {4});
  lines = cts::describe_weights(file);
  CHECK(line(lines, "unusual", 1).find("refused: rotary positions (rope) ('rope.freqs')") == 0);
  CHECK(line(lines, "loads").find("no: w.st: ") == 0);
  file = plain_file();
  add(file, "blocks.0.something", {1});
  CHECK(line(cts::describe_weights(file), "loads").find("'blocks.0.something' is no parameter") != std::string::npos);
}

}  // namespace model_foreign_weights_tests
