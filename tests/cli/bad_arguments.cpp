// cts sequence with arguments that make no sense: each is told in one line, and nothing is left behind.

#include <nlohmann/json.hpp>

#include "cli/support.hpp"
#include "support/golden.hpp"

namespace cli_bad_arguments_tests {

using namespace cli_test;

namespace {

using options = std::map<std::string, std::string>;

struct mistake {
  options changes;
  std::vector<std::string> told;
};

void check_mistakes(const sandbox& box, const std::vector<mistake>& mistakes) {
  for (const auto& m : mistakes) check_refused(box, with("sequence", small_sequence(box / "out"), m.changes), m.told);
}

}  // namespace

TEST_CASE("unknown names list what there is", "[cli]") {
  const sandbox box;
  check_mistakes(box, {{{{"--memory", "most"}}, {"'most'", "core-tokenset", "ncm"}},
                       {{{"--select", "best"}}, {"'best'", "random", "grad_match"}},
                       {{{"--backend", "best"}}, {"'best'", "eigen"}},
                       {{{"--attribute", "best"}}, {"'best'", "rollout", "grad_lrp"}},
                       {{{"--data", "photos"}}, {"'photos'", "scenes", "folder:DIR"}},
                       {{{"--data", "scenes:here"}}, {"'scenes:here'"}},
                       {{{"--data", "folder"}}, {"'folder'", "folder:DIR"}},
                       {{{"--data", "idx:"}}, {"'idx:'", "idx:DIR"}},
                       {{{"--missing", "gone"}}, {"--missing", "gone", "drop", "zero"}},
                       {{{"--objective", "mean"}}, {"--objective", "'mean'", "sum", "ace", "distilled"}},
                       {{{"--objective", "ace:smooth=1"}}, {"--objective", "'smooth'", "smoothing"}},
                       {{{"--rule", "best"}}, {"--rule", "'best'", "top", "random"}},
                       {{{"--rule", "surely:sure=2"}}, {"surely", "sure 2", "0 to 1"}},
                       {{{"--codec", "jpeg"}}, {"--codec", "'jpeg'", "dct", "lossless", "raw"}},
                       {{{"--codec", "dct:quality=0"}}, {"quality 0", "1 to 100"}},
                       {{{"--codec", "jpeg"}, {"--memory", "coreset"}}, {"--codec", "'jpeg'"}},
                       {{{"--objective", "ace:equal_footing=perhaps"}}, {"equal_footing", "'perhaps'"}},
                       {{{"--optimiser", "adam"}}, {"--optimiser", "'adam'", "adamw", "sgd"}},
                       {{{"--coreset-price", "free"}}, {"--coreset-price", "source", "raw"}},
                       {{{"--wieghts", "w"}}, {"--wieghts"}}});
  check_refused(box, {"nonsense"}, {"'nonsense'", "predict", "sequence", "memory"});
  check_refused(box, {"memory", "nonsense", "file"}, {"'nonsense'", "info", "verify", "export"});
  check_refused(box, {}, {"subcommand"});
  check_refused(box, {"sequence"}, {"--out"});
  check_refused(box, {"sequence", "--out", ""}, {"--out ''", "folder"});
  check_refused(box, {"predict"}, {"--weights"});
  const auto help = run_well(box, {"--help"});
  CHECK(help.out.find("sequence") != std::string::npos);
}

TEST_CASE("numbers outside of their range are told with what was expected", "[cli]") {
  const sandbox box;
  check_mistakes(box, {{{{"--keep", "0"}}, {"--keep 0", "more than 0"}},
                       {{{"--keep", "2"}}, {"--keep 2", "at most 1"}},
                       {{{"--keep", "nan"}}, {"--keep nan"}},
                       {{{"--keep", "a lot"}}, {"--keep", "a lot"}},
                       {{{"--per-class", "-5"}}, {"--per-class -5"}},
                       {{{"--image", "-16"}}, {"--image -16"}},
                       {{{"--image", "8"}}, {"side 8", "16 to 1024"}},
                       {{{"--patch", "-4"}}, {"--patch -4"}},
                       {{{"--patch", "5"}}, {"16 x 16", "patches of 5"}},
                       {{{"--dim", "-16"}}, {"--dim -16"}},
                       {{{"--dim", "15"}}, {"15 channels", "2 heads"}},
                       {{{"--heads", "-1"}}, {"--heads -1"}},
                       {{{"--depth", "-1"}}, {"--depth -1", "1 to 1024"}},
                       {{{"--dim", "100000000000"}}, {"--dim 100000000000", "1 to 65536"}},
                       {{{"--per-class", "100000000000"}}, {"--per-class"}},
                       {{{"--depth", "1000000000"}}, {"--depth"}},
                       {{{"--batch", "100000000000"}}, {"--batch"}},
                       {{{"--threads", "1000000"}}, {"--threads"}},
                       {{{"--epochs", "0"}}, {"--epochs 0"}},
                       {{{"--batch", "-8"}}, {"--batch -8"}},
                       {{{"--threads", "-1"}}, {"--threads -1"}},
                       {{{"--seed", "-1"}}, {"--seed", "-1"}},
                       {{{"--seed", "0.5"}}, {"--seed", "0.5"}},
                       {{{"--token-drop", "1"}}, {"--token-drop 1"}},
                       {{{"--token-drop", "nan"}}, {"--token-drop nan"}},
                       {{{"--token-drop-often", "1.5"}}, {"--token-drop-often 1.5"}},
                       {{{"--optimiser", "adamw:learning_rate=-1"}}, {"learning_rate", "-1"}},
                       {{{"--optimiser", "sgd:momentum=x"}}, {"momentum", "'x'"}},
                       {{{"--optimiser", "adamw:learning_rate=nan"}}, {"learning_rate", "nan"}},
                       {{{"--first", "-1"}}, {"--first -1"}},
                       {{{"--increment", "-1"}}, {"--increment -1"}},
                       {{{"--first", "9"}, {"--increment", "1"}}, {"first task of 9"}},
                       {{{"--order", "unicorn"}}, {"'unicorn'", "no class"}},
                       {{{"--classes", "9-3"}}, {"'9-3'", "A-B"}},
                       {{{"--classes", "a-b"}}, {"'a-b'", "A-B"}},
                       {{{"--classes", "0-99"}}, {"0-99", "0-9"}},
                       {{{"--tasks", "3"}}, {"4 classes", "3 tasks"}},
                       {{{"--tasks", "0"}}, {"--tasks 0", "expected 1"}}});
}

#ifndef __SANITIZE_ADDRESS__  // it ends the program where there is no memory
TEST_CASE("a model that no machine can hold is told", "[cli]") {
  const sandbox box;
  check_mistakes(box, {{{{"--dim", "65536"}, {"--depth", "1024"}, {"--heads", "1"}}, {"out of memory"}}});
}
#endif

TEST_CASE("budgets that make no sense or hold no token are told", "[cli]") {
  const sandbox box;
  check_mistakes(box, {{{{"--budget", "12XB"}}, {"'12XB'", "'XB'", "KiB"}},
                       {{{"--budget", "much"}}, {"'much'", "64KiB"}},
                       {{{"--budget", "-5"}}, {"'-5'", "more than 0"}},
                       {{{"--budget", "0"}}, {"'0'", "more than 0"}},
                       {{{"--budget", "2"}}, {"'2'", "at most 1"}},
                       {{{"--budget", "nan"}}, {"'nan'"}},
                       {{{"--budget", "100B"}}, {"budget", "100 bytes hold nothing", "bytes would do"}},
                       {{{"--budget", "100B"}, {"--memory", "coreset"}}, {"budget", "100 bytes hold nothing"}},
                       {{{"--budget", "2KiB/pupil"}}, {"'pupil'", "class"}},
                       {{{"--budget", "1%/class"}}, {"fraction", "expected bytes"}}});
}

TEST_CASE("a model that does not fit the pictures is told", "[cli]") {
  const sandbox box;
  const auto golden_case = golden::folder("vit_c");
  check_mistakes(box, {{{{"--weights", box / "nowhere"}}, {box / "nowhere", "No such file"}},
                       {{{"--weights", golden_case / "weights.safetensors"}}, {"16 x 16 x 1", "16 x 16 x 3"}},
                       {{{"--weights", golden_case / "inputs.safetensors"}}, {"inputs.safetensors", "patch_embed"}}});
}

TEST_CASE("weights that do not say their heads are started from by --heads", "[cli]") {
  const sandbox box;
  run_well(box, with("sequence", small_sequence(box / "first")));
  auto file = cts::load_safetensors(box.path / "first" / "model.safetensors");
  file.metadata.clear();
  cts::save_safetensors(box.path / "plain", file);
  auto next = small_sequence(box / "next");
  next["--overwrite"] = "";
  next["--weights"] = box / "plain";
  run_well(box, with("sequence", next));
  const auto results = nlohmann::json::parse(cts::read_text(box.path / "next" / "results.json"));
  CHECK(results["config"]["heads"] == 2);
  next.erase("--heads");
  check_refused(box, with("sequence", next), {"plain", "--heads"});
  next["--weights"] = box / "first/model.safetensors";  // says that it has two
  run_well(box, with("sequence", next));
  const auto model = [&] { return cts::load_safetensors(box.path / "next" / "model.safetensors"); };
  const auto head = model().at("head.weight").bytes;
  next["--optimiser"] = "adamw:learning_rate=1e-30";  // the fresh head as it was drawn
  run_well(box, with("sequence", next));
  const auto drawn = model().at("head.weight").bytes;
  next["--seed"] = "1";
  run_well(box, with("sequence", next));
  CHECK(model().at("head.weight").bytes != drawn);
  CHECK(head != drawn);
  next["--heads"] = "4";
  check_refused(box, with("sequence", next), {"model.safetensors", "2 heads", "4"});
}

TEST_CASE("options that have no meaning for the data are told", "[cli]") {
  const sandbox box;
  check_mistakes(box, {{{{"--task", "vqa"}}, {"--classes", "--pictures"}},
                       {{{"--data", "cifar:" + (box / "data")}, {"--image", "16"}}, {"--image 16", "as they are"}}});
}

TEST_CASE("a folder that may not be read is told", "[cli]") {
  if (::geteuid() == 0) return;  // who may read everything
  const sandbox box;
  fs::create_directories(box.path / "data/train/a");
  fs::permissions(box.path / "data/train", fs::perms::none);
  check_mistakes(box, {{{{"--data", "folder:" + (box / "data")}}, {"Permission denied"}}});
  fs::permissions(box.path / "data/train", fs::perms::owner_all);
}

TEST_CASE("a loss that is not a number ends the run", "[cli]") {
  const sandbox box;
  check_mistakes(
      box, {{{{"--optimiser", "adamw:learning_rate=1e30"}, {"--epochs", "4"}}, {"loss is", "nan", "learning rate"}}});
}

TEST_CASE("a folder that cannot be written is told before any work", "[cli]") {
  const sandbox box;
  cts::write_file(box.path / "file", std::string_view("in the way"));
  options slow = small_sequence("");
  slow["--epochs"] = "1000000";  // would take days
  slow["--per-class"] = "1000";
  for (const std::string& out :
       {box / "file", box / "file/below/it", std::string("/proc"), std::string("/proc/none")}) {
    slow["--out"] = out;
    check_refused(box, with("sequence", slow), {out});
  }
}

}  // namespace cli_bad_arguments_tests
