// cts predict, backward and attribute: the golden numbers come out, and damaged or unfitting files are named.

#include <limits>

#include "cli/support.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/golden.hpp"
#include "support/tolerance.hpp"

namespace cli_models_tests {

using namespace cli_test;
using options = std::map<std::string, std::string>;

namespace {

/// The golden case in files that may be changed.
struct golden_files {
  sandbox box;
  fs::path where = golden::folder("vit_c");
  cts::tensor_file weights = cts::load_safetensors(where / "weights.safetensors");
  cts::tensor_file inputs = cts::load_safetensors(where / "inputs.safetensors");

  golden_files() { save(); }
  void save() const {
    cts::save_safetensors(box.path / "weights", weights);
    cts::save_safetensors(box.path / "inputs", inputs);
  }
  std::map<std::string, std::string> options() const {
    return {{"--weights", box / "weights"}, {"--inputs", box / "inputs"}, {"--out", box / "out"}};
  }
  arguments predict() const { return with("predict", options()); }
  arguments backward() const { return with("backward", options()); }
  arguments attribute(const std::string& method = "grad_lrp") const {
    return with("attribute", options(), {{"--method", method}});
  }
  cts::tensor_file result(const arguments& args) const {
    run_well(box, args);
    return cts::load_safetensors(box.path / "out");
  }
};

/// Refused with `change` applied to the weights or inputs, naming the file of these.
template <class Change>
void refuse_weights(const Change& change, std::vector<std::string> told) {
  golden_files files;
  change(files.weights);
  files.save();
  told.push_back(files.box / "weights");
  check_refused(files.box, files.predict(), told);
}
template <class Change>
void refuse_inputs(const Change& change, std::vector<std::string> told) {
  golden_files files;
  change(files.inputs);
  files.save();
  told.push_back(files.box / "inputs");
  check_refused(files.box, files.backward(), told);
}

void set_first(cts::host_array& array, float value) {
  auto numbers = array.as<float>();
  numbers.front() = value;
  array = cts::host_array::of(numbers, array.shape);
}

}  // namespace

TEST_CASE("bytes are normalised as the model's file says, other numbers are taken as they are", "[cli][golden]") {
  golden_files files;
  const auto& shape = files.inputs.at("images").shape;
  std::vector<std::uint8_t> bytes(files.inputs.at("images").as<float>().size());
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 256);
  auto config = files.weights.metadata.contains("config") ? cts::parse_json(files.weights.metadata["config"], "config")
                                                          : cts::json::object();
  config["mean"] = std::vector<double>{0.25};
  config["std"] = std::vector<double>{0.125};
  files.weights.metadata["config"] = config.dump();
  files.inputs.arrays["images"] = cts::host_array::of(bytes, shape);
  files.save();
  const auto of_bytes = files.result(files.predict()).at("logits").as<float>();
  CHECK(run_well(files.box, files.predict()).out ==
        "images: bytes, normalised as the model says: (x / 255 - 0.25) / 0.125\n");

  std::vector<float> numbers;
  for (const auto x : bytes) numbers.push_back((static_cast<float>(x) / 255 - 0.25f) / 0.125f);
  files.inputs.arrays["images"] = cts::host_array::of(numbers, shape);
  files.save();
  CHECK(files.result(files.predict()).at("logits").as<float>() == of_bytes);
  CHECK(run_well(files.box, files.predict()).out.find("from -2 to 6, taken as normalised already") !=
        std::string::npos);
}

