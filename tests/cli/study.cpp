// cts study: a plan is checked before the first run, killed and resumed to the same numbers, and refused where it
// changed.

#include <chrono>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "cli/support.hpp"

namespace cli_study_tests {

using namespace cli_test;
using nlohmann::json;

namespace {

/// Two memories at two budgets and joint training, with two seeds: ten runs of moments.
json small_plan() {
  return {{"title", "A <small> study"},
          {"about", "Of two tasks."},
          {"arguments", "--image 16 --per-class 8 --classes 0-3 --tasks 2 --patch 4 --dim 32 --depth 1 --heads 2"},
          {"data", {{{"name", "Scenes & more"}, {"arguments", "--data \"scenes\" --epochs 1 --dim 16"}}}},
          {"budgets", {"0.1", "4KiB"}},
          {"memories",
           {{{"name", "tokens"}, {"arguments", "--memory core-tokens"}},
            {{"name", "whole, quality 20"}, {"arguments", "--memory coded-coreset --dim 8"}},
            {{"name", "joint"}, {"arguments", "--memory joint"}, {"any_budget", true}}}},
          {"seeds", {0, 7}},
          {"ours", "tokens"},
          {"multiples_of", {"whole, quality 20"}}};
}

arguments study(const sandbox& box, const json& plan, const std::string& out, const arguments& more = {}) {
  const std::string file = box.root / "plan.json";
  cts::write_file(file, std::string_view(plan.dump(1)));
  arguments args{"study", file, "--out", box / out};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

json study_of(const sandbox& box, const std::string& out) {
  return json::parse(cts::read_text(box.path / out / "study.json"));
}

/// A study without times, its folder written as `OUT`.
json without_times(const sandbox& box, const std::string& out) {
  json all = study_of(box, out);
  for (auto& data : all["data"]) {
    for (auto& row : data["rows"]) {
      for (auto& seed : row["seeds"]) {
        seed.erase("seconds");
        std::string command = seed["command"];
        const auto at = command.find(box / out);
        REQUIRE(at != std::string::npos);
        seed["command"] = command.replace(at, (box / out).size(), "OUT");
      }
    }
  }
  return all;
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

arguments words_of(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), {}};
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a study holds every run, what follows from them, and a page", "[cli][study]") {
  const sandbox box;
  const auto printed = run_well(box, study(box, small_plan(), "out")).out;
  CHECK(holds(printed, "10 of 10  Scenes & more, joint, seed 7: "));
  CHECK(holds(printed, "tokens minus"));
  const json all = study_of(box, "out");
  CHECK(all["runs"] == json{{"planned", 10}, {"done", 10}, {"not_possible", 0}});
  const json& data = all["data"][0];
  REQUIRE(data["rows"].size() == 5);
  for (const auto& row : data["rows"]) {
    INFO(row.dump());
    const double a = row["seeds"][0]["accuracy"], b = row["seeds"][1]["accuracy"];
    CHECK(row["accuracy"]["mean"].get<double>() == Approx((a + b) / 2));
    CHECK(row["accuracy"]["deviation"].get<double>() == Approx(std::abs(a - b) / std::sqrt(2.0)));
    CHECK(row["budget"].is_null() == (row["memory"] == "joint"));
    CHECK(row["budget_bytes"].is_null() == (row["memory"] == "joint"));
  }
  // Ours minus the others, at each budget, joint training at each of them, too.
  REQUIRE(data["differences"].size() == 4);
  const auto seeds = [&](std::size_t row) -> const json& { return data["rows"][row]["seeds"]; };
  const double first = seeds(0)[0]["accuracy"].get<double>() - seeds(1)[0]["accuracy"].get<double>();
  const double second = seeds(0)[1]["accuracy"].get<double>() - seeds(1)[1]["accuracy"].get<double>();
  CHECK(data["differences"][0]["memory"] == "whole, quality 20");
  CHECK(data["differences"][0]["mean"].get<double>() == Approx((first + second) / 2).margin(1e-12));
  CHECK(data["differences"][0]["ahead"] == (first > 0) + (second > 0));
  CHECK(data["multiples"].size() == 2);

  // The memory's options count over those of the data, and these over the common ones.
  const auto config = [&](const std::string& run) {
    return json::parse(cts::read_text(box.path / "out/runs/scenes-more" / run / "results.json"))["config"];
  };
  CHECK(config("0.1/tokens/7")["dim"] == 16);
  CHECK(config("0.1/whole-quality-20/7")["dim"] == 8);
  CHECK(config("4kib/tokens/7")["seed"] == 7);
  CHECK(config("any/joint/0")["dim"] == 16);
  const auto kept = std::set<std::string>{"command.json", "report.html", "results.json"};
  CHECK(names_in(box.path / "out/runs/scenes-more/4kib/tokens/0") == kept);

  const std::string page = cts::read_text(box.path / "out/study.html");
  for (const char* part : {"A &lt;small&gt; study", "Of two tasks.", "Scenes &amp; more", "class=\"whisker",
                           "line level", "cts sequence --image 16", "10 of 10"}) {
    INFO(part);
    CHECK(holds(page, part));
  }
  CHECK_FALSE(holds(page, "Missing results"));

  // Once more: nothing is to do, and nothing changes.
  const auto before = box.listing();
  CHECK(holds(run_well(box, study(box, small_plan(), "out")).out, "10 done before"));
  CHECK(box.listing() == before);
}

TEST_CASE("a study that is killed in the middle goes on to the same numbers", "[cli][study]") {
  const sandbox box;
  run_well(box, study(box, small_plan(), "whole"));
  int interrupted = 0;
  for (const char* last : {"0.1/tokens/0", "any/joint/0", "0.1/whole-quality-20/7"}) {
    INFO("killed in " << last);
    fs::remove_all(box.path / "out");
    const pid_t child = start(box, study(box, small_plan(), "out"));
    for (int i = 0; i < 60'000 && !fs::exists(box.path / "out/runs/scenes-more" / last / "command.json"); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ::kill(child, SIGKILL);
    wait_for(box, child);
    if (study_of(box, "out")["runs"]["done"] < 10) {  // always, unless this program had to wait for the processor
      ++interrupted;
      CHECK(holds(cts::read_text(box.path / "out/study.html"), "Missing results"));
    }
    run_well(box, study(box, small_plan(), "out"));
    CHECK(without_times(box, "out") == without_times(box, "whole"));
  }
  CHECK(interrupted >= 1);
}

TEST_CASE("runs of another command line are refused, or run anew when asked for", "[cli][study]") {
  const sandbox box;
  json plan = small_plan();
  plan["budgets"] = {"4KiB"};
  plan["seeds"] = {0};
  run_well(box, study(box, plan, "out"));
  json changed = plan;
  changed["memories"][1]["arguments"] = "--memory coded-coreset --dim 12 --heads 1";
  check_refused(box, study(box, changed, "out"),
                {box / "out/runs/scenes-more/4kib/whole-quality-20/0",
                 "'--dim 8' was there, now it is '--dim 12 --heads 1'", "--overwrite"});
  const auto printed = run_well(box, study(box, changed, "out", {"--overwrite"})).out;
  CHECK(holds(printed, "2 done before"));  // the others are as they were
  const auto results = box.path / "out/runs/scenes-more/4kib/whole-quality-20/0/results.json";
  CHECK(json::parse(cts::read_text(results))["config"]["dim"] == 12);

  // Another seed is a run more, no other command line.
  changed["seeds"] = {3, 0};
  CHECK(holds(run_well(box, study(box, changed, "out")).out, "3 done before"));

  fs::create_directories(box.path / "other/runs/scenes-more/4kib/tokens/0");
  cts::write_file(box.path / "other/runs/scenes-more/4kib/tokens/0/notes.txt", std::string_view("mine"));
  check_refused(box, study(box, plan, "other"), {"other/runs/scenes-more/4kib/tokens/0", "did not write"});
}

TEST_CASE("a budget that holds nothing is a result, another error ends the study", "[cli][study]") {
  const sandbox box;
  json plan = small_plan();
  plan["budgets"] = {"100B", "8KiB"};
  plan["seeds"] = {0};
  plan["memories"].push_back({{"name", "raw"}, {"arguments", "--memory coreset --coreset-price raw"}});
  const auto printed = run_well(box, study(box, plan, "out", {"--keep-files"})).out;
  CHECK(holds(printed, "100B, tokens, seed 0: not possible: "));
  CHECK(holds(printed, "100B, raw, seed 0: not possible: "));
  const json all = study_of(box, "out");
  CHECK(all["runs"] == json{{"planned", 7}, {"done", 7}, {"not_possible", 3}});
  const json& row = all["data"][0]["rows"][0];
  CHECK(row["accuracy"].is_null());
  CHECK(holds(row["seeds"][0]["not_possible"], "hold nothing"));
  CHECK(holds(cts::read_text(box.path / "out/study.html"), "Missing results"));
  CHECK(fs::exists(box.path / "out/runs/scenes-more/8kib/tokens/0/model.safetensors"));
  CHECK(holds(run_well(box, study(box, plan, "out")).out, "7 done before"));
  CHECK_FALSE(fs::exists(box.path / "out/runs/scenes-more/8kib/tokens/0/model.safetensors"));

  plan["memories"][1]["arguments"] = "--memory coded-coreset --epochs 4 --optimiser adamw:learning_rate=1e30";
  const auto failed = run(box, study(box, plan, "failed"));
  CHECK(failed.code == 2);
  for (const char* part : {"loss is", "cts sequence --image 16", "learning_rate=1e30"}) CHECK(holds(failed.err, part));
  // Refused before training: all three at 100 bytes; then tokens at 8 KiB, and the failure.
  CHECK(study_of(box, "failed")["runs"] == json{{"planned", 7}, {"done", 4}, {"not_possible", 3}});
}

TEST_CASE("a dry run prints command lines that do what the study does", "[cli][study]") {
  const sandbox box;
  json plan = small_plan();
  plan["data"][0]["arguments"] = "--data ${WHICH} --epochs 1";
  const auto before = box.listing();
  const auto lines =
      lines_of(run_well(box, study(box, plan, "out", {"--dry-run", "--set", "WHICH=scenes:shapes"})).out);
  CHECK(box.listing() == before);
  REQUIRE(lines.size() == 10);
  for (std::size_t i = 0; i < 10; ++i)
    CHECK(holds(lines[i], i < 5 ? " --seed 0 " : " --seed 7 "));  // whole seeds one after the other
  auto words = words_of(lines[0]);
  REQUIRE(words.at(0) == "cts");
  words.erase(words.begin());
  words.back() = box / "alone";
  words.push_back("--quiet");
  run_well(box, words);
  run_well(box, study(box, plan, "out", {"--set", "WHICH=scenes:shapes"}));
  const json alone = json::parse(cts::read_text(box.path / "alone/results.json"));
  const json of_study = json::parse(cts::read_text(box.path / "out/runs/scenes-more/0.1/tokens/0/results.json"));
  CHECK(alone["accuracy"] == of_study["accuracy"]);
  CHECK(alone["memory_bytes"] == of_study["memory_bytes"]);

  check_refused(box, study(box, plan, "new"), {"${WHICH}", "--set WHICH=VALUE"});
  check_refused(box, study(box, plan, "new", {"--set", "WHICH=scenes", "--set", "MORE=1"}),
                {"--set MORE=1", "${MORE}"});
  check_refused(box, study(box, plan, "new", {"--set", "WHICH"}), {"--set 'WHICH'", "NAME=VALUE"});
}

TEST_CASE("the plans that come with the library are sound", "[cli][study]") {
  const sandbox box;
  cts::write_file(box.path / "weights", std::string_view("of some model"));
  int plans = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(CTS_TEST_DIR) / "../examples/studies")) {
    arguments args{"study", entry.path().string(), "--out", box / "out", "--dry-run"};
    if (entry.path().filename() == "photographs.json")
      args.insert(args.end(), {"--set", "DATA=" + box.path.string(), "--set", "WEIGHTS=" + (box / "weights")});
    if (entry.path().filename() == "questions.json")
      args.insert(args.end(), {"--set", "EASY_VQA=" + box.path.string()});
    if (entry.path().filename() == "pictures.json") args.insert(args.end(), {"--set", "PICTURES=" + box.path.string()});
    CHECK(lines_of(run_well(box, args).out).size() >= 40);
    ++plans;
  }
  CHECK(plans >= 6);
}

TEST_CASE("a plan that makes no sense is told before anything is done", "[cli][study]") {
  const sandbox box;
  const auto refused = [&](const std::string& path, const json& value, const std::vector<std::string>& told) {
    json plan = small_plan();
    plan[json::json_pointer(path)] = value;
    check_refused(box, study(box, plan, "out"), told);
  };
  refused("/colour", "red", {"plan.json", "unknown key 'colour'", "title, about"});
  refused("/memories/1/any_buget", true, {"memories[1]", "unknown key 'any_buget'", "any_budget"});
  refused("/memories/1/any_budget", "yes", {"memories[1]", "'any_budget'", "string", "true or false"});
  refused("/title", 3, {"plan.json", "'title'", "number", "string"});
  refused("/seeds", json::array(), {"'seeds' is empty"});
  refused("/seeds/1", 0, {"seed 0", "twice"});
  refused("/seeds/1", -1, {"seeds[1] is -1", "from 0 on"});
  refused("/seeds/1", 0.5, {"seeds[1] is 0.5"});
  refused("/budgets/1", "0.1", {"'0.1' twice"});
  refused("/budgets/1", "10%", {"budgets[1]", "'0.1' and '10%'", "the same"});
  refused("/budgets/1", "much", {"budgets[1]", "'much'"});
  refused("/budgets/1", 4096, {"'budgets'", "number", "strings"});
  refused("/memories/1/name", "tokens", {"memories[1]", "'tokens'", "twice"});
  refused("/memories/1/name", "Tokens!", {"memories[1]", "'Tokens!'", "'tokens'", "same folder"});
  refused("/memories/1/name", "..", {"memories[1]", "'..'", "folder"});
  refused("/memories/1", "tokens", {"memories[1]", "string", "an object"});
  refused("/ours", "best", {"'ours'", "'best'", "none of the memories"});
  refused("/ours", "joint", {"'ours'", "'joint'", "does not depend"});
  refused("/multiples_of/0", "joint", {"'multiples_of'", "'joint'"});
  refused("/multiples_of/0", "tokens", {"'multiples_of'", "'tokens'", "itself"});
  // What cts sequence would refuse, in the last run as in the first.
  refused("/memories/2/arguments", "--memory joint --epoch 3", {"joint, seed 0", "--epoch"});
  refused("/memories/2/arguments", "--memory most", {"joint, seed 0", "'most'", "core-tokenset"});
  refused("/memories/1/arguments", "--codec jpeg", {"whole, quality 20, seed 0", "'jpeg'", "dct"});
  refused("/arguments", "--weights nowhere.safetensors", {"nowhere.safetensors", "No such file"});
  refused("/arguments", "--dim \"3", {"quote", "--dim"});
  refused("/data/0/arguments", "--data folder:nowhere", {"folder:nowhere", "there is no folder"});
  refused("/data/0/arguments", "--data folder:${HERE", {"${HERE", "'}'"});
  for (const char* own : {"--seed 3", "--out here", "--budget 1KiB", "--resume"})
    refused("/memories/0/arguments", own, {"tokens, seed 0", words_of(own)[0], "set by the study"});
  cts::write_file(box.root / "text", std::string_view("{"));
  check_refused(box, {"study", (box.root / "text").string(), "--out", box / "out"}, {"text", "JSON"});
  check_refused(box, {"study", box / "no.json", "--out", box / "out"}, {"no.json", "No such file"});
  check_refused(box, {"study", box / "no.json"}, {"--out"});
}

}  // namespace cli_study_tests
