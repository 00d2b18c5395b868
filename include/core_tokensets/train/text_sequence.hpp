#pragma once
// Questions or captions that arrive task after task: what the sequential loop learns, remembers and judges for visual
// question answering and captioning.

#include <limits>

#include "core_tokensets/attribution/answer_methods.hpp"
#include "core_tokensets/data/text_tasks.hpp"
#include "core_tokensets/model/image_text_weights.hpp"
#include "core_tokensets/train/answering.hpp"
#include "core_tokensets/train/caption_metrics.hpp"
#include "core_tokensets/train/recipe.hpp"
#include "core_tokensets/train/text_fit.hpp"
#include "core_tokensets/train/text_prices.hpp"
#include "core_tokensets/train/vqa_accuracy.hpp"

namespace core_tokensets {

/// What counts as good: VQA accuracy (exact match beside it), or CIDEr-D over its maximum of 10 (BLEU-4 and ROUGE-L
/// beside it).
enum class text_measure { vqa, captions };

struct text_sequence_options {
  memory_kind memory = memory_kind::core_tokenset;  ///< all but `ncm`
  core_tokenset recipe = {};
  byte_budget budget = fraction(0.01);
  picture_price price = picture_price::source;
  fit_options fit = {};
  token_drop_rule token_drop = token_drop_rule::random;
  index texts_per_picture = 4;  ///< of a new picture in one step
  text_measure measure = text_measure::vqa;
  generation_options generate = {};
  std::filesystem::path out = {};
  bool resume = false;
};

/// Appends the most relevant image tokens of the samples `chosen` of `data`, with their texts, to the memory, as far as
/// `bytes` last. Returns the samples that were stored.
template <tensor_backend B>
std::vector<index> store_texts(B& b, const image_text_model<B>& model, const tokenizer& words, const visual_text& data,
                               std::span<const index> chosen, std::span<const float> weights,
                               const core_tokenset& recipe, const pixel_normalisation& normalisation,
                               std::uint16_t task_number, index bytes, token_memory& memory) {
  check(recipe);
  check_pictures(data.images, model.config().image);
  check_format(memory.format(), model.config().image);
  require(weights.size() == chosen.size(), "store_texts: ", weights.size(), " weights for ", chosen.size(), " samples");
  const index patches = model.config().image.patches();
  const auto count = std::max<index>(1, std::lround(recipe.keep * static_cast<double>(patches)));
  const encoded_texts encoded(data, words, model.config().text.length);
  answer_workspace<B> workspace;
  std::vector<index> stored;
  constexpr std::size_t batch_size = 32;
  for (std::size_t begin = 0; begin < chosen.size(); begin += batch_size) {
    const auto part = chosen.subspan(begin, std::min(batch_size, chosen.size() - begin));
    std::vector<index> pictures;
    text_batch texts;
    for (const index i : part) {
      require(i >= 0 && i < data.n(), "store_texts: sample ", i, " of ", data.n());
      pictures.push_back(data.samples[static_cast<std::size_t>(i)].image);
      texts.next_picture();
      texts.append(encoded.prompt(i), encoded.answer(i), tokenizer::begin_token, tokenizer::end_token);
    }
    std::vector<double> relevance(part.size() * static_cast<std::size_t>(patches), 0.0);
    if (count < patches) {
      const auto images =
          make_batch(data.images, pictures, {.patch = model.config().image.patch, .normalisation = normalisation});
      relevance = attribute_answers(recipe.attribute, b, model, images, texts, workspace).image;
    }
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto& sample = data.samples[static_cast<std::size_t>(part[i])];
      const std::string& answer = stored_answer(sample);
      const auto text = static_cast<index>(memory.arrays().text.size() + sample.prompt.size() + answer.size());
      if (memory.bytes_on_disk(memory.samples() + 1, memory.tokens() + count, text) > bytes) continue;
      const auto of_sample =
          std::span(relevance).subspan(i * static_cast<std::size_t>(patches), static_cast<std::size_t>(patches));
      const kept_tokens kept = cut_tokens(data.images.view_of(sample.image), of_sample, count, memory.format());
      memory.append({.patches = kept.patches,
                     .positions = kept.positions,
                     .relevance = kept.relevance,
                     .target = sample.group,
                     .weight = weights[begin + i],
                     .task = task_number,
                     .prompt = sample.prompt,
                     .answer = answer});
      stored.push_back(part[i]);
    }
  }
  return stored;
}

