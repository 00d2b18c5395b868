#pragma once
// A model that keeps learning: it holds the model, the memory and how both are used, learns one task after the other
// within a budget of bytes, predicts, and can be saved at any task and gone on with to the same bits.

#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/model/image_text_weights.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/train/answering.hpp"
#include "core_tokensets/train/learner_files.hpp"
#include "core_tokensets/train/learner_parts.hpp"
#include "core_tokensets/train/make_room.hpp"
#include "core_tokensets/train/strategies.hpp"
#include "core_tokensets/train/text_fit.hpp"

namespace core_tokensets {

struct learner_options {
  /// Of the memory. In a stream of T tasks it may fill t/T of that after task t; where nobody knows how many tasks
  /// there will be, older tasks make room for new ones. A fraction is of the training data as they came; bytes may be
  /// for each task or class, `per(budget_of::every_class, kibibytes(2))`.
  byte_budget budget = fraction(0.01);
  fit_options fit = {};
  bool fresh_head = true;  ///< the classes that the model came with are not those that it shall keep
};

/// What learning a task did.
struct learnt_task {
  std::string name;
  index memory_bytes = 0, memory_samples = 0, memory_tokens = 0, budget_bytes = 0;
  index chosen_by_chance = 0;  ///< samples that the selector could not tell apart
  double train_seconds = 0, select_seconds = 0, attribute_seconds = 0;
  std::string form = {};  ///< how its samples were stored, where the strategy chose that
};

/// A model on backend `b`, which must outlive it, with a memory by `strategy`.
template <tensor_backend B, class Model, class Strategy = core_tokenset<>, objective<B> Objective = ace,
          optimiser<B> Optimiser = adamw>
class continual_learner {
 public:
  using data_type = typename detail::model_kind<Model>::data_type;
  using task_type = basic_task<data_type>;
  static_assert(strategy<Strategy, B, Model, task_type>, "a strategy needs a function consolidate; see strategies.hpp");

  continual_learner(B& b, Model model, learner_options options = {}, Strategy how = {}, Objective what = {},
                    Optimiser by = {})
      : b_(b),
        model_(std::move(model)),
        o_(std::move(options)),
        strategy_(std::move(how)),
        objective_(std::move(what)),
        optimiser_(std::move(by)),
        memory_(
            detail::memory_for(strategy_, objective_, image_config(model_).grid, detail::model_kind<Model>::texts)) {
    o_.fit = settled(std::move(o_.fit));
  }

  B& backend() const { return b_; }
  const Model& model() const { return model_; }
  const token_memory& memory() const { return memory_; }
  const Strategy& how() const { return strategy_; }
  const learner_options& options() const { return o_; }
  /// For each sample of the memory its number in the training data of its task.
  const std::vector<index>& sources() const { return sources_; }
  index tasks_learnt() const { return done_; }
  /// What the memory costs now.
  index memory_bytes() const { return detail::price_of(strategy_, memory_); }

  /// `Error` unless the pictures of a task fit the model and there are enough samples to measure on.
  void check_task(const task_type& t) const {
    check_pictures(detail::pictures_of(t.data->train), image_config(model_));
    check_pictures(detail::pictures_of(t.data->test), image_config(model_));
    if constexpr (detail::model_kind<Model>::texts) {
      require(!are_captions(t.test()) || t.test_indices.size() > 1, "sequence: task '", t.name, "' has ",
              t.test_indices.size(), " sample to measure on, captions need at least two: CIDEr-D weighs words by what ",
              "tells samples apart");
    }
  }

  /// Where a task that is being learnt saves how far it is (`options().fit.checkpoint`). `save` removes the file of the
  /// task that was learnt before.
  void set_checkpoint(checkpoint_options how) { o_.fit.checkpoint = std::move(how); }

