// Questions and captions on the command line: a sequence, its memory, questions to its model, and bad input.

#include <nlohmann/json.hpp>

#include "cli/support.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "support/golden.hpp"

namespace cli_text_tests {

using namespace cli_test;

namespace {

/// A sequence that takes a second.
arguments quick(const std::string& task, const std::string& out) {
  return {"sequence",
          "--task",
          task,
          "--data",
          "scenes",
          "--pictures",
          "24",
          "--test-pictures",
          "12",
          "--image",
          "32",
          "--patch",
          "16",
          "--dim",
          "16",
          "--depth",
          "1",
          "--heads",
          "2",
          "--text-depth",
          "1",
          "--epochs",
          "1",
          "--tasks",
          "2",
          "--memory",
          "core-tokens",
          "--select",
          "random",
          "--attribute",
          "generic_attention",
          "--budget",
          "40KiB",
          "--quiet",
          "--out",
          out};
}

arguments with(arguments args, const arguments& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

}  // namespace

TEST_CASE("questions are learnt task after task, kept, and asked", "[cli][text]") {
  const sandbox box;
  run_well(box, quick("vqa", box / "run"));
  const auto results = nlohmann::json::parse(cts::read_text(box.path / "run" / "results.json"));
  CHECK(results["accuracy"].size() == 2);
  CHECK(results["accuracy"][1].size() == 2);
  CHECK(results["measures"]["exact_match"][1].size() == 2);
  CHECK(results["task_names"].size() == 2);
  CHECK(results["memory_samples"].get<int>() > 0);
  CHECK(results["config"]["task"] == "vqa");
  CHECK(results["settings"]["strategy"].get<std::string>().find("core-tokenset:keep=0.5") == 0);
  CHECK(fs::exists(box.path / "run" / "report.html"));
  const auto memory = cts::load_token_memory(box.path / "run" / "memory.safetensors");
  CHECK(memory.format().texts);
  CHECK_FALSE(memory.sample(0).prompt.empty());
  run_well(box, {"memory", "verify", box / "run/memory.safetensors"});
  run_well(box, {"memory", "export", box / "run/memory.safetensors", "--out", box / "exported"});
  const auto samples = nlohmann::json::parse(cts::read_text(box.path / "exported" / "samples.json"));
  CHECK(samples["samples"][0]["prompt"] == std::string(memory.sample(0).prompt));

  cts::write_png(box.path / "picture.png", cts::image(50, 70, 3, 90));
  const arguments ask{"ask", "--model", box / "run", "--image", box / "picture.png"};
  const auto answer = run_well(box, with(ask, {"--out", box / "where.png", "how many circles are there?"}));
  CHECK(std::count(answer.out.begin(), answer.out.end(), '\n') == 1);
  CHECK(cts::read_image(box.path / "where.png").width > 64);
  CHECK(run_well(box, with(ask, {"--beams", "3", "--method", "grad_lrp", "is it red?"})).out.size() >= 1);

  check_refused(box, with(ask, {"--method", "rollout", "is it red?"}), {"rollout", "generic_attention"});
  check_refused(box, with(ask, {"--beams", "0", "is it red?"}), {"--beams"});
  check_refused(box, ask, {"question"});
  check_refused(box,
                {"ask", "--model", (golden::folder("vit_c") / "weights.safetensors").string(), "--image",
                 box / "picture.png", "a?"},
                {"tokenizer"});
  check_refused(box, {"caption", "--model", box / "run/model.safetensors", "--image", box / "no.png"}, {"no.png"});
  // The model has seen pictures of 32 x 32, and has its tokenizer.
  auto other_size = quick("vqa", box / "other");
  *(std::find(other_size.begin(), other_size.end(), "--image") + 1) = "16";
  check_refused(box, with(other_size, {"--weights", box / "run/model.safetensors"}), {"32 x 32 x 3", "16 x 16 x 3"});
  auto other_heads = quick("vqa", box / "other");
  *(std::find(other_heads.begin(), other_heads.end(), "--heads") + 1) = "4";
  check_refused(box, with(other_heads, {"--weights", box / "run/model.safetensors"}),
                {"2 heads", "--heads asks for 4"});
  std::string long_question(2000, '?');
  check_refused(box, with(ask, {long_question}), {"tokens"});
}

TEST_CASE("attributions of answers and captions are judged", "[cli][text]") {
  const sandbox box;
  for (const std::string task : {"vqa", "caption"}) {
    run_well(box, quick(task, box / task));
    const arguments judge{"judge",       "--weights", box / (task + "/model.safetensors"),
                          "--task",      task,        "--data",
                          "scenes",      "--samples", "6",
                          "--steps",     "2",         "--sets",
                          "3",           "--quiet",   "--out",
                          box / "j.json"};
    const auto said = run_well(box, with(judge, {"--methods", "generic_attention,gradient_x_input"}));
    CHECK(said.out.find("sufficiency") != std::string::npos);
    CHECK(said.out.find("pointing") == std::string::npos);  // not measured on answers
    const auto table = nlohmann::json::parse(cts::read_text(box.path / "j.json"));
    REQUIRE(table["methods"].size() == 3);
    CHECK(table["methods"][0]["label"] == "random");
    CHECK(table["methods"][1]["measures"]["insertion"]["n"] == 6);
    CHECK(table["explained_class_is_largest"] == 1.0);  // what a model writes greedily is what it thinks most probable
    run_well(box, with(judge, {"--target", "label", "--missing", "zero", "--methods", "attention"}));
    check_refused(box, with(judge, {"--methods", "rollout"}), {"rollout", "generic_attention"});
    check_refused(box, with(judge, {"--target", "margin"}), {"--target", "margin", "argmax"});
    check_refused(box, with(judge, {"--classes", "0-1"}), {"--classes"});
    auto nowhere = judge;
    nowhere.back() = box / "no/such/folder.json";
    nowhere[2] = box / "no-model";  // told even before the model is read
    check_refused(box, nowhere, {"folder.json", "No such file"});
  }
}

TEST_CASE("captions are learnt and written", "[cli][text]") {
  const sandbox box;
  run_well(box, quick("caption", box / "run"));
  const auto results = nlohmann::json::parse(cts::read_text(box.path / "run" / "results.json"));
  CHECK(results["measures"].contains("bleu_4"));
  CHECK(results["measures"].contains("rouge_l"));
  cts::write_png(box.path / "picture.png", cts::image(32, 32, 3, 90));
  run_well(box, {"caption", "--model", box / "run/model.safetensors", "--image", box / "picture.png", "--length", "8"});
}

TEST_CASE("sequences of text refuse what they cannot do", "[cli][text]") {
  const sandbox box;
  const auto refused = [&](const std::string& task, const arguments& more, const std::vector<std::string>& parts) {
    auto args = quick(task, box / "run");
    for (std::size_t i = 0; i < more.size(); i += 2) {  // each option once
      const auto old = std::find(args.begin(), args.end(), more[i]);
      if (old != args.end()) args.erase(old, old + 2);
    }
    check_refused(box, with(args, more), parts);
  };
  refused("vqa", {"--memory", "ncm"}, {"--memory 'ncm'", "--task vqa", "core-tokenset"});
  refused("vqa", {"--data", "cifar:x"}, {"cifar:x"});
  refused("caption", {"--data", "easy-vqa:x"}, {"easy-vqa:x"});
  refused("vqa", {"--data", "easy-vqa:" + box / "nowhere"}, {"nowhere"});
  refused("vqa", {"--data", "scenes,easy-vqa:" + box.path.string()}, {box / "train"});  // of two sets the second
  refused("vqa", {"--vocabulary", "100"}, {"--vocabulary"});
  refused("vqa", {"--budget", "100B"}, {"hold nothing", "bytes would do"});
  refused("vqa", {"--attribute", "rollout"}, {"rollout"});
  refused("poem", {}, {"--task"});
  refused("vqa", {"--flip", "2"}, {"--flip", "2"});
  refused("vqa", {"--shift", "-1"}, {"--shift"});
  refused("vqa", {"--tasks", "0"}, {"--tasks 0"});
  refused("vqa", {"--drop-rule", "x"}, {"--drop-rule"});
}

}  // namespace cli_text_tests
