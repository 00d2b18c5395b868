#pragma once
// Samples of pictures with text as a decoder reads them: tokens, packed by picture.

#include <span>
#include <string>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/text/text_batch.hpp"
#include "core_tokensets/data/text/tokenizer.hpp"
#include "core_tokensets/data/text/visual_text.hpp"

namespace core_tokensets {

/// The tokens of all samples of a set. Questions are taught by the answer that most people gave, captions by each of
/// their references in turn.
class encoded_texts {
 public:
  /// `Error`: data that do not fit together, a sample whose prompt and answer take more than `length` tokens of the
  /// decoder.
  encoded_texts(const visual_text& data, const tokenizer& words, index length) {
    data.check("texts");
    for (index i = 0; i < data.n(); ++i) {
      const visual_text_sample& sample = data.samples[static_cast<std::size_t>(i)];
      prompts_.push_back(words.encode(sample.prompt));
      answers_.emplace_back();
      if (sample.prompt.empty()) {
        for (const auto& caption : sample.answers) answers_.back().push_back(words.encode(caption));
      } else {
        answers_.back().push_back(words.encode(consensus(sample)));
      }
      for (const auto& answer : answers_.back()) {
        const auto all = static_cast<index>(prompts_.back().size() + answer.size()) + 1;
        require(all <= length, "texts: sample ", i, " ('", sample.prompt, "') takes ", all,
                " tokens, the decoder reads ", length);
      }
    }
  }

  const std::vector<std::int32_t>& prompt(index sample) const { return prompts_[static_cast<std::size_t>(sample)]; }
  /// The answer of a sample that is taught at turn `turn`.
  const std::vector<std::int32_t>& answer(index sample, index turn = 0) const {
    const auto& all = answers_[static_cast<std::size_t>(sample)];
    return all[static_cast<std::size_t>(turn) % all.size()];
  }

 private:
  std::vector<std::vector<std::int32_t>> prompts_;
  std::vector<std::vector<std::vector<std::int32_t>>> answers_;
};

/// Some samples of a set, by the pictures that they are about.
class samples_by_picture {
 public:
  /// `Error`: data that do not fit together, a sample that is not there.
  samples_by_picture(const visual_text& data, std::span<const index> samples)
      : of_(static_cast<std::size_t>(data.images.n())) {
    data.check("texts");
    for (const index i : samples) {
      require(i >= 0 && i < data.n(), "texts: sample ", i, " of ", data.n());
      auto& mine = of_[static_cast<std::size_t>(data.samples[static_cast<std::size_t>(i)].image)];
      if (mine.empty()) pictures_.push_back(data.samples[static_cast<std::size_t>(i)].image);
      mine.push_back(i);
    }
  }

  /// The pictures that the samples are about, each once.
  const std::vector<index>& pictures() const { return pictures_; }
  const std::vector<index>& of(index picture) const { return of_[static_cast<std::size_t>(picture)]; }
  /// At most `limit` of them, chosen at random.
  std::vector<index> some_of(index picture, index limit, random_stream& random) const {
    std::vector<index> chosen = of(picture);
    if (static_cast<index>(chosen.size()) > limit) {
      random.shuffle(std::span(chosen));
      chosen.resize(static_cast<std::size_t>(limit));
    }
    return chosen;
  }

 private:
  std::vector<std::vector<index>> of_;
  std::vector<index> pictures_;
};

}  // namespace core_tokensets