TEST_CASE("the commands give the golden numbers", "[cli][golden]") {
  const golden_files files;
  const auto want = [&](const char* file) {
    return cts::load_safetensors(files.where / (std::string(file) + ".safetensors"));
  };
  const auto check = [&](const cts::tensor_file& got, const std::string& name, const cts::tensor_file& golden,
                         const std::string& golden_name, double limit) {
    INFO(name);
    CHECK(got.at(name).shape == golden.at(golden_name).shape);
    CHECK(golden::distance(got.at(name).as<double>(), golden.at(golden_name).as<double>()) <= limit);
  };
  for (const std::string dtype : {"f32", "f64"}) {
    INFO(dtype);
    const bool wide = dtype == "f64";
    const double plain = wide ? tolerance<double>() : tolerance<float>();
    const double relevance = wide ? tolerance<double>(kind::relevance) : tolerance<float>(kind::relevance);
    const auto as = [&](arguments args) {
      args.push_back("--dtype=" + dtype);
      return args;
    };
    const auto forward = want("forward"), gradients = want("backward"), attribution = want("attribution");
    const auto predicted = files.result(as(files.predict()));
    check(predicted, "logits", forward, "logits", plain);
    check(predicted, "probabilities", forward, "probs", plain);
    const auto backward = files.result(as(files.backward()));
    for (const auto& [name, array] : backward.arrays) check(backward, name, gradients, name, plain);
    CHECK(backward.arrays.size() == files.weights.arrays.size() + 1);
    for (const std::string target : {"argmax", "label"}) {
      const auto explain = [&](const char* method, int start) {
        auto args = as(files.attribute(method));
        args.push_back("--target=" + target);
        args.push_back("--start-layer=" + std::to_string(start));
        return files.result(args);
      };
      check(explain("attention", 0), "relevance", attribution, "raw_last", plain);
      check(explain("grad_cam", 0), "relevance", attribution, "gradcam." + target, plain);
      for (const int start : {0, 1}) {
        const std::string s = "_s" + std::to_string(start);
        check(explain("rollout", start), "relevance", attribution, "rollout" + s, plain);
        check(explain("grad_lrp", start), "relevance", attribution, "transformer_attribution" + s + "." + target,
              relevance);
      }
    }
    CHECK(files.result(as(files.attribute("random"))).at("relevance").shape == std::vector<cts::index>{2, 9});
  }
}

TEST_CASE("weights that do not make a model are named", "[cli]") {
  refuse_weights([](auto& f) { f.arrays.erase("norm.bias"); }, {"no array 'norm.bias'"});
  refuse_weights([](auto& f) { f.arrays.erase("pos_embed"); }, {"no array 'pos_embed'"});
  refuse_weights([](auto& f) { f.arrays.erase("blocks.1.norm1.weight"); }, {"no array 'blocks.1.norm1.weight'"});
  refuse_weights([](auto& f) { f.arrays.clear(); }, {"no array", "none at all"});
  refuse_weights([](auto& f) { f.arrays["more.bias"] = f.at("norm.bias"); }, {"'more.bias' is no parameter"});
  refuse_weights([](auto& f) { f.arrays["fc_norm.bias"] = f.at("norm.bias"); }, {"fc_norm", "mean of their patches"});
  refuse_weights([](auto& f) { f.arrays.erase("head.weight"); }, {"no array 'head.weight'", "DINO", "cts sequence"});
  refuse_weights([](auto& f) { f.arrays["blocks.7.norm1.bias"] = f.at("norm.bias"); }, {"'blocks.7.norm1.bias'"});
  refuse_weights([](auto& f) { f.arrays["norm.bias"] = f.at("head.bias"); }, {"'norm.bias'", "[3]", "expected [16]"});
  refuse_weights([](auto& f) { f.arrays["head.weight"].shape = {48}; }, {"'head.weight'", "[48]", "2 dimensions"});
  refuse_weights([](auto& f) { f.arrays["head.weight"].shape = {16, 3}; }, {"'head.weight'", "[16, 3]", "expected"});
  refuse_weights([](auto& f) { f.arrays["patch_embed.proj.weight"].shape = {16, 1, 2, 8}; }, {"2x8", "square"});
  refuse_weights(
      [](auto& f) {
        f.arrays["patch_embed.proj.weight"] = {cts::dtype::f32, {16, 1, 0, 0}, {}};
      },
      {"'patch_embed.proj.weight'", "[16, 1, 0, 0]"});
  refuse_weights([](auto& f) { f.arrays["pos_embed"].shape = {1, 5, 32}; }, {"'pos_embed'", "4 patches"});
  refuse_weights([](auto& f) { f.metadata.clear(); }, {"heads", "--heads"});
  refuse_weights([](auto& f) { f.metadata["config"] = R"({"heads": 3})"; }, {"16 channels", "3 heads"});
  refuse_weights([](auto& f) { f.metadata["config"] = R"({"heads": 1e300})"; }, {"'heads'", "1e+300"});
  refuse_weights([](auto& f) { f.metadata["config"] = R"({"heads": 2, "H": -12})"; }, {"'H'", "-12"});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    refuse_weights([&](auto& f) { set_first(f.arrays["blocks.1.mlp.fc2.weight"], bad); },
                   {"'blocks.1.mlp.fc2.weight'", "not finite"});
}

