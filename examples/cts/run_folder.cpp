#include "run_folder.hpp"

#include <signal.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "core_tokensets/train/sequence.hpp"

namespace cts_command {

namespace cts = core_tokensets;
namespace fs = std::filesystem;

namespace {

/// What a run leaves that has ended, and one that has not.
constexpr const char *finished[] = {"results.json", "report.html", "model.safetensors", "memory.safetensors"},
                     *unfinished[] = {"learner.json", cts::half_learnt_file};

void check_no_other_run(const sequence_arguments& a) {
  const fs::path out = a.out;
  if (a.resume || a.overwrite) return;
  cts::require(!fs::exists(out / "results.json"), a.out,
               ": there is a finished run; choose another --out, or replace it with --overwrite");
  for (const char* name : unfinished)
    cts::require(!fs::exists(out / name), a.out, ": there is a run that has not ended (", name,
                 "); go on with --resume, choose another --out, or begin anew with --overwrite");
}

}  // namespace

run_folder::run_folder(const sequence_arguments& a) : path_(a.out), overwrite_(a.overwrite), folder_(a.out) {
  cts::with_file_errors([&] { check_no_other_run(a); });
}

void run_folder::begin(std::ptrdiff_t model_bytes, std::ptrdiff_t memory_bytes) const {
  // A half-learnt task has the parameters and two moments, twice while it is replaced; besides there are the model
  // after the last task, memories and a report.
  const auto bytes = 7 * model_bytes + 3 * memory_bytes + (1 << 20);
  cts::check_space(path_, static_cast<std::uintmax_t>(bytes), "model, memory and what goes on after an interruption");
  if (!overwrite_) return;
  cts::with_file_errors([&] {
    for (const char* name : finished) fs::remove(path_ / name);
    for (const char* name : unfinished) fs::remove(path_ / name);
  });
}

void run_folder::tidy() const {
  cts::with_file_errors([&] {
    std::vector<fs::path> left;
    for (const auto& entry : fs::directory_iterator(path_)) {
      int process = 0, number = 0;
      if (std::sscanf(entry.path().filename().c_str(), ".%d-%d.tmp", &process, &number) == 2 && process > 0 &&
          ::kill(process, 0) != 0 && errno == ESRCH)
        left.push_back(entry.path());
    }
    for (const auto& file : left) fs::remove(file);
  });
}

}  // namespace cts_command
