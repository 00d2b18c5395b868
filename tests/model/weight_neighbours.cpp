// Folders as they are downloaded: what config.json and preprocessor_config.json beside the weights say is taken, the
// weights' own word comes first, and what contradicts the arrays is named.

#include "core_tokensets/model/weight_neighbours.hpp"

#include "core_tokensets/model/describe_weights.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/scratch.hpp"
#include "support/tolerance.hpp"

namespace model_weight_neighbours_tests {

namespace cts = core_tokensets;
using cts::index;
using cts::json;
using support::has;
using support::message_of;
using numbers = std::vector<float>;

namespace {

/// A folder with weights and, beside them, what a test writes.
struct download {
  support::scratch_folder folder;
  std::filesystem::path weights = folder.path / "model.safetensors";

  explicit download(const cts::tensor_file& file) { cts::save_safetensors(weights, file); }
  download(const cts::tensor_file& file, const json& config) : download(file) { write("config.json", config); }
  void write(const char* name, const std::string& text) const { cts::write_file(folder.path / name, text); }
  void write(const char* name, const json& content) const { write(name, content.dump()); }

  cts::vit_config config(const cts::vit_hints& hints = {}) const {
    return cts::read_vit(cts::load_weights(folder.path), hints).config;
  }
  std::string refusal(const cts::vit_hints& hints = {}) const {
    return message_of([&] { config(hints); });
  }
  /// The lines of a description that have a name, one after the other.
  std::string line(const std::string& name) const {
    std::string all;
    for (const auto& [key, text] : cts::describe_weights(cts::load_weights(folder.path)))
      if (key == name) all += text + "\n";
    return all;
  }
};

cts::tensor_file golden_weights(const std::string& name) {
  return cts::load_safetensors(golden::folder("foreign") / (name + ".safetensors"));
}

/// What Hugging Face writes beside the golden case hf_vit, in its words.
json hugging_face_config() {
  return {{"model_type", "vit"},
          {"architectures", json::array({"ViTForImageClassification"})},
          {"hidden_size", 12},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 3},
          {"intermediate_size", 12},
          {"hidden_act", "gelu"},
          {"layer_norm_eps", 1e-5},
          {"image_size", 4},
          {"patch_size", 2},
          {"num_channels", 3},
          {"qkv_bias", true},
          {"id2label", {{"1", "dog"}, {"0", "cat"}, {"3", "owl"}, {"2", "cat"}}}};
}

json preprocessor() {
  return {{"do_normalize", true},
          {"do_resize", true},
          {"image_mean", {0.485, 0.456, 0.406}},
          {"image_std", {0.229, 0.224, 0.225}},
          {"rescale_factor", 0.00392156862745098}};
}

/// A download of Hugging Face's with one key changed.
download changed(const char* key, json value) {
  json config = hugging_face_config();
  config[key] = std::move(value);
  return download(golden_weights("hf_vit"), config);
}

/// Weights as timm stores them, so wide as its tiny ones.
cts::tensor_file timm_weights(index dim = 192) {
  cts::eigen_backend<float> b;
  const cts::vit<cts::eigen_backend<float>> model(
      b, {.grid = {16, 16, 3, 8}, .dim = dim, .depth = 1, .heads = 3, .classes = 3, .mlp_ratio = 1, .seed = 5});
  auto file = cts::to_file(b, model);
  file.metadata.clear();
  return file;
}

json timm_config() {
  return {{"architecture", "vit_tiny_patch8_16"},
          {"num_classes", 3},
          {"global_pool", "token"},
          {"label_names", json::array({"ant", "bee", "cow"})},
          {"pretrained_cfg",
           {{"input_size", json::array({3, 16, 16})}, {"mean", {0.4, 0.5, 0.6}}, {"std", {0.1, 0.2, 0.3}}}}};
}

/// A download of timm's with one key changed.
download timm_changed(const char* key, json value, index dim = 192) {
  json config = timm_config();
  config[key] = std::move(value);
  return download(timm_weights(dim), config);
}

}  // namespace