TEST_CASE("pictures of another size have their positions interpolated, which is said", "[cli]") {
  golden_files files;
  const std::vector<cts::index> shape{2, 1, 16, 8};
  std::vector<float> numbers(2 * 16 * 8);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i % 17) / 8 - 1;
  files.inputs.arrays["images"] = cts::host_array::of(numbers, shape);
  files.save();
  CHECK(run_well(files.box, files.predict())
            .out.find(
                "weights: positions of 3 x 3 patches interpolated to 4 x 2 (bicubic, antialiased, as timm does)\n") ==
        0);
  const auto of_command = files.result(files.predict()).at("logits").as<float>();
  CHECK(files.result(files.attribute("rollout")).at("relevance").shape == std::vector<cts::index>{2, 8});

  cts::eigen_backend<float> b;
  const auto model = cts::load_vit(b, files.weights, {.height = 16, .width = 8});
  cts::vit_tape<cts::eigen_backend<float>> tape;
  cts::forward(b, model, cts::patchify(numbers, model.config().grid), tape);
  CHECK(golden::distance(of_command, tape.logits.to_host(b)) <= tolerance<float>(kind::outputs));
}

TEST_CASE("bytes for a model that does not say how pictures are normalised are told of", "[cli]") {
  golden_files files;
  auto config = cts::parse_json(files.weights.metadata["config"], "config");
  config.erase("mean"), config.erase("std");
  files.weights.metadata["config"] = config.dump();
  const auto shape = files.inputs.at("images").shape;
  files.inputs.arrays["images"] = cts::host_array::of(std::vector<std::uint8_t>(2 * 12 * 12, 255), shape);
  files.save();
  CHECK(run_well(files.box, files.predict()).out ==
        "images: bytes, normalised as most are, since the model does not say how: (x / 255 - 0.5) / 0.5\n");
}

TEST_CASE("weights from elsewhere are described, predicted with and learnt from", "[cli]") {
  const sandbox box;
  const auto foreign = golden::folder("foreign");
  for (const std::string name : {"layer_scale", "hf_vit", "oblong_pictures", "registers"}) {
    INFO(name);
    const auto expected = cts::load_safetensors(foreign / (name + ".expected.safetensors"));
    run_well(box, with("predict", {{"--weights", (foreign / (name + ".safetensors")).string()},
                                   {"--inputs", (foreign / (name + ".expected.safetensors")).string()},
                                   {"--heads", "3"},
                                   {"--out", box / "out"}}));
    CHECK(golden::distance(cts::load_safetensors(box.path / "out").at("logits").as<double>(),
                           expected.at("logits").as<double>()) <= tolerance<float>(kind::outputs));
  }
  const std::string backbone = (foreign / "no_head.safetensors").string();
  const auto described = run_well(box, {"info", "--weights", backbone}).out;
  CHECK(described.find("head        none\n") != std::string::npos);
  CHECK(described.find("loads       yes with --heads, to start a sequence from") != std::string::npos);
  const auto parsed = cts::parse_json(run_well(box, {"info", "--json", "--weights", backbone}).out, "info");
  CHECK(parsed.at("head") == "none");

  auto arguments = small_sequence(box / "run");
  for (const char* size : {"--patch", "--dim", "--depth"}) arguments.erase(size);
  arguments["--weights"] = backbone, arguments["--heads"] = "3", arguments["--image"] = "16";
  const auto learnt = run_well(box, with("sequence", arguments)).out;
  CHECK(learnt.find("weights: without a head of its own\n") != std::string::npos);
  CHECK(learnt.find("weights: positions of 2 x 2 patches interpolated to 8 x 8") != std::string::npos);
  const auto model = cts::load_safetensors(box.path / "run" / "model.safetensors");
  CHECK(model.at("head.weight").shape == std::vector<cts::index>{4, 12});
  CHECK(model.at("pos_embed").shape == std::vector<cts::index>{1, 65, 12});
}