/// An image-text model that learns a stream of tasks.
template <tensor_backend B>
class text_learner {
 public:
  text_learner(B& b, image_text_model<B>& model, const tokenizer& words, const text_stream& stream,
               text_sequence_options options)
      : b_(b), model_(model), words_(words), stream_(stream), o_(std::move(options)) {
    check(stream);
    check(o_.recipe);
    check_pictures(stream.data.train.images, model.config().image);
    check_pictures(stream.data.test.images, model.config().image);
    require(o_.memory != memory_kind::ncm, "sequence: nearest class mean has no meaning for text");
    check_answers_method<B>(o_.recipe.attribute);
    require(words.size() <= model.config().text.vocabulary, "sequence: a tokenizer of ", words.size(),
            " tokens for a model of ", model.config().text.vocabulary);
    for (const text_task& t : stream.tasks) {
      require(
          o_.measure != text_measure::captions || t.test.size() > 1, "sequence: task '", t.name,
          "' has one sample to measure on, captions need at least two: CIDEr-D weighs words by what tells them apart");
    }
    if (stream.data.train.images.source_bytes.empty()) o_.price = picture_price::raw;
  }

  index tasks() const { return stream_.size(); }
  bool stores() const { return stores_samples(o_.memory); }
  /// Pictures as they came, and all texts with all of their answers.
  index data_bytes() const {
    const visual_text& train = stream_.data.train;
    index total = 0;
    for (const auto& sample : train.samples) {
      total += static_cast<index>(sample.prompt.size());
      for (const auto& answer : sample.answers) total += static_cast<index>(answer.size());
    }
    const dataset& pictures = train.images;
    return total + (pictures.source_bytes.empty()
                        ? static_cast<index>(pictures.pixels.size())
                        : static_cast<index>(pictures.total_source_bytes()) + picture_overhead * pictures.n());
  }

  std::uint64_t data_checksum() const { return checksum(stream_); }

  token_memory_format format() const {
    auto format = memory_format(model_.config().image, o_.fit.normalisation, o_.memory);
    format.texts = true;
    return format;
  }

  void learn(index t, const token_memory& memory) {
    std::vector<index> samples = stream_[t].train;
    if (o_.memory == memory_kind::joint) {
      for (index i = 0; i < t; ++i) samples.insert(samples.end(), stream_[i].train.begin(), stream_[i].train.end());
    }
    fit_options f = o_.fit;
    f.seed = seed_of_task(o_.fit.seed, t);
    answer_token_relevance relevance;
    if (drops_like_memory(o_.token_drop, o_.memory, o_.recipe)) {
      relevance = [&](const token_batch& whole, const text_batch& texts) {
        return attribute_answers(o_.recipe.attribute, b_, model_, whole, texts, explained_).image;
      };
    }
    fit(b_, model_, words_, stream_.data.train, samples, &memory, f, o_.texts_per_picture,
        "task " + std::to_string(t + 1) + "/" + std::to_string(stream_.size()), relevance);
  }