  /// Trains on a task with replay, then remembers it within the budget. A task that does not follow the last one in its
  /// stream is taken for what arrives next; classes are told by their names then. `Error`, before anything is trained:
  /// data that do not fit the model, a budget that holds nothing, a checkpoint of another training. `stopped` where the
  /// checkpoint says so; a learner that is made, or restored, as this one was goes on from there.
  learnt_task learn(const task_type& given) {
    return detail::or_leave(o_.fit.ranks, [&] { return learn_next(given); });
  }
  /// The same with all samples of a data set, as they arrive.
  learnt_task learn(data_type data, const std::string& name = "task") {
    return learn(whole_task(std::move(data), name));
  }

  /// How well it does on some samples; pictures of classes that it never learnt count as wrong. Of several ranks all
  /// ask together, and share the work.
  evaluation evaluate(const sample_view<data_type>& samples) const requires(!detail::model_kind<Model>::texts) {
    std::vector<std::int32_t> labels;
    const auto numbers = detail::numbers_by_name(samples.data->class_names, model_.config().class_names);
    for (const index i : samples.indices) labels.push_back(numbers[static_cast<std::size_t>(samples.data->label(i))]);
    return {.accuracy = accuracy<double>(scores(samples), labels)};
  }
  evaluation evaluate(const sample_view<data_type>& samples, const generation_options& o = {}) const
      requires(detail::model_kind<Model>::texts) {
    return core_tokensets::evaluate(b_, model_, samples, o);
  }

  /// What it says of a picture of any size.
  prediction predict(const image_view& picture) const requires(!detail::model_kind<Model>::texts) {
    const dataset one = one_picture(picture, model_.config().grid);
    return prediction_of<double>(scores(one), model_.config().class_names);
  }
  /// Its answer to a question about a picture of any size; without one, a caption.
  std::string answer(const image_view& picture, std::string question, const generation_options& o = {}) const
      requires(detail::model_kind<Model>::texts) {
    return core_tokensets::answer(b_, model_, picture, std::move(question), o);
  }

  /// Everything that results depend on but the data: what a saved learner is recognised by.
  json settings() const {
    json fit = json::object();
    fit_options::options(o_.fit, [&](const char* key, const auto& value) { fit[key] = detail::option_text(value); });
    const vit_config& c = image_config(model_);
    return json{
        {"library", library_version},
        {"model",
         {{"image", c.grid.height}, {"patch", c.grid.patch}, {"dim", c.dim}, {"depth", c.depth}, {"heads", c.heads}}},
        {"strategy", text_of(strategy_)},
        {"objective", text_of(objective_)},
        {"optimiser", text_of(optimiser_)},
        {"budget",
         {{"amount", o_.budget.amount},
          {"fraction", o_.budget.is_fraction},
          {"each", detail::option_text(o_.budget.each)}}},
        {"fresh_head", o_.fresh_head},
        {"fit", fit}};
  }

  /// Writes model, memory and settings into a folder, which is made. Whenever the program dies, what was saved last is
  /// there whole. `notes` travel along. Of several ranks the first writes, and the others wait for it.
  void save(const std::filesystem::path& folder, const json& notes = json::object()) const {
    detail::or_leave(o_.fit.ranks, [&] {
      if (o_.fit.ranks.leads()) write_files(folder, notes);
      o_.fit.ranks.wait("waiting for the learner to be saved");
    });
    remove_checkpoint();
  }

  /// Goes on from what was saved in a folder; returns its notes. `Error`: none there, altered, or saved with other
  /// settings (names all that differ).
  json restore(const std::filesystem::path& folder) {
    const saved_learner saved(folder);
    saved.check_settings(settings());
    model_ = detail::model_kind<Model>::load(b_, saved.file("model"), &model_);
    memory_ = saved.memory(memory_.codec());
    if constexpr (requires { save_state(strategy_); }) load_state(strategy_, saved.file("strategy"));
    sources_ = saved.state().at("sources").template get<std::vector<index>>();
    done_ = saved.state().at("tasks").template get<index>();
    seen_bytes_ = saved.state().at("seen_bytes").template get<index>();
    has_old_checkpoint_ = false;
    return saved.state().at("notes");
  }
  /// Tells the strategy of a task that was learnt before it was restored and whose data are at hand again.
  void recall(const task_type& t) { (void)detail::training_task_of(strategy_, t); }

