// Texts a second of an image-text model: a training step, and writing with and without caches, every work once a round;
// one JSON line each, then ratios of medians of the same rounds.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core_tokensets/model/generate.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/objectives/cross_entropy.hpp"
#include "core_tokensets/train/text_fit.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

namespace {

constexpr cts::index pictures = 16, texts_per_picture = 4, prompt_length = 10, answer_length = 20, texts = 64;
constexpr std::int32_t begin_token = 0, no_token = -1;

const cts::image_text_config config{.image = {.grid = {64, 64, 3, 8}, .dim = 192, .depth = 6, .heads = 3},
                                    .text = {.vocabulary = 1024, .length = 40, .dim = 192, .depth = 4, .heads = 3}};

/// Pictures of noise that keep the share `keep` of their patches.
cts::token_batch noise(const cts::vit_config& c, double keep) {
  cts::random_stream random(1);
  cts::token_batch batch;
  batch.patch_dim = c.grid.patch_dim();
  for (cts::index s = 0; s < pictures; ++s) {
    for (cts::index k = 0; k < c.grid.tokens(); ++k) {
      if (random.uniform() >= keep) continue;
      batch.positions.push_back(static_cast<std::int32_t>(k));
      for (cts::index i = 0; i < batch.patch_dim; ++i) batch.patches.push_back(static_cast<float>(random.normal()));
    }
    batch.offsets.push_back(static_cast<cts::index>(batch.positions.size()));
  }
  return batch;
}

/// Prompts, with answers behind them or up to the place where these begin.
cts::text_batch words(bool answers) {
  cts::random_stream random(2);
  const auto some = [&](cts::index n) {
    std::vector<std::int32_t> tokens;
    while (n-- > 0) tokens.push_back(static_cast<std::int32_t>(2 + random.below(1000)));
    return tokens;
  };
  cts::text_batch batch;
  for (cts::index s = 0; s < pictures; ++s) {
    batch.next_picture();
    for (cts::index t = 0; t < texts_per_picture; ++t) {
      const auto prompt = some(prompt_length), answer = some(answer_length);
      if (answers) {
        batch.append(prompt, answer, begin_token, 1);
      } else {
        batch.append_prompt(prompt, begin_token);
      }
    }
  }
  return batch;
}

/// The most probable tokens one by one, every text read from its beginning each time.
void write_without_caches(backend& b, const cts::image_text_model<backend>& model, const cts::token_batch& images,
                          cts::image_text_tape<backend>& tape) {
  tape.keep = cts::kept::logits;
  cts::encode(b, model, images, tape);
  const auto start = words(false);
  std::vector<std::vector<std::int32_t>> written;
  for (cts::index q = 0; q < texts; ++q) {
    written.emplace_back(start.tokens.begin() + start.offsets[static_cast<std::size_t>(q)],
                         start.tokens.begin() + start.offsets[static_cast<std::size_t>(q + 1)]);
  }
  const auto vocabulary = static_cast<std::size_t>(config.text.vocabulary);
  for (cts::index step = 0; step < answer_length; ++step) {
    cts::text_batch all;
    for (std::size_t q = 0; q < written.size(); ++q) {
      if (q % texts_per_picture == 0) all.next_picture();
      all.append_prompt(std::span(written[q]).first(written[q].size() - 1), written[q].back());
      all.targets.back() = 0;  // asked for
    }
    cts::decode(b, model, all, tape);
    const auto logits = tape.logits.to_host(b);
    for (std::size_t q = 0; q < written.size(); ++q) {
      const auto row = logits.begin() + static_cast<std::ptrdiff_t>(q * vocabulary);
      written[q].push_back(
          static_cast<std::int32_t>(std::max_element(row, row + static_cast<std::ptrdiff_t>(vocabulary)) - row));
    }
  }
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 7, threads = 0;
  CLI::App app{"texts a second of an image-text model"};
  app.add_option("--rounds", rounds, "each work runs once in each")->check(CLI::PositiveNumber);
  app.add_option("--threads", threads, "0: as many as there are");
  CLI11_PARSE(app, argc, argv);

  backend b(threads);
  cts::image_text_model<backend> model(b, config);
  const auto whole = noise(config.image, 1), quarter = noise(config.image, 0.25);
  const auto taught = words(true), asked = words(false);
  cts::text_training_state<backend> state;
  state.optimiser.reset(b, model.layout().parameters);
  const auto learn = [&](const cts::token_batch& images) {  // the rate leaves the model as it is
    cts::training_step(b, model, images, taught, texts, {}, cts::summed{}, cts::adamw{.learning_rate = 1e-6}, {},
                       state);
  };
  cts::image_text_tape<backend> tape;
  const auto write = [&](cts::index beams) {
    cts::generate(b, model, whole, asked, no_token, {.beams = beams, .length = answer_length});
  };
  const std::vector<std::pair<std::string, std::function<void()>>> works{
      {"train", [&] { learn(whole); }},
      {"replay", [&] { learn(quarter); }},
      {"greedy", [&] { write(1); }},
      {"beam4", [&] { write(4); }},
      {"greedy_without_caches", [&] { write_without_caches(b, model, whole, tape); }},
  };
  std::map<std::string, std::vector<double>> seconds;
  for (int round = -1; round < rounds; ++round) {  // the first warms up
    for (const auto& [name, job] : works) {
      const auto start = std::chrono::steady_clock::now();
      job();
      const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (round >= 0) seconds[name].push_back(took);
    }
  }
  std::map<std::string, double> median;
  for (const auto& [name, job] : works) {
    median[name] = median_of(seconds[name]);
    std::printf("{\"work\": \"%s\", \"threads\": %d, \"texts_per_s\": %.1f, \"median_ms\": %.2f}\n", name.c_str(),
                b.threads(), static_cast<double>(texts) / median[name], median[name] * 1e3);
  }
  std::printf("{\"caches_are_times_as_fast\": %.2f, \"a_quarter_of_the_tokens_is_times_as_fast\": %.2f}\n",
              median["greedy_without_caches"] / median["greedy"], median["train"] / median["replay"]);
}
