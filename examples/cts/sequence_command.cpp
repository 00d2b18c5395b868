// cts sequence: tasks that arrive one after another, with any kind of memory.

#include <filesystem>
#include <memory>
#include <optional>

#include "backends.hpp"
#include "core_tokensets/core_tokensets.hpp"
#include "sequence_work.hpp"

namespace cts_command {

namespace cts = core_tokensets;

cts::dataset_split read_data(const sequence_arguments& a) {
  const auto colon = a.data.find(':');
  const std::string kind = a.data.substr(0, colon), where = colon == std::string::npos ? "" : a.data.substr(colon + 1);
  const bool plain_scenes = a.data == "scenes", only_shapes = a.data == "scenes:shapes";
  cts::require(plain_scenes || only_shapes || (kind != "scenes" && !where.empty()), "--data '", a.data,
               "': expected scenes, scenes:shapes, folder:DIR, cifar:DIR or idx:DIR");
  cts::dataset_split split;
  if (kind == "scenes") {
    split = cts::scenes({.train_per_class = a.per_class > 0 ? a.per_class : 300,
                         .test_per_class = 100,
                         .image = a.image > 0 ? a.image : 32,
                         .typical = plain_scenes ? 1.0 : 0.0,
                         .seed = a.seed,
                         .threads = a.threads});
  } else if (kind == "folder") {
    split = cts::load_folder(where, {.size = a.image, .threads = a.threads});
  } else if (kind == "cifar") {
    cts::require(a.image == 0, "--image ", a.image, ": pictures of ", a.data, " come as they are");
    const bool ten = std::filesystem::exists(std::filesystem::path(where) / "test_batch.bin");
    split = ten ? cts::load_cifar10(where) : cts::load_cifar100(where);
  } else if (kind == "idx") {
    cts::require(a.image == 0, "--image ", a.image, ": pictures of ", a.data, " come as they are");
    split = cts::load_idx(where);
  } else {
    cts::fail("--data '", a.data, "': expected scenes, folder:DIR, cifar:DIR or idx:DIR");
  }
  if (!a.classes.empty()) split = cts::select_classes(split, cts::parse_class_range(a.classes));
  if (a.per_class > 0 && kind != "scenes") split.train = cts::limit_per_class(split.train, a.per_class, a.seed);
  return split;
}

namespace {

double flip_of(const sequence_arguments& a) { return a.flip >= 0 ? a.flip : a.task == "classify" ? 0.5 : 0.0; }

}  // namespace

std::ptrdiff_t heads_of(const sequence_arguments& a) { return a.heads > 0 ? a.heads : 3; }

cts::vit_hints hints_of(const sequence_arguments& a) {
  cts::vit_hints hints;
  if (a.heads > 0) hints.heads = a.heads;
  hints.seed = a.seed;
  return hints;
}

std::ptrdiff_t image_of(const sequence_arguments& a) { return a.image > 0 || a.task == "classify" ? a.image : 64; }

nlohmann::json config_of(const sequence_arguments& a, const cts::vit_config& model) {
  nlohmann::json config{{"task", a.task},
                        {"data", a.data},
                        {"classes", a.classes},
                        {"per_class", a.per_class},
                        {"image", image_of(a)},
                        {"patch", model.patch},
                        {"dim", model.dim},
                        {"depth", model.depth},
                        {"heads", model.heads},
                        {"epochs", a.epochs},
                        {"batch", a.batch},
                        {"tasks", a.tasks},
                        {"memory", a.memory},
                        {"select", a.select},
                        {"attribute", a.attribute},
                        {"budget", a.budget},
                        {"keep", a.keep},
                        {"missing", a.missing},
                        {"token_drop", a.token_drop},
                        {"seed", a.seed},
                        {"replay_loss", a.replay_loss},
                        {"token_drop_often", a.token_drop_often},
                        {"token_drop_rule", a.token_drop_rule},
                        {"shift", a.shift},
                        {"flip", flip_of(a)},
                        {"weights", a.weights},
                        {"coreset_price", a.coreset_price},
                        {"backend", a.backend},
                        {"learning_rate", a.learning_rate}};
  if (a.task != "classify") {
    config.update({{"pictures", a.pictures},
                   {"test_pictures", a.test_pictures},
                   {"texts_per_picture", a.texts_per_picture},
                   {"text_depth", a.text_depth},
                   {"vocabulary", a.vocabulary},
                   {"beams", a.beams}});
  }
  if (!a.weights.empty()) config["weights_checksum"] = cts::detail::file_checksum(a.weights);
  return config;
}

void check(const sequence_arguments& a) {
  const auto within = [](const char* name, auto value, auto low, auto high) {
    cts::require(value >= low && value <= high, name, " ", value, ": expected ", low, " to ", high);
  };
  within("--tasks", a.tasks, 1, 1'000'000);
  within("--per-class", a.per_class, 0, 1'000'000'000);
  within("--image", a.image, 0, 65536);
  within("--patch", a.patch, 1, 65536);
  within("--dim", a.dim, 1, 65536);
  within("--depth", a.depth, 1, 1024);
  within("--heads", a.heads, 0, 65536);
  within("--epochs", a.epochs, 1, 1'000'000);
  within("--batch", a.batch, 1, 1'000'000);
  within("--threads", a.threads, 0, 1024);
  within("--pictures", a.pictures, 0, 1'000'000'000);
  within("--test-pictures", a.test_pictures, 0, 1'000'000'000);
  within("--texts-per-picture", a.texts_per_picture, 1, 1'000'000);
  within("--text-depth", a.text_depth, 1, 1024);
  within("--vocabulary", a.vocabulary, 258, 65536);
  within("--beams", a.beams, 1, 64);
  within("--token-drop", a.token_drop, 0.0, 0.99);
  within("--token-drop-often", a.token_drop_often, 0.0, 1.0);
  within("--shift", a.shift, 0, 65536);
  within("--flip", flip_of(a), 0.0, 1.0);
  cts::require(a.task == "classify" || (a.classes.empty() && a.per_class == 0),
               "--classes and --per-class choose classes to learn; --task ", a.task, " takes --pictures");
  cts::require(a.keep > 0 && a.keep <= 1, "--keep ", a.keep, ": expected more than 0 and at most 1");
  cts::require(a.learning_rate > 0, "--learning-rate ", a.learning_rate, ": expected more than 0");
}

cts::fit_options fit_options_of(const sequence_arguments& a) {
  cts::fit_options fit;
  fit.epochs = a.epochs;
  fit.batch = fit.replay_batch = a.batch;
  fit.optimiser.learning_rate = a.learning_rate;
  fit.loss = a.replay_loss == "sum" ? cts::replay_loss::sum : cts::replay_loss::ace;
  fit.missing = a.missing == "zero" ? cts::missing_tokens::zero : cts::missing_tokens::drop;
  fit.token_drop = a.token_drop;
  fit.token_drop_often = a.token_drop_often;
  fit.augment = {.shift = a.shift, .flip = flip_of(a)};
  fit.seed = a.seed;
  if (!a.quiet) fit.on_progress = cts::console_progress();
  return fit;
}

void write_results(const std::filesystem::path& out, const cts::tensor_file& model, const cts::token_memory& memory,
                   const sequence_outcome& outcome) {
  cts::save_safetensors(out / "model.safetensors", model);
  memory.save(out / "memory.safetensors");
  cts::write_report(out / "report.html", cts::sequence_page(outcome.results, outcome.figures));
  cts::write_file(out / "results.json", std::string_view(text_of(outcome.results, 1)));
}

sequence_outcome run_sequence(const sequence_arguments& a) {
  if (a.task != "classify") return run_text_sequence(a);
  sequence_outcome outcome;
  with_backend_of<float>(a.backend, a.threads, sequence_work{a, outcome});
  return outcome;
}

void print_line(const std::string& name, const nlohmann::json& r) {
  std::printf("%-14s %7.1f %%  %9.1f %%  %10.1f %%  %9td  %8td  %8.1f s\n", name.c_str(),
              100 * r["average_accuracy"].get<double>(), 100 * r["average_incremental_accuracy"].get<double>(),
              100 * r["forgetting"].get<double>(), r["memory_bytes"].get<std::ptrdiff_t>(),
              r["memory_samples"].get<std::ptrdiff_t>(), r["seconds"]["train"].get<double>());
  std::fflush(stdout);
}

void print_heading() {
  std::printf("memory         accuracy  incremental  forgetting      bytes   samples  training\n");
}

void add_sequence(CLI::App& app) {
  auto a = std::make_shared<sequence_arguments>();
  auto* c = app.add_subcommand(
      "sequence", "learn tasks one after another with a memory; writes results, model, memory and a report to DIR");
  c->add_option("--task", a->task, "classify pictures, answer questions (vqa) or write captions (caption)")
      ->check(CLI::IsMember({"classify", "vqa", "caption"}));
  c->add_option(
      "--data", a->data,
      "scenes, scenes:shapes, folder:DIR (train/ and val/ or test/), cifar:DIR or idx:DIR; for vqa and caption "
      "scenes, easy-vqa:DIR, photos:DIR, vqa:DIR, coco:DIR, several with commas between");
  c->add_option("--tasks", a->tasks,
                "tasks that the classes are cut into; vqa, caption: that the groups of a single set are, at most");
  c->add_option("--classes", a->classes, "A-B: these classes only");
  c->add_option("--per-class", a->per_class, "training pictures of each class, 0: all");
  c->add_option("--pictures", a->pictures, "vqa, caption: training pictures of each set, 0: all");
  c->add_option("--test-pictures", a->test_pictures, "vqa, caption: test pictures of each set, 0: all");
  c->add_option("--texts-per-picture", a->texts_per_picture, "vqa, caption: texts about a new picture in a step");
  c->add_option("--text-depth", a->text_depth, "vqa, caption: blocks of the decoder");
  c->add_option("--vocabulary", a->vocabulary, "vqa, caption: tokens of the tokenizer, at most");
  c->add_option("--beams", a->beams, "vqa, caption: texts that are followed at a time when an answer is written");
  c->add_option("--image", a->image, "side of the pictures in pixels, 0: as they are; vqa, caption: 64");
  c->add_option("--patch", a->patch, "side of a patch in pixels; with --weights that of the model counts");
  c->add_option("--dim", a->dim, "channels of a token; with --weights those of the model count");
  c->add_option("--depth", a->depth, "blocks; with --weights those of the model count");
  c->add_option("--heads", a->heads, "attention heads, 0: 3, or what the file of --weights says");
  c->add_option("--epochs", a->epochs, "times that each task's data are seen");
  c->add_option("--batch", a->batch, "new samples, and replayed samples, in a step");
  c->add_option("--learning-rate", a->learning_rate, "of AdamW, at its highest");
  c->add_option("--memory", a->memory, "none, coreset, core-tokens, random-tokens, core-tokenset, joint or ncm");
  c->add_option("--select", a->select, "how samples are chosen: random or grad_match");
  c->add_option("--attribute", a->attribute, "how tokens are ranked; cts attribute --help lists the methods");
  c->add_option("--budget", a->budget, "of the whole memory: 64KiB, or 0.01 of the data's bytes");
  c->add_option("--coreset-price", a->coreset_price, "bytes of a whole picture: its source file, or its raw pixels")
      ->check(CLI::IsMember({"source", "raw"}));
  c->add_option("--keep", a->keep, "share of a sample's tokens that is stored");
  c->add_option("--missing", a->missing, "what a left-out token is: drop or zero")
      ->check(CLI::IsMember({"drop", "zero"}));
  c->add_option("--token-drop", a->token_drop, "share of tokens left out of new pictures, 0: none");
  c->add_option("--token-drop-often", a->token_drop_often, "share of new batches in which it is");
  c->add_option("--token-drop-rule", a->token_drop_rule,
                "which: random ones, or those that a memory of relevant tokens would leave out (memory)")
      ->check(CLI::IsMember({"memory", "random"}));
  c->add_option("--shift", a->shift, "new pictures are moved by at most so many pixels");
  c->add_option("--flip", a->flip, "probability that a new picture is mirrored; 0.5 for classes, 0 for text");
  c->add_option("--replay-loss", a->replay_loss, "sum (the paper's) or ace (asymmetric)")
      ->check(CLI::IsMember({"sum", "ace"}));
  c->add_option("--backend", a->backend, "what computes; cts info lists what there is");
  c->add_option("--weights", a->weights, "start from this model");
  c->add_option("--seed", a->seed, "of all random choices")->check(CLI::NonNegativeNumber);
  c->add_option("--threads", a->threads, "0: as many as there are; results do not depend on it");
  c->add_flag("--resume", a->resume, "go on from the last checkpoint in DIR");
  c->add_flag("--quiet", a->quiet, "no progress line");
  c->add_option("--out", a->out, "folder of the results")->required();
  c->final_callback([a] {
    cts::require(!a->out.empty(), "--out '': expected a folder");
    const auto outcome = run_sequence(*a);
    print_heading();
    print_line(a->memory, outcome.results);
  });
}

}  // namespace cts_command