  consolidation remember(index t, index bytes, const std::vector<index>& stored, token_memory& memory) {
    using clock = std::chrono::steady_clock;
    const visual_text& train = stream_.data.train;
    std::vector<index> now = stream_[t].train;
    const core_tokenset recipe = recipe_of(o_.recipe, o_.memory, seed_of_task(o_.fit.seed, t));
    const auto tokens =
        std::max<index>(1, std::lround(recipe.keep * static_cast<double>(model_.config().image.patches())));
    if (as_files()) {
      const index left = bytes - price_of_files(train, stored);
      now = affordable_alone(now, left, memory.empty(), price_after(train, stored));
      if (now.empty()) return {};
    }
    const index k =
        as_files() ? affordable_files(train, now, stored, bytes) : affordable_texts(train, now, tokens, bytes, memory);
    if (k == 0) return {};
    consolidation done;
    const auto start = clock::now();
    std::vector<std::int32_t> groups;
    for (const index i : now) groups.push_back(train.samples[static_cast<std::size_t>(i)].group);
    selection_result chosen = choose(recipe.select, groups, train.groups(), k, [&] {
      return answer_evidence(b_, model_, words_, train, now, o_.fit.normalisation);
    });
    if (as_files()) fit_files(train, now, stored, bytes, chosen);
    done.select_seconds = std::chrono::duration<double>(clock::now() - start).count();
    const auto attribution_start = clock::now();
    std::vector<index> samples;
    for (const index i : chosen.indices) samples.push_back(now[static_cast<std::size_t>(i)]);
    done.pictures =
        store_texts(b_, model_, words_, train, samples, chosen.weights, recipe, o_.fit.normalisation,
                    static_cast<std::uint16_t>(t), as_files() ? std::numeric_limits<index>::max() : bytes, memory);
    done.attribute_seconds = std::chrono::duration<double>(clock::now() - attribution_start).count();
    return done;
  }

  task_scores judge(index t) {
    task_scores row;
    for (index i = 0; i <= t; ++i) {
      const std::vector<index>& test = stream_[i].test;
      const auto written =
          write_answers(b_, model_, words_, stream_.data.test, test, o_.fit.normalisation, o_.generate);
      o_.measure == text_measure::vqa ? score_answers(written, test, row) : score_captions(written, test, row);
    }
    return row;
  }

  index memory_bytes(const token_memory& memory, const std::vector<index>& stored) const {
    return memory.empty() ? 0 : as_files() ? price_of_files(stream_.data.train, stored) : memory.bytes_on_disk();
  }

  tensor_file save() { return to_file(b_, model_, {{"tokenizer", to_json(words_).dump()}}); }
  /// `Error`: another model, or one with another tokenizer.
  void load(const tensor_file& file) {
    require(tokenizer_of(file) == words_, "sequence: the checkpoint's model reads another tokenizer");
    load_parameters(b_, model_, file);
  }

 private:
  bool as_files() const { return o_.memory == memory_kind::coreset && o_.price == picture_price::source; }
  void score_answers(const std::vector<std::string>& written, const std::vector<index>& test, task_scores& row) const {
    double accuracy = 0, exact = 0;
    for (std::size_t i = 0; i < test.size(); ++i) {
      const auto& of = stream_.data.test.samples[static_cast<std::size_t>(test[i])];
      accuracy += vqa_accuracy(written[i], of.answers);
      exact += exact_match(written[i], of);
    }
    row.accuracy.push_back(accuracy / static_cast<double>(test.size()));
    row.others["exact_match"].push_back(exact / static_cast<double>(test.size()));
  }
  void score_captions(const std::vector<std::string>& written, const std::vector<index>& test, task_scores& row) const {
    std::vector<std::vector<std::string>> references;
    for (const index i : test) references.push_back(stream_.data.test.samples[static_cast<std::size_t>(i)].answers);
    const caption_scores s = measure_captions(written, references);
    row.accuracy.push_back(s.cider_d / 10);
    row.others["bleu_4"].push_back(s.bleu[3]);
    row.others["rouge_l"].push_back(s.rouge_l);
  }

  B& b_;
  image_text_model<B>& model_;
  const tokenizer& words_;
  const text_stream& stream_;
  text_sequence_options o_;
  answer_workspace<B> explained_;
};

}  // namespace core_tokensets