TEST_CASE("what Hugging Face writes beside weights is all that they need", "[weights]") {
  const download d(golden_weights("hf_vit"));
  CHECK(has(d.refusal(), "--heads"));
  d.write("config.json", hugging_face_config());
  d.write("preprocessor_config.json", preprocessor());
  const auto c = d.config();
  CHECK(c.heads == 3);
  CHECK(c.layer_norm_eps == 1e-5);
  CHECK(c.class_names == std::vector<std::string>{"cat", "dog", "cat", "owl"});
  CHECK(c.normalisation.mean == numbers{0.485f, 0.456f, 0.406f});
  CHECK(c.normalisation.stddev == numbers{0.229f, 0.224f, 0.225f});
  CHECK(cts::read_vit(cts::load_weights(d.weights)).has_normalisation);

  CHECK(d.line("heads") == "3, of config.json\n");
  CHECK(d.line("normalised") ==
        "mean 0.485 0.456 0.406, standard deviation 0.229 0.224 0.225, of preprocessor_config.json\n");
  CHECK(d.line("classes") == "cat ... owl, of config.json\n");
  CHECK(d.line("beside") ==
        "config.json, Hugging Face's vit: heads, size of pictures, epsilon of the norms, activation, names of classes\n"
        "preprocessor_config.json, Hugging Face's: normalisation\n");
  CHECK(d.line("loads") == "yes\n");
}

TEST_CASE("a downloaded folder computes what its definition says", "[weights][golden]") {
  const download d = changed("layer_norm_eps", 1e-12);
  const auto expected = golden_weights("hf_vit.expected");
  cts::eigen_backend<double> b;
  const auto model = cts::load_vit(b, d.folder.path);
  cts::vit_tape<cts::eigen_backend<double>> tape;
  cts::forward(b, model, cts::patchify(expected.at("images").as<float>(), model.config().grid), tape);
  CHECK(golden::distance(tape.logits.to_host(b), expected.at("logits").as<double>()) <
        tolerance<double>(kind::outputs));
}

TEST_CASE("what contradicts the arrays is refused by file and key", "[weights]") {
  const auto told = [](const char* key, const json& value, const std::string& what) {
    const download d = changed(key, value);
    const std::string said = d.refusal();
    INFO(key << ": " << said);
    CHECK(has(said, "model.safetensors"));
    CHECK(has(said, "'" + std::string(key) + "' in config.json"));
    CHECK(has(said, what));
    CHECK(has(d.line("loads"), "no: "));
  };
  told("hidden_size", 24, "is 24, its arrays have 12 channels");
  told("num_hidden_layers", 12, "is 12, its arrays have 2 blocks");
  told("intermediate_size", 48, "is 48, its arrays have 12");
  told("num_channels", 1, "is 1, its arrays have 3");
  told("patch_size", 16, "is 16, its arrays have 2");
  told("patch_size", json::array({2, 4}), "is 4, its arrays have 2");
  told("num_register_tokens", 4, "is 4, its arrays have 0 registers");
  told("image_size", 6, "'pos_embed' has places for 4 patches, pictures of 6x6");
  told("num_attention_heads", 5, "12 channels do not divide into 5 heads");
  told("id2label", {{"0", "a"}, {"1", "b"}}, "has 2 names, its arrays have 4 classes");
  told("layer_norm_eps", 2, "is 2, expected 0 to 1");
  told("hidden_act", "quick_gelu", "activation 'quick_gelu'");
  told("hidden_act", "gelu_new", "activation 'gelu_new'");
  CHECK(changed("hidden_act", "gelu_python").refusal().empty());
  CHECK(changed("image_size", json::array({4, 4})).refusal().empty());
  CHECK(has(changed("hidden_act", "gelu").refusal({.heads = 4}), "'num_attention_heads' say 3 heads, asked for are 4"));
}