TEST_CASE("a model of others becomes one file that needs no hints, in half the bytes", "[cli]") {
  const sandbox box;
  const auto foreign = golden::folder("foreign");
  const std::string from = (foreign / "hf_vit.safetensors").string(), out = box / "own";
  const auto images = (foreign / "hf_vit.expected.safetensors").string();
  const auto expected = cts::load_safetensors(images).at("logits").as<double>();
  const arguments convert{"convert", "--weights", from, "--out", out, "--heads", "3", "--type"};
  const auto with_type = [&](const char* type) {
    auto args = convert;
    args.push_back(type);
    return args;
  };
  for (const auto& [type, limit] : {std::pair("F32", tolerance<float>(kind::outputs)), {"bf16", 0.05}}) {
    INFO(type);
    const auto told = run_well(box, with_type(type)).out;
    CHECK(told.find("names of Hugging Face's ViT, queries, keys and values packed\n") == 0);
    CHECK(told.find(out + ": " + std::to_string(fs::file_size(out)) + " bytes") != std::string::npos);
    run_well(box, {"predict", "--weights", out, "--inputs", images, "--out", box / "out"});
    CHECK(golden::distance(cts::load_safetensors(box.path / "out").at("logits").as<double>(), expected) <= limit);
  }
  CHECK(cts::load_safetensors(out).at("norm.weight").type == cts::dtype::bf16);
  check_refused(box, with_type("I32"), {"--type I32: expected F32, F16, BF16 or F64"});
  check_refused(box, {"convert", "--weights", out, "--out", out}, {"--out " + out + ": is the file that is read"});
  check_refused(box, {"convert", "--weights", from, "--out", box / "new"}, {"--heads"});
}

TEST_CASE("a downloaded folder stands for its weights and says what they do not", "[cli]") {
  const sandbox box;
  const auto foreign = golden::folder("foreign");
  fs::create_directory(box.path / "hub");
  fs::copy_file(foreign / "hf_vit.safetensors", box.path / "hub/model.safetensors");
  cts::write_file(box.path / "hub/config.json", std::string_view(R"({"model_type": "vit", "num_attention_heads": 3,
    "id2label": {"0": "ant", "1": "bee", "2": "cow", "3": "dog"}})"));
  cts::write_file(box.path / "hub/preprocessor_config.json",
                  std::string_view(R"({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.25, 0.25, 0.25]})"));
  const auto told = run_well(box, {"info", "--weights", box / "hub"}).out;
  CHECK(told.find("heads       3, of config.json\n") != std::string::npos);
  CHECK(told.find("beside      preprocessor_config.json, Hugging Face's: normalisation\n") != std::string::npos);
  const auto parsed = cts::parse_json(run_well(box, {"info", "--json", "--weights", box / "hub"}).out, "info");
  CHECK(parsed.at("beside").size() == 2);

  const auto images = (foreign / "hf_vit.expected.safetensors").string();
  run_well(box, with("predict", {{"--weights", box / "hub"}, {"--inputs", images}, {"--out", box / "out"}}));
  CHECK(golden::distance(cts::load_safetensors(box.path / "out").at("logits").as<double>(),
                         cts::load_safetensors(images).at("logits").as<double>()) <= tolerance<float>(kind::outputs));
  cts::write_png(box.path / "a.png", cts::image(9, 7, 3, 90));
  const auto said = run_well(box, {"classify", "--model", box / "hub", "--json", box / "a.png"}).out;
  CHECK(cts::parse_json(said, "classify")[0].at("classes").size() == 4);
  CHECK(said.find("\"cow\"") != std::string::npos);
  cts::write_file(box.path / "hub/config.json", std::string_view(R"({"model_type": "vit", "patch_size": 16})"));
  check_refused(box, {"classify", "--model", box / "hub", "--heads", "3", box / "a.png"},
                {"model.safetensors", "'patch_size' in config.json is 16"});
  auto learn = small_sequence(box / "run");
  for (const char* size : {"--patch", "--dim", "--depth", "--heads"}) learn.erase(size);
  cts::write_file(box.path / "hub/config.json", std::string_view(R"({"model_type": "vit", "num_attention_heads": 3})"));
  learn["--weights"] = box / "hub";
  run_well(box, with("sequence", learn));
  const auto model = cts::load_safetensors(box.path / "run" / "model.safetensors");
  const auto config = cts::parse_json(model.metadata.at("config"), "config");
  CHECK(config.at("heads") == 3);
  CHECK(config.at("mean").at(0).get<float>() == 0.4f);
}

