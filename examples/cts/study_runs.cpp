// Runs of a study in their folders: what is there, what is still to do, what is kept.

#include <algorithm>
#include <new>

#include "core_tokensets/io/atomic_folder.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/report/sequence_report.hpp"
#include "study.hpp"

namespace cts_command {

namespace cts = core_tokensets;
namespace fs = std::filesystem;

namespace {

/// What a folder of a run holds beside what `cts sequence` writes: its words, and why it was not possible.
constexpr const char *words_file = "command.json", *refusal_file = "not_possible.txt";

fs::path folder_of(const study_run& run) { return run.arguments.out; }

/// Files that begin with a point are what is left of a program that was killed while it wrote.
bool holds_files(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().front() != '.') return true;
  }
  return false;
}

std::string words_between(const std::vector<std::string>& words, std::size_t first, std::size_t last) {
  std::string all;
  for (std::size_t i = first; i < last; ++i) all += (all.empty() ? "" : " ") + words[i];
  return all.empty() ? "nothing" : "'" + all + "'";
}

/// "'--epochs 2' was there, now it is '--epochs 3'": what differs between two command lines.
std::string difference(const std::vector<std::string>& was, const std::vector<std::string>& now) {
  std::size_t first = 0, after = 0;
  const std::size_t shorter = std::min(was.size(), now.size());
  while (first < shorter && was[first] == now[first]) ++first;
  while (after < shorter - first && was[was.size() - 1 - after] == now[now.size() - 1 - after]) ++after;
  if (first > 0 && was[first - 1].starts_with("--")) --first;  // a value says little without its option
  return words_between(was, first, was.size() - after) + " was there, now it is " +
         words_between(now, first, now.size() - after);
}

/// Results as far as the study needs them.
cts::json read_results(const fs::path& file) {
  const cts::json all = cts::parse_json(cts::read_text(file), file.string());
  cts::json kept;
  for (const char* key : {"average_accuracy", "average_incremental_accuracy", "forgetting", "memory_bytes",
                          "memory_samples", "memory_tokens", "budget_bytes", "seconds"}) {
    cts::require(all.contains(key), file.string(), ": '", key, "' is missing");
    kept[key] = all.at(key);
  }
  return kept;
}

bool is_large(const fs::path& file) {
  const std::string ending = file.extension().string();
  return ending == ".safetensors" || ending == ".tmp" || file.filename() == "learner.json";
}

}  // namespace

double study_outcome::seconds() const {
  double sum = 0;
  if (!results) return sum;
  for (const auto& [name, seconds] : results->at("seconds").items()) sum += seconds.get<double>();
  return sum;
}

study_outcome outcome_on_disk(study_run& run, bool overwrite) {
  return cts::with_file_errors([&]() -> study_outcome {
    const fs::path folder = folder_of(run), words = folder / words_file;
    if (!holds_files(folder)) return {};
    if (!fs::exists(words)) {
      cts::require(overwrite, folder.string(), ": holds files that cts study did not write; choose another --out");
      run.stale = true;
      return {};
    }
    const auto was = cts::parse_json(cts::read_text(words), words.string()).get<std::vector<std::string>>();
    if (was != run.words) {
      cts::require(overwrite, folder.string(), ": made by another command line: ", difference(was, run.words),
                   "; choose another --out, or run such runs anew with --overwrite");
      run.stale = true;
      return {};
    }
    if (fs::exists(folder / "results.json")) return {read_results(folder / "results.json"), {}};
    if (fs::exists(folder / refusal_file)) return {{}, cts::read_text(folder / refusal_file)};
    return {};
  });
}

study_outcome execute(const study_run& run) {
  const fs::path folder = folder_of(run);
  if (run.stale) cts::with_file_errors([&] { fs::remove_all(folder); });
  cts::detail::make_folders(folder);
  cts::write_file(folder / words_file, std::string_view(cts::json(run.words).dump(1)));
  try {
    cts::with_file_errors([&] { run_sequence(run.arguments); });
  } catch (const std::bad_alloc&) {
    cts::fail("out of memory (in ", run.command(), ")");
  } catch (const cts::budget_error& error) {  // a result of the study, and no mistake in it
    cts::write_file(folder / refusal_file, std::string_view(error.what()));
    return {{}, error.what()};
  } catch (const cts::Error& error) {
    cts::fail(error.what(), " (in ", run.command(), ")");
  }
  return {read_results(folder / "results.json"), {}};
}

void remove_large_files(const study_run& run) {
  cts::with_file_errors([&] {
    const fs::path folder = folder_of(run);
    std::vector<fs::path> large;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (is_large(entry.path())) large.push_back(entry.path());
    }
    if (large.empty()) return;
    // The page first: as long as there are large files it is known that this was not finished.
    const fs::path results = folder / "results.json";
    if (fs::exists(results))
      cts::write_report(folder / "report.html",
                        cts::sequence_page(cts::parse_json(cts::read_text(results), results.string()), {}));
    for (const auto& file : large) fs::remove(file);
  });
}

}  // namespace cts_command