TEST_CASE("the weights' own word comes before that of their neighbours", "[weights]") {
  auto file = golden_weights("hf_vit");
  file.metadata["config"] =
      R"({"heads": 2, "std": [0.25], "layernorm_eps": 1e-3, "class_names": ["a", "b", "c", "d"]})";
  const download d(file);
  d.write("config.json", hugging_face_config());
  d.write("preprocessor_config.json", preprocessor());
  const auto c = d.config();
  CHECK(c.heads == 2);
  CHECK(c.layer_norm_eps == 1e-3);
  CHECK(c.class_names == std::vector<std::string>{"a", "b", "c", "d"});
  CHECK(c.normalisation == cts::pixel_normalisation{{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}});
  CHECK(d.line("heads") == "2\n");
  CHECK(has(d.line("beside"), "preprocessor_config.json, Hugging Face's: nothing that the weights do not say"));
  CHECK(has(d.refusal({.heads = 3}), "the metadata 'config' say 2 heads"));
}

TEST_CASE("our own files take nothing from a config.json that lies beside them", "[weights]") {
  cts::eigen_backend<float> b;
  const cts::vit<cts::eigen_backend<float>> model(
      b, {.grid = {8, 8, 3, 4}, .dim = 12, .depth = 1, .heads = 2, .classes = 2, .mlp_ratio = 1});
  const download d(cts::to_file(b, model));
  const auto before = d.config();
  d.write("config.json", hugging_face_config());
  d.write("preprocessor_config.json", preprocessor());
  const auto after = d.config();
  CHECK(after.heads == 2);
  CHECK(after.class_names.empty());
  CHECK(after.normalisation == before.normalisation);
  CHECK(after.layer_norm_eps == before.layer_norm_eps);
}

TEST_CASE("only the published name of weights has neighbours, and a folder must hold it", "[weights]") {
  const download d = changed("num_attention_heads", 3);
  CHECK(d.config().heads == 3);
  CHECK(cts::read_vit(cts::load_weights(d.weights)).config.heads == 3);
  std::filesystem::rename(d.weights, d.folder.path / "other.safetensors");
  CHECK(has(message_of([&] { cts::load_weights(d.folder.path); }), "a folder without model.safetensors"));
  CHECK(has(message_of([&] { cts::read_vit(cts::load_weights(d.folder.path / "other.safetensors")); }), "--heads"));
}

TEST_CASE("a config.json of another program is harmless, a damaged one is named", "[weights]") {
  const download d(golden_weights("hf_vit"));
  const cts::vit_hints hints{.heads = 3};
  for (const char* other : {R"({"memory": "coreset", "heads": 7})", "[1, 2]", "3", R"({"model_type": "swin",
       "num_attention_heads": 7})",
                            R"({"model_type": 5})", R"({"architecture": {"layers": 2}})", R"({"model_type": null})"}) {
    INFO(other);
    d.write("config.json", std::string(other));
    CHECK(d.refusal(hints).empty());
    CHECK(has(d.line("beside"), "config.json, "));
    CHECK(has(d.line("beside"), ": nothing taken"));
    CHECK(cts::load_weights(d.folder.path).metadata.contains("config") == false);
  }
  for (const char* name : {"config.json", "preprocessor_config.json"}) {
    d.write(name, std::string(R"({"model_type": "vit", )"));
    CHECK(d.refusal(hints).find((d.folder.path / name).string() + " is not valid JSON") == 0);
    std::filesystem::resize_file(d.folder.path / name, (16 << 20) + 1);
    CHECK(has(d.refusal(hints), std::string(name) + ": 16777217 bytes, expected at most 16777216"));
    std::filesystem::remove(d.folder.path / name);
  }
  CHECK(d.refusal(hints).empty());
  CHECK(d.line("beside").empty());
}

TEST_CASE("values of another kind than they must be are named", "[weights]") {
  const auto told = [](const char* key, const json& value) {
    const std::string said = changed(key, value).refusal({.heads = 3});
    INFO(key << " " << value.dump() << ": " << said);
    CHECK(has(said, "config.json: '" + std::string(key) + "' is not what it should be, expected "));
  };
  for (const json& value : {json("3"), json(2.5), json(0), json(-3), json::array({3})})
    told("num_attention_heads", value);
  told("image_size", json::array({4, 0})), told("image_size", json::array({4, 4, 4}));
  told("hidden_act", 3), told("layer_norm_eps", "small");
  told("id2label", json::array({"a"})), told("id2label", {{"0", "a"}, {"2", "b"}});
  told("id2label", {{"0", "a"}, {"00", "b"}}), told("id2label", {{"0", 5}}), told("id2label", {{"-1", "a"}});
  CHECK(has(changed("num_attention_heads", nullptr).refusal(), "--heads"));
}