TEST_CASE("questions are learnt on an encoder from elsewhere, unless it has registers", "[cli]") {
  const sandbox box;
  const auto foreign = golden::folder("foreign");
  const auto learn = [&](const char* weights) {
    return with("sequence", {{"--task", "vqa"},
                             {"--data", "scenes"},
                             {"--tasks", "1"},
                             {"--memory", "none"},
                             {"--image", "16"},
                             {"--text-depth", "1"},
                             {"--pictures", "60"},
                             {"--test-pictures", "40"},
                             {"--epochs", "1"},
                             {"--heads", "3"},
                             {"--quiet", ""},
                             {"--out", box / "answers"},
                             {"--weights", (foreign / weights).string()}});
  };
  const auto refused = run(box, learn("registers.safetensors"));
  CHECK(refused.code == 2);
  CHECK(refused.err == "cts: image_text: 3 registers, an encoder here has none\n");
  run_well(box, learn("hf_dinov2.safetensors"));
  const auto model = cts::load_safetensors(box.path / "answers" / "model.safetensors");
  CHECK(model.at("encoder.pos_embed").shape == std::vector<cts::index>{1, 65, 12});
}

TEST_CASE("inputs that do not fit the model are named", "[cli]") {
  refuse_inputs([](auto& f) { f.arrays.erase("images"); }, {"no array 'images'"});
  refuse_inputs([](auto& f) { f.arrays.erase("labels"); }, {"no array 'labels'"});
  refuse_inputs([](auto& f) { f.arrays["images"].shape = {2, 1, 16, 9}; }, {"[2, 1, 16, 9]", "[B, 1, H, W]"});
  refuse_inputs([](auto& f) { f.arrays["images"].shape = {1, 2, 12, 12}; }, {"[1, 2, 12, 12]", "[B, 1, H, W]"});
  refuse_inputs([](auto& f) { f.arrays["images"].shape = {2, 144}; }, {"[2, 144]", "[B, 1, H, W]"});
  refuse_inputs([](auto& f) { f.arrays["images"] = {cts::dtype::f32, {0, 1, 12, 12}, {}}; }, {"[0, 1, 12, 12]"});
  refuse_inputs([](auto& f) { set_first(f.arrays["images"], std::nanf("")); }, {"'images'", "not finite"});
  refuse_inputs([](auto& f) { f.arrays["labels"] = cts::host_array::of(std::vector<std::int64_t>{1}); },
                {"1 labels for 2 images"});
  refuse_inputs(
      [](auto& f) {
        f.arrays["labels"] = cts::host_array::of(std::vector<std::int64_t>{1, 3});
      },
      {"'labels' holds 3", "0 to 2"});
  refuse_inputs(
      [](auto& f) {
        f.arrays["labels"] = cts::host_array::of(std::vector<std::int64_t>{1, -1});
      },
      {"'labels' holds -1"});
  refuse_inputs(
      [](auto& f) {
        f.arrays["labels"] = cts::host_array::of(std::vector<float>{1, 0.5f});
      },
      {"'labels'", "0.5"});
}