 private:
  /// What the memory may cost before a task is remembered and then, and after the last task of the stream; how many
  /// bytes of data were seen.
  struct room {
    index before, now, total, seen;
  };
  room room_for(const task_type& t) const {
    const index data = bytes_of_data(t.data->train), seen = t.of == 0 ? seen_bytes_ + data : seen_bytes_;
    const index amount = o_.budget.resolve(t.of == 0 ? seen : data);
    if (o_.budget.each == budget_of::every_task)
      return {amount * done_, amount * (done_ + 1), amount * std::max(t.of, done_ + 1), seen};
    if (o_.budget.each == budget_of::every_class) {
      if constexpr (detail::model_kind<Model>::texts) {
        fail("budget: bytes for each class, texts have no classes");
      } else {
        const index known = done_ == 0 ? 0 : model_.config().classes, now = std::max(known, seen_classes(t));
        return {amount * known, amount * now, amount * std::max(now, t.data->train.classes()), seen};
      }
    }
    if (t.of > 0) return {amount, amount * (t.number + 1) / t.of, amount, seen};
    return {amount * done_ / (done_ + 1), amount, amount, seen};
  }
  /// `budget_error` that says how many bytes would do, unless something of the task can be kept. A later task that
  /// finds no room is no error: the memory is of use without it.
  void check_room(const task_type& t, const room& space) const {
    if (!memory_.empty()) return;
    const index least = detail::least_price_of(strategy_, t, memory_);
    require_room(least <= space.now, "budget: ", space.total, " bytes hold nothing: after task ", t.number + 1,
                 t.of > 0 ? " of " + std::to_string(t.of) : std::string(), " the memory may cost ", space.now,
                 " bytes, with one sample it costs ", least, "; ",
                 std::lround(std::ceil(static_cast<double>(least) * static_cast<double>(space.total) /
                                       static_cast<double>(std::max<index>(1, space.now)))),
                 " bytes would do");
  }
  learnt_task learn_next(const task_type& given) {
    remove_checkpoint();  // of a task that was learnt and not saved
    task_type t = detail::arrange(given, done_, model_, o_.fresh_head && done_ == 0);
    const room space = room_for(t);
    check_room(t, space);
    seen_bytes_ = space.seen;
    learnt_task report{.name = t.name, .budget_bytes = space.now};
    if (o_.fresh_head && done_ == 0) detail::forget_head(b_, model_, t);
    const auto start = std::chrono::steady_clock::now();
    if (const auto lesson = detail::training_task_of(strategy_, t)) {
      report.train_seconds =
          fit(b_, model_, *lesson, memory_, fit_options_for(t), objective_, optimiser_).earlier_seconds;
    } else {
      detail::make_head(b_, model_, t);
    }
    report.train_seconds += detail::seconds_since(start);
    if (t.of == 0 && done_ > 0) {
      make_room(memory_, sources_, space.before, [&](const token_memory& m) { return detail::price_of(strategy_, m); });
    }
    const index before = memory_.samples();
    const consolidation stored =
        consolidate(b_, strategy_, std::as_const(model_), t, memory_, report.budget_bytes, o_.fit.seed);
    detail::remember_logits(b_, model_, objective_, memory_, before, o_.fit.missing);
    sources_.insert(sources_.end(), stored.samples.begin(), stored.samples.end());
    sources_.resize(static_cast<std::size_t>(memory_.samples()), -1);
    report.chosen_by_chance = stored.by_chance, report.form = stored.form;
    report.select_seconds = stored.select_seconds, report.attribute_seconds = stored.attribute_seconds;
    report.memory_bytes = memory_bytes();
    report.memory_samples = memory_.samples(), report.memory_tokens = memory_.tokens();
    ++done_;
    has_old_checkpoint_ = true;
    return report;
  }
  fit_options fit_options_for(const task_type&) {
    fit_options f = o_.fit;
    f.checkpoint.about["strategy"] = text_of(strategy_);  // says what "as remembered" means
    f.as_remembered = [this](const token_batch& whole, const text_batch* texts, token_batch& out) {
      detail::as_remembered(b_, std::as_const(strategy_), std::as_const(model_), whole, texts, o_.fit.missing, out);
    };
    return f;
  }
  void write_files(const std::filesystem::path& folder, const json& notes) const {
    learner_files files(folder, done_);
    files.add("model", to_file(b_, model_));
    files.add_memory(memory_);
    if constexpr (requires { save_state(strategy_); }) files.add("strategy", save_state(strategy_));
    files.finish(json{{"tasks", done_},
                      {"settings", settings()},
                      {"sources", sources_},
                      {"seen_bytes", seen_bytes_},
                      {"notes", notes}});
  }
  /// Ranks score whole batches each, so that the numbers are those of one; a single batch is scored by all.
  std::vector<double> scores(const sample_view<data_type>& samples) const {
    constexpr index batch = 128;
    const team& ranks = o_.fit.ranks;
    const index batches = (samples.n() + batch - 1) / batch;
    if (ranks.alone() || batches < 2) return own_scores(samples);
    const auto from = [&](index rank) { return std::min(samples.n(), batches * rank / ranks.size() * batch); };
    const auto mine = std::span(samples.indices)
                          .subspan(static_cast<std::size_t>(from(ranks.rank())),
                                   static_cast<std::size_t>(from(ranks.rank() + 1) - from(ranks.rank())));
    return detail::or_leave(ranks, [&] {
      std::vector<double> own, all;
      if (!mine.empty()) own = own_scores(sample_view<data_type>(*samples.data, {mine.begin(), mine.end()}));
      for (const auto& part : ranks.all_gather(std::as_bytes(std::span(own)), "gathering scores")) {
        const auto begin = all.size();
        all.resize(begin + part.size() / sizeof(double));
        if (!part.empty()) std::memcpy(all.data() + begin, part.data(), part.size());
      }
      return all;
    });
  }
  std::vector<double> own_scores(const sample_view<data_type>& samples) const {
    if constexpr (requires { class_scores(b_, strategy_, model_, samples); }) {
      return class_scores(b_, strategy_, model_, samples);
    } else {
      const auto logits = run_model(b_, model_, samples).logits;
      return {logits.begin(), logits.end()};
    }
  }

