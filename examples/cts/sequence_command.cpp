// cts sequence: tasks that arrive one after another, with any kind of memory.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

#include "backends.hpp"
#include "busy_machine.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/memory/codecs/token_codecs.hpp"
#include "core_tokensets/memory/token_rules.hpp"
#include "core_tokensets/model/weight_neighbours.hpp"
#include "core_tokensets/report/sequence_report.hpp"
#include "core_tokensets/selection/any_selector.hpp"
#include "core_tokensets/train/objectives/objectives.hpp"
#include "ranks.hpp"
#include "sequence.hpp"

namespace cts_command {

namespace cts = core_tokensets;

void run_classes(const sequence_arguments& a, sequence_outcome& outcome, bool only_check);
void run_texts(const sequence_arguments& a, sequence_outcome& outcome, bool only_check);

task_kind task_of(const sequence_arguments& a) {
  return a.task == "classify" ? task_kind::classify : a.task == "vqa" ? task_kind::vqa : task_kind::caption;
}

std::ptrdiff_t heads_of(const sequence_arguments& a) { return a.heads > 0 ? a.heads : 3; }

data_request request_of(const sequence_arguments& a) {
  return {.sets = a.data,
          .classes = a.classes,
          .task = task_of(a),
          .image = a.image > 0 || a.task == "classify" ? a.image : 64,  // sets are mixed, so texts need one size
          .per_class = a.per_class,
          .pictures = a.pictures,
          .test_pictures = a.test_pictures,
          .seed = a.fit.seed,
          .threads = a.threads,
          .skip_damaged = a.skip_damaged};
}

cts::learner_options learner_options_of(const sequence_arguments& a) {
  cts::learner_options o{.budget = cts::parse_budget(a.budget), .fit = a.fit};
  o.fit.replay_batch = a.fit.batch;
  o.fit.checkpoint.seconds = a.save_every;
  return o;
}

cts::class_incremental_options task_options_of(const sequence_arguments& a) {
  cts::class_incremental_options o{
      .tasks = a.tasks, .first = a.first, .increment = a.increment, .shuffle = a.order == "random", .seed = a.fit.seed};
  if (o.shuffle || a.order.empty()) return o;
  std::stringstream names(a.order);
  for (std::string name; std::getline(names, name, ',');) o.order.push_back(name);
  return o;
}

cts::json config_of(const sequence_arguments& a, const cts::vit_config& model) {
  cts::json config{{"task", a.task},
                   {"data", a.data},
                   {"classes", a.classes},
                   {"per_class", a.per_class},
                   {"image", model.grid.height},
                   {"patch", model.grid.patch},
                   {"dim", model.dim},
                   {"depth", model.depth},
                   {"heads", model.heads},
                   {"tasks", a.tasks},
                   {"first", a.first},
                   {"increment", a.increment},
                   {"order", a.order},
                   {"memory", a.memory},
                   {"budget", a.budget},
                   {"keep", a.recipe.keep},
                   {"weights", a.weights},
                   {"backend", a.backend},
                   {"seed", a.fit.seed}};
  if (a.task != "classify") {
    config.update({{"pictures", a.pictures},
                   {"test_pictures", a.test_pictures},
                   {"text_depth", a.text_depth},
                   {"vocabulary", a.vocabulary},
                   {"beams", a.beams}});
  }
  if (!a.weights.empty()) config["weights_checksum"] = cts::detail::file_checksum(cts::weights_file(a.weights));
  return config;
}

void check(const sequence_arguments& a) {
  const auto within = [](const char* name, auto value, auto low, auto high) {
    cts::require(value >= low && value <= high, name, " ", value, ": expected ", low, " to ", high);
  };
  within("--tasks", a.tasks, 1, 1'000'000);
  within("--first", a.first, 0, 1'000'000);
  within("--increment", a.increment, 0, 1'000'000);
  within("--per-class", a.per_class, 0, 1'000'000'000);
  within("--image", a.image, 0, 65536);
  within("--patch", a.patch, 1, 65536);
  within("--dim", a.dim, 1, 65536);
  within("--depth", a.depth, 1, 1024);
  within("--heads", a.heads, 0, 65536);
  within("--epochs", a.fit.epochs, 1, 1'000'000);
  within("--batch", a.fit.batch, 1, 1'000'000);
  within("--pieces", a.fit.pieces, 0, 1024);
  within("--threads", a.threads, 0, 1024);
  within("--pictures", a.pictures, 0, 1'000'000'000);
  within("--test-pictures", a.test_pictures, 0, 1'000'000'000);
  within("--text-depth", a.text_depth, 1, 1024);
  within("--vocabulary", a.vocabulary, 258, 65536);
  within("--beams", a.beams, 1, 64);
  within("--texts-per-picture", a.fit.texts_per_picture, 1, 1'000'000);
  within("--shift", a.fit.shift, 0, 65536);
  within("--flip", a.fit.flip, 0.0, 1.0);
  within("--token-drop", a.fit.token_drop, 0.0, 0.99);
  within("--token-drop-often", a.fit.token_drop_often, 0.0, 1.0);
  within("--warm-up", a.fit.warm_up, 0.0, 1.0);
  within("--clip", a.fit.clip, 0.0, 1e30);
  within("--backbone-rate", a.fit.backbone_rate, 0.0, 1e6);
  within("--save-every", a.save_every, 0.0, 1e9);
  cts::require(!a.resume || !a.overwrite, "--resume goes on with what is there, --overwrite begins anew: choose one");
  check(a.fit);
  bool known = false;
  std::string all;
  for (const memory_kind& kind : memory_kinds) {
    known = known || (a.memory == kind.name && (kind.texts || a.task == "classify"));
    if (kind.texts || a.task == "classify") all += (all.empty() ? "" : ", ") + std::string(kind.name);
  }
  cts::require(known, "--memory '", a.memory, "': for --task ", a.task, " there are ", all);
  cts::require(a.task == "classify" || (a.classes.empty() && a.per_class == 0),
               "--classes and --per-class choose classes to learn; --task ", a.task, " takes --pictures");
  cts::require(a.task == "classify" || (a.first == 0 && a.increment == 0 && a.order.empty()),
               "--first, --increment and --order cut classes into tasks; --task ", a.task, " takes --tasks");
  cts::require(a.task == "classify" || !a.diagnose, "--diagnose is for --task classify");
  cts::require(a.recipe.keep > 0 && a.recipe.keep <= 1, "--keep ", a.recipe.keep,
               ": expected more than 0 and at most 1");
}

void write_results(const std::filesystem::path& out, const cts::tensor_file& model, const cts::token_memory& memory,
                   const sequence_outcome& outcome) {
  cts::save_safetensors(out / "model.safetensors", model);
  memory.save(out / "memory.safetensors");
  cts::write_report(out / "report.html", cts::sequence_page(outcome.results, outcome.figures));
  cts::write_file(out / "results.json", std::string_view(outcome.results.dump(1)));
}

namespace {

cts::picture_reading found_in(const cts::dataset& train, const cts::dataset& test) {
  auto found = train.reading;
  found += test.reading;
  return found;
}

std::vector<std::string> without_test_pictures(const cts::dataset& test) {
  std::vector<std::string> names;
  for (const auto k : cts::classes_without_pictures(test))
    names.push_back(test.class_names[static_cast<std::size_t>(k)]);
  return names;
}

}  // namespace

void tell_pictures(const cts::dataset& train, const cts::dataset& test) {
  const auto found = found_in(train, test);
  if (found.read > 0) std::printf("%s\n", cts::text_of(found).c_str());
  if (const auto names = without_test_pictures(test); !names.empty())
    std::printf("no test pictures of %s\n", cts::detail::some_names(names, 20).c_str());
  std::fflush(stdout);
}

void add_pictures(cts::json& results, const cts::dataset& train, const cts::dataset& test) {
  const auto found = found_in(train, test);
  if (found.read > 0) results["pictures"] = cts::to_json(found);
  results["classes_without_test_pictures"] = without_test_pictures(test);
}

cts::json not_measured_in_tasks(const cts::task_stream& stream) {
  cts::json found = cts::json::object();
  for (const cts::task& t : stream) {
    if (const auto names = cts::classes_not_measured_in(t); !names.empty()) found[t.name] = names;
  }
  return found;
}

void tell_not_measured(const cts::json& classes_in_tasks) {
  for (const auto& [task, names] : classes_in_tasks.items()) {
    const auto classes = names.get<std::vector<std::string>>();
    std::printf("no test pictures of %s in %s\n", cts::detail::some_names(classes, 20).c_str(), task.c_str());
  }
}

namespace {

sequence_outcome run_or_check(const sequence_arguments& a, bool only_check) {
  check(a);
  sequence_outcome outcome;
  if (a.task == "classify") {
    run_classes(a, outcome, only_check);
  } else {
    run_texts(a, outcome, only_check);
  }
  return outcome;
}

}  // namespace

sequence_outcome run_sequence(const sequence_arguments& given) {
  sequence_arguments a = given;
  if (a.backend != "cuda") a.threads = threads_for(given.threads, given.quiet);
  return run_or_check(a, false);
}

void check_run(const sequence_arguments& a) {
  run_or_check(a, true);
  check_data(request_of(a));
  if (!a.weights.empty()) const cts::file_reader readable(cts::weights_file(a.weights));
}

void print_line(const std::string& name, const cts::json& r) {
  std::printf("%-14s %7.1f %%  %9.1f %%  %10.1f %%  %9td  %8td  %8.1f s\n", name.c_str(),
              100 * r.at("average_accuracy").get<double>(), 100 * r.at("average_incremental_accuracy").get<double>(),
              100 * r.at("forgetting").get<double>(), r.at("memory_bytes").get<std::ptrdiff_t>(),
              r.at("memory_samples").get<std::ptrdiff_t>(), r.at("seconds").at("train").get<double>());
  std::fflush(stdout);
}

void print_heading() {
  std::printf("memory         accuracy  incremental  forgetting      bytes   samples  training\n");
}

namespace {

/// "name: about" of each, for help.
std::string lines_of(const std::vector<std::pair<std::string, std::string>>& table) {
  std::string all;
  for (const auto& [name, about] : table) all += "\n  " + name + ": " + about;
  return all;
}
template <class... T>
std::string help_of(const char* what, cts::choices<T...> all) {
  return what + lines_of(cts::table_of(all));
}
template <class E>
auto one_of() {
  return CLI::IsMember(std::vector<std::string>(cts::words<E>.begin(), cts::words<E>.end()));
}
/// An option whose value is a word of an enumeration.
template <class E>
void add_words(CLI::App& c, const char* name, E& value, const char* about) {
  const std::string what(name);
  c.add_option_function<std::string>(
       name, [&value, what](const std::string& text) { value = cts::detail::parse_option<E>(text, what); }, about)
      ->check(one_of<E>())
      ->default_str(cts::detail::option_text(value));
}

void add_data_options(CLI::App& c, sequence_arguments& a) {
  c.add_option("--task", a.task, "classify pictures, answer questions (vqa) or write captions (caption)")
      ->check(CLI::IsMember({"classify", "vqa", "caption"}));
  c.add_option(
      "--data", a.data,
      "several with commas between are a task each; a class is the same wherever it has the same name:" + data_help());
  c.add_option("--tasks", a.tasks,
               "tasks that the classes of a single set are cut into; vqa, caption: that its groups are, at most");
  c.add_option("--first", a.first, "classes of the first task, 0: as many as of the others");
  c.add_option("--increment", a.increment,
               "classes of each other task, the last may have fewer; 0: as many as --tasks leaves");
  c.add_option("--order", a.order,
               "in which the classes arrive: random (by --seed), or the names of all with commas between");
  c.add_option("--classes", a.classes, "A-B: these classes only");
  c.add_option("--per-class", a.per_class, "training pictures of each class, 0: all");
  c.add_option("--pictures", a.pictures, "vqa, caption: training pictures of each set, 0: all");
  c.add_option("--test-pictures", a.test_pictures, "vqa, caption: test pictures of each set, 0: all");
  c.add_option("--image", a.image, "side of the pictures in pixels, 0: as they are; vqa, caption: 64");
  c.add_flag("--skip-damaged", a.skip_damaged,
             "folder, photos: go on without files that cannot be read, and count them");
}

void add_model_options(CLI::App& c, sequence_arguments& a) {
  c.add_option(
      "--weights", a.weights,
      "start from this model, a file or its folder; a head is not needed, other picture sizes are interpolated");
  c.add_option("--patch", a.patch, "side of a patch in pixels; with --weights that of the model counts");
  c.add_option("--dim", a.dim, "channels of a token; with --weights those of the model count");
  c.add_option("--depth", a.depth, "blocks; with --weights those of the model count");
  c.add_option("--heads", a.heads, "attention heads, 0: 3, or what the file of --weights says");
  c.add_option("--text-depth", a.text_depth, "vqa, caption: blocks of the decoder");
  c.add_option("--vocabulary", a.vocabulary, "vqa, caption: tokens of the tokenizer, at most");
  c.add_option("--beams", a.beams, "vqa, caption: texts that are followed at a time when an answer is written");
}

void add_training_options(CLI::App& c, sequence_arguments& a) {
  cts::fit_options& f = a.fit;
  c.add_option("--epochs", f.epochs, "times that each task's data are seen");
  c.add_option("--batch", f.batch, "new samples, and replayed samples, in a step");
  c.add_option(
      "--pieces", f.pieces,
      "of a step, each a batch of its own, which the processes of mpirun share: a power of two, 0: one for each; "
      "results depend on it, and not on how many share them");
  c.add_option("--texts-per-picture", f.texts_per_picture, "vqa, caption: texts about a new picture in a step");
  c.add_option("--objective", a.objective, help_of("what is minimised, the first by default:", cts::objectives{}));
  c.add_option("--optimiser", a.optimiser, help_of("the first by default:", cts::optimisers{}));
  c.add_option("--warm-up", f.warm_up, "share of the steps in which the learning rate rises");
  c.add_option("--clip", f.clip, "largest norm of the gradient, 0: any");
  c.add_option("--backbone-rate", f.backbone_rate,
               "learning rate of all below the head (texts: of the encoder), as a share");
  c.add_flag("--imprint,!--no-imprint", f.imprint,
             "new rows of the head start from the mean features of their classes (the default)");
  c.add_flag("--align", f.align, "after a task the head's new rows are scaled to the length of the old ones");
  add_words(c, "--missing", f.missing, "what a left-out token is");
  c.add_option("--token-drop", f.token_drop, "share of tokens left out of new pictures, 0: none");
  c.add_option("--token-drop-often", f.token_drop_often, "share of new batches in which it is");
  add_words(c, "--drop-rule", f.drop_rule, "which tokens: random ones, or those that the memory would leave out");
  c.add_option("--shift", f.shift, "new pictures are moved by at most so many pixels");
  c.add_option("--flip", f.flip, "probability that a new picture is mirrored; never with texts");
  c.add_flag("--augment-replay", f.augment_replay, "replayed samples are mirrored, too");
  add_seed(c, f.seed);
}

void add_memory_options(CLI::App& c, sequence_arguments& a) {
  std::vector<std::pair<std::string, std::string>> kinds;
  for (const memory_kind& kind : memory_kinds) kinds.emplace_back(kind.name, kind.about);
  c.add_option("--memory", a.memory, "what is remembered:" + lines_of(kinds));
  c.add_option("--budget", a.budget,
               "of the whole memory: 64KiB, or 0.01 of the data's bytes; 2KiB/class, 16KiB/task: for each");
  c.add_option("--select", a.select, help_of("how samples are chosen, the first by default:", cts::selectors{}));
  c.add_option("--attribute", a.attribute,
               "how tokens are ranked (grad_lrp:stabiliser=0.03); cts attribute --help lists the methods");
  c.add_option("--rule", a.rule, help_of("which tokens are kept, the first by default:", cts::token_rules{}));
  c.add_option("--codec", a.codec, help_of("how pixels are packed, the first by default:", cts::token_codecs{}));
  c.add_option("--keep", a.recipe.keep, "share of a sample's tokens that is stored");
  add_words(c, "--keep-relevance", a.recipe.relevance, "whether the memory keeps the relevance of its tokens");
  c.add_option("--coreset-price", a.coreset_price, "bytes of a whole picture: its source file, or its raw pixels")
      ->check(one_of<cts::picture_price>());
}

}  // namespace

void add_sequence_options(CLI::App& c, sequence_arguments& a) {
  c.option_defaults()->always_capture_default()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_data_options(c, a);
  add_model_options(c, a);
  add_training_options(c, a);
  add_memory_options(c, a);
  c.add_option("--backend", a.backend, "what computes; cts info lists what there is");
  c.add_option("--threads", a.threads,
               "0: as many as there are processors free when it starts; results do not depend on it");
  c.add_flag("--resume", a.resume, "go on where the run in DIR was interrupted, to the same results");
  c.add_flag("--overwrite", a.overwrite, "begin anew where there is a run in DIR");
  c.add_option("--save-every", a.save_every,
               "seconds after which DIR gets how far a task is, to go on from there; SIGINT and SIGTERM save it, too");
  c.add_flag("--quiet", a.quiet, "no progress: neither a line on a terminal nor lines into a file or pipe");
  c.add_flag("--diagnose", a.diagnose,
             "also measures whether stored pictures look like pictures to the model (classes; results and report)");
  c.add_option("--out", a.out, "folder of the results")->required();
}

void add_sequence(CLI::App& app) {
  auto a = std::make_shared<sequence_arguments>();
  auto* c = app.add_subcommand(
      "sequence", "learn tasks one after another with a memory; writes results, model, memory and a report to DIR");
  add_sequence_options(*c, *a);
  c->final_callback([a] {
    cts::require(!a->out.empty(), "--out '': expected a folder");
    if (started_ranks() > 1) check_run(*a);
    cts::team& ranks = a->fit.ranks;
    ranks = join_ranks();
    if (!ranks.leads()) a->quiet = true, a->tells = false;
    sequence_outcome outcome;
    try {
      outcome = run_sequence(*a);
    } catch (const cts::stopped&) {
      ranks = {};  // all together, since this program ends by a signal
      throw;
    } catch (const std::exception& e) {
      ranks.leave(e.what());
      throw;
    }
    if (!ranks.leads()) return;
    print_heading();
    print_line(a->memory, outcome.results);
    if (const auto over = cts::measured_classes(outcome.results); !over.empty())
      std::printf("accuracy%s\n", over.c_str());
  });
}

}  // namespace cts_command