TEST_CASE("names that nobody gave are none", "[weights]") {
  CHECK(changed("id2label", {{"0", "LABEL_0"}, {"1", "LABEL_1"}}).config().class_names.empty());
  CHECK(has(changed("id2label", {{"0", "LABEL_0"}, {"1", "b"}}).refusal(), "2 names"));
}

TEST_CASE("names and a head that is not there do not contradict each other", "[weights]") {
  const download d(golden_weights("hf_dinov2"));
  json config = hugging_face_config();
  config["model_type"] = "dinov2", config["layer_norm_eps"] = 1e-6;
  config.erase("intermediate_size");
  d.write("config.json", config);
  const auto c = d.config({.new_head = 7});
  CHECK(c.classes == 7);
  CHECK(c.class_names.empty());
  CHECK(c.heads == 3);
  CHECK(d.line("loads") == "yes, to start a sequence from, which gives it a head\n");
}

TEST_CASE("steps of a preprocessor become one mean and one deviation", "[weights]") {
  const auto of = [](const json& change) {
    const download d = changed("hidden_act", "gelu");
    json p = preprocessor();
    p["image_mean"] = {0.25, 0.5, 0.75}, p["image_std"] = json::array({0.5, 0.25, 0.125});
    p.update(change);
    d.write("preprocessor_config.json", p);
    return d.config().normalisation;
  };
  using cts::pixel_normalisation;
  CHECK(of(json::object()) == pixel_normalisation{{0.25f, 0.5f, 0.75f}, {0.5f, 0.25f, 0.125f}});
  CHECK(of({{"do_normalize", false}}) == pixel_normalisation{{0, 0, 0}, {1, 1, 1}});
  CHECK(of({{"image_mean", 0.5}, {"image_std", 0.25}}) ==
        pixel_normalisation{{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}});
  // Byte 200: (200 / 127.5 - 0.5) / 0.25, and (200 - 0.5) / 0.25 without any factor.
  const auto number = [](const pixel_normalisation& n) { return cts::pixel_table(n, 3)[256 + 200]; };
  CHECK(number(of({{"rescale_factor", 1 / 127.5}})) == Approx((200 / 127.5 - 0.5) / 0.25));
  CHECK(number(of({{"do_rescale", false}})) == Approx((200 - 0.5) / 0.25));
  CHECK(number(of({{"do_rescale", false}, {"do_normalize", false}})) == Approx(200));

  const auto told = [](const json& content) {
    const download d = changed("hidden_act", "gelu");
    d.write("preprocessor_config.json", content);
    return d.refusal();
  };
  CHECK(has(told({{"image_mean", "half"}, {"image_std", 1}}), "preprocessor_config.json: 'image_mean'"));
  CHECK(has(told({{"image_mean", 1}, {"image_std", json::array({})}}), "preprocessor_config.json: 'image_std'"));
  CHECK(has(told({{"do_normalize", "no"}}), "preprocessor_config.json: 'do_normalize'"));
  CHECK(has(told({{"image_mean", 0}, {"image_std", 1}, {"rescale_factor", 0}}), "'rescale_factor'"));
  CHECK(has(told({{"image_mean", {0.1, 0.2}}, {"image_std", 1}}), "'image_mean' in preprocessor_config.json: "));
  CHECK(has(told({{"image_mean", 0}, {"image_std", 0}}), "in preprocessor_config.json: normalisation: "));
  CHECK(told({{"do_normalize", true}}).empty());  // the mean of its class is not written there
}