  /// The file of a task that this learner has learnt; one that was there before is gone on from.
  void remove_checkpoint() const {
    std::error_code ignored;
    if (std::exchange(has_old_checkpoint_, false) && !o_.fit.checkpoint.file.empty())
      std::filesystem::remove(o_.fit.checkpoint.file, ignored);
  }

  B& b_;
  Model model_;
  learner_options o_;
  Strategy strategy_;
  Objective objective_;
  Optimiser optimiser_;
  token_memory memory_;
  std::vector<index> sources_;
  index done_ = 0, seen_bytes_ = 0;
  mutable bool has_old_checkpoint_ = false;  ///< saving changes nothing else here
};

/// A learner that was saved in a folder, for classes or (with `image_text_model<B>` as the model) for texts. Parts that
/// were not the default ones are handed in again, as are the ranks that share the work from now on. `Error`: see
/// `restore`.
template <template <class> class Model = vit, tensor_backend B, class Strategy = core_tokenset<>, class Objective = ace,
          class Optimiser = adamw>
continual_learner<B, Model<B>, Strategy, Objective, Optimiser> load_learner(B& b, const std::filesystem::path& folder,
                                                                            Strategy how = {}, Objective what = {},
                                                                            Optimiser by = {}, team ranks = {}) {
  const saved_learner saved(folder);
  learner_options options = saved.options();
  options.fit.ranks = std::move(ranks);
  continual_learner<B, Model<B>, Strategy, Objective, Optimiser> learner(
      b, detail::model_kind<Model<B>>::load(b, saved.file("model"), nullptr), std::move(options), std::move(how),
      std::move(what), std::move(by));
  (void)learner.restore(folder);
  return learner;
}

}  // namespace core_tokensets
