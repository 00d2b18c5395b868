#pragma once
// Answers made ready for the measures that take patches away, and their judgement.

#include "core_tokensets/attribution/answers/answers.hpp"
#include "core_tokensets/attribution/measures/judge.hpp"

namespace core_tokensets {

/// A batch of pictures with one text each. The value of a text is the sum of the logits of its answer's tokens, its
/// probability that of the whole answer (without `end`); it is right where each of these tokens is the most probable.
template <tensor_backend B>
struct measured_answers {
  B& b;
  const image_text_model<B>& model;
  const token_batch& images;
  const text_batch& texts;
  std::vector<masked_value> whole;

  /// `Error`: not one text for each picture.
  measured_answers(B& backend, const image_text_model<B>& of, const token_batch& pictures, const text_batch& asked)
      : b(backend), model(of), images(pictures), texts(asked) {
    require(texts.texts() == texts.pictures(), "measure: ", texts.texts(), " texts about ", texts.pictures(),
            " pictures, expected one each");
    std::vector<masked_sample> all;
    for (std::size_t s = 0; s < samples(); ++s) all.push_back({s, std::vector<std::uint8_t>(patches(s), 1)});
    whole = values(missing_tokens::drop, all);
  }

  std::size_t samples() const { return static_cast<std::size_t>(images.samples()); }
  std::span<const index> offsets() const { return images.offsets; }
  std::size_t patches(std::size_t s) const {
    return static_cast<std::size_t>(images.offsets[s + 1] - images.offsets[s]);
  }
  void check(std::span<const double> relevance) const { check_relevance(relevance, images); }

  /// Values of masked samples, in batches of about so many image tokens.
  std::vector<masked_value> values(missing_tokens missing, std::span<const masked_sample> masked) {
    constexpr index most_tokens = 4096;
    require(missing != missing_tokens::rescaled, "measure: tokens are left out by drop or zero");
    std::vector<masked_value> result;
    for (std::size_t next = 0; next < masked.size();) {
      token_batch some;
      text_batch some_texts;
      while (next < masked.size() && (some.samples() == 0 || some.tokens() < most_tokens)) {
        const masked_sample& m = masked[next++];
        append_masked(m, missing, some);
        detail::append_sample(texts, static_cast<index>(m.sample), some_texts);
      }
      run(some, some_texts, result);
    }
    return result;
  }

 private:
  void append_masked(const masked_sample& m, missing_tokens missing, token_batch& to) const {
    const bool drop = missing == missing_tokens::drop;
    const index begin = images.offsets[m.sample], dim = images.patch_dim;
    to.patch_dim = dim;
    index kept = 0;
    for (std::size_t i = 0; i < m.keep.size(); ++i) {
      if (drop && m.keep[i] == 0) continue;
      const index row = begin + static_cast<index>(i);
      const double scale = images.scale.empty() ? 1.0 : images.scale[static_cast<std::size_t>(row)];
      to.patches.insert(to.patches.end(), images.patches.begin() + row * dim, images.patches.begin() + (row + 1) * dim);
      to.positions.push_back(images.positions[static_cast<std::size_t>(row)]);
      to.scale.push_back(m.keep[i] ? scale : 0.0);
      if (!images.token_weights.empty())
        to.token_weights.push_back(images.token_weights[static_cast<std::size_t>(row)]);
      ++kept;
    }
    to.offsets.push_back(to.offsets.back() + kept);
  }

  void run(const token_batch& some, const text_batch& some_texts, std::vector<masked_value>& result) {
    workspace_.tape.keep = kept::logits;
    forward(b, model, some, some_texts, workspace_.tape);
    settle_answers(workspace_.tape.text, workspace_.explained);
    const auto logits = workspace_.tape.logits.to_host(b);
    const auto v = static_cast<std::size_t>(workspace_.tape.logits.cols());
    for (const auto& rows : workspace_.explained) {
      masked_value value{0, 1, true};
      for (const index a : rows) {
        const auto row = static_cast<std::size_t>(a);
        const settled_target token{explained_score::logit, {workspace_.tape.text.targets[row]}, {}};
        const masked_value of_token = detail::read_value(token, 0, std::span(logits).subspan(row * v, v));
        value.value += of_token.value;
        value.probability *= of_token.probability;
        value.right = value.right && of_token.right;
      }
      result.push_back(value);
    }
  }

  answer_workspace<B> workspace_;
};

/// Judges a method on answers by the measures of removal and of sparseness.
template <tensor_backend B, answers_method<B> M>
void judge(const M& method, measured_answers<B>& m, const judge_options& o, answer_workspace<B>& ws, judgement& into) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<double> relevance = attribute(method, m.b, m.model, m.images, m.texts, ws).image;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  into["seconds"].insert(into["seconds"].end(), m.samples(), seconds / static_cast<double>(m.samples()));
  detail::judge_removal(m, relevance, o, into);
  for (std::size_t s = 0; s < m.samples(); ++s)
    into["gini"].push_back(gini(of_sample(std::span<const double>(relevance), m.offsets(), s)));
}

}  // namespace core_tokensets