TEST_CASE("files that are cut off, are folders or cannot be written are named", "[cli]") {
  const golden_files files;
  const auto& box = files.box;
  const auto whole = cts::read_file(box.path / "weights");
  for (const std::size_t count : {std::size_t{0}, std::size_t{5}, std::size_t{8}, std::size_t{1000}, std::size_t{2760},
                                  whole.size() / 2, whole.size() - 1}) {
    cts::write_file(box.path / "weights", std::span(whole).first(count));
    check_refused(box, files.predict(), {box / "weights"});
  }
  auto longer = whole;
  longer.push_back(std::byte{0});
  cts::write_file(box.path / "weights", longer);
  check_refused(box, files.predict(), {box / "weights", "1 bytes behind"});
  files.save();

  fs::create_directory(box.path / "folder");
  const auto change = [&](const char* name, const std::string& value) {
    return with("predict", files.options(), {{name, value}});
  };
  check_refused(box, change("--weights", box / "folder"), {box / "folder", "not a regular file"});
  check_refused(box, change("--inputs", box / "folder"), {box / "folder", "not a regular file"});
  check_refused(box, change("--out", box / "folder"), {box / "folder", "not a regular file"});
  check_refused(box, change("--weights", box / "nowhere"), {box / "nowhere", "No such file"});
  check_refused(box, change("--weights", box / "inputs"), {box / "inputs", "patch_embed.proj.weight"});
  check_refused(box, change("--out", box / "nowhere/out"), {box / "nowhere/out", "No such file"});
  check_refused(box, change("--out", box / "inputs/out"), {box / "inputs/out", "Not a directory"});
  check_refused(box, change("--out", "/proc/out"), {"/proc/out", "cannot"});
  check_refused(box, change("--dtype", "f16"), {"--dtype", "f16", "f64"});
  check_refused(box, change("--heads", "-2"), {"--heads -2"});
  check_refused(box, change("--heads", "5"), {"say 2 heads", "asked for are 5"});
  check_refused(box, change("--threads", "-2"), {"--threads -2"});
}

TEST_CASE("an attribution that there is not is told with those there are", "[cli]") {
  const golden_files files;
  check_refused(files.box, files.attribute("best"), {"'best'", "grad_lrp", "rollout"});
  auto args = files.attribute();
  args.push_back("--start-layer=9");
  check_refused(files.box, args, {"start layer 9", "2 blocks"});
  args.back() = "--start-layer=-1";
  check_refused(files.box, args, {"start layer -1"});
  args.back() = "--target=best";
  check_refused(files.box, args, {"target 'best'", "argmax", "label"});
}

TEST_CASE("every part that the command line names is the one that works", "[cli]") {
  const sandbox box;
  const auto model_of = [&](const options& parts) {
    auto arguments = small_sequence(box / "run");
    for (const auto& [name, value] : parts) arguments[name] = value;
    run_well(box, with("sequence", arguments));
    auto file = cts::load_safetensors(box.path / "run" / "model.safetensors");
    fs::remove_all(box.path / "run");
    return file.arrays;
  };
  const auto usual = model_of({});
  CHECK(model_of({}) == usual);
  for (const options& parts :
       {options{{"--objective", "ace:equal_footing=false"}}, options{{"--objective", "sum"}},
        options{{"--rule", "top"}}, options{{"--rule", "surely:weighted=false"}}, options{{"--codec", "dct:quality=5"}},
        options{{"--select", "random"}}, options{{"--attribute", "rollout"}}, options{{"--memory", "coded-coreset"}}}) {
    INFO(parts.begin()->first << " " << parts.begin()->second);
    CHECK_FALSE(model_of(parts) == usual);
  }
}

}  // namespace cli_models_tests