TEST_CASE("what timm writes beside weights is all that they need", "[weights]") {
  const download d = timm_changed("num_features", 192);
  const auto c = d.config();
  CHECK(c.heads == 3);
  CHECK(c.class_names == std::vector<std::string>{"ant", "bee", "cow"});
  CHECK(c.normalisation.mean == numbers{0.4f, 0.5f, 0.6f});
  CHECK(c.normalisation.stddev == numbers{0.1f, 0.2f, 0.3f});
  CHECK(c.layer_norm_eps == 1e-6);
  CHECK(d.line("beside") ==
        "config.json, timm's vit_tiny_patch8_16: heads, size of pictures, normalisation, names of classes\n");

  json old = timm_config();  // as it was before version 0.9
  old.update(old["pretrained_cfg"]);
  old.erase("pretrained_cfg");
  d.write("config.json", old);
  CHECK(d.config().normalisation == c.normalisation);
  d.write("config.json", json{{"model_type", "timm_wrapper"}, {"architecture", "vit_tiny_patch8_16"}});
  CHECK(d.config().heads == 3);
}

TEST_CASE("heads follow from an architecture of timm's only where they are certain", "[weights]") {
  CHECK(has(timm_changed("architecture", "vit_small_patch8_16").refusal(), "--heads"));  // that is wider
  CHECK(has(timm_changed("architecture", "vit_tinier_patch8_16").refusal(), "--heads"));
  CHECK(has(timm_changed("architecture", "vit_tiny_patch8_16", 96).refusal(), "--heads"));
  CHECK(timm_changed("architecture", "deit_tiny_distilled_patch8_16").config().heads == 3);
  CHECK(timm_changed("architecture", "vit_small_patch8_16", 384).config().heads == 6);
  CHECK(timm_changed("model_args", {{"num_heads", 4}}).config().heads == 4);
  CHECK(has(timm_changed("model_args", {{"num_heads", 0}}).refusal(), "config.json: 'num_heads'"));
}

TEST_CASE("what of timm's configuration does not fit is refused by key", "[weights]") {
  const auto told = [](const char* key, const json& value) { return timm_changed(key, value).refusal(); };
  CHECK(has(told("num_classes", 5), "'num_classes' in config.json is 5, its arrays have 3 classes"));
  CHECK(has(told("label_names", json::array({"a"})), "'label_names' in config.json has 1 names"));
  CHECK(has(told("label_names", json::array({1, 2, 3})), "config.json: 'label_names'"));
  CHECK(has(told("global_pool", "avg"), "head on 'avg' of the tokens ('global_pool' in config.json)"));
  CHECK(has(told("model_args", {{"act_layer", "quick_gelu"}}), "activation 'quick_gelu' ('act_layer' in config.json)"));
  CHECK(has(told("architecture", "vit_tiny_patch8_quickgelu_16"), "activation 'quick_gelu' ('architecture'"));
  const auto clip = [](const char* tag) {  // weights that learnt with another function than their architecture says
    json config = timm_config();
    config["architecture"] = "vit_tiny_patch8_clip_16", config["pretrained_cfg"]["tag"] = tag;
    return download(timm_weights(192), config).refusal();
  };
  CHECK(has(clip("openai"), "activation 'quick_gelu' ('tag' in config.json)"));
  CHECK(has(clip("metaclip_400m"), "activation 'quick_gelu'"));
  CHECK(clip("laion2b").empty());
  const auto input = [&](const json& size) { return told("pretrained_cfg", {{"input_size", size}}); };
  CHECK(has(input(json::array({3, 32, 32})), "pictures of 32x32 ('input_size' in config.json)"));
  CHECK(has(input(json::array({1, 16, 16})), "'input_size' in config.json is 1, its arrays have 3"));
  CHECK(has(input(json::array({16, 16})), "config.json: 'input_size'"));
  CHECK(timm_changed("global_pool", "avg").refusal({.new_head = 2}).empty());
}

TEST_CASE("what was taken of neighbours cannot be claimed by the weights themselves", "[weights]") {
  auto file = golden_weights("hf_vit");
  file.metadata["config"] = R"({"heads": 3})";
  file.metadata["config_beside"] = R"({"files": ["anything"], "keys": {"heads": ["config.json", "x"]}})";
  const download d(file);
  CHECK(d.line("beside").empty());
  CHECK(d.line("heads") == "3\n");
}

}  // namespace model_weight_neighbours_tests
