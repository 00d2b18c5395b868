// Every part of the method as a type of one's own: what chooses samples, ranks tokens, keeps some of them, packs their
// pixels, is minimised, and a strategy as a whole. Each is a struct and a function; nothing registers them anywhere.

#include <core_tokensets/core_tokensets.hpp>
#include <cstdio>

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

// A selector: the samples whose gradients are longest (EL2N, Paul et al. 2021).
struct hardest {
  static constexpr const char* name = "hardest";
};
cts::selection_result select(const hardest&, const cts::evidence& e, cts::index k) {
  std::vector<cts::index> order(static_cast<std::size_t>(e.samples));
  for (cts::index i = 0; i < e.samples; ++i) order[static_cast<std::size_t>(i)] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](cts::index a, cts::index b) { return cts::inner(e, a, a) > cts::inner(e, b, b); });
  order.resize(static_cast<std::size_t>(k));
  return {order, std::vector<float>(order.size(), 1.0f)};
}

// An attribution: how much each patch differs from the picture's mean; it needs no model at all.
struct contrast {
  static constexpr const char* name = "contrast";
};
template <class B>
std::vector<double> attribute(const contrast&, B&, const cts::vit<B>&, const cts::token_batch& batch,
                              const cts::target&, cts::attribution_workspace<B>&) {
  std::vector<double> relevance;
  for (cts::index t = 0; t < batch.tokens(); ++t) {
    double sum = 0, square = 0;
    for (cts::index i = 0; i < batch.patch_dim; ++i) {
      const double x = double(batch.patches[static_cast<std::size_t>(t * batch.patch_dim + i)]);
      sum += x, square += x * x;
    }
    relevance.push_back(square - sum * sum / static_cast<double>(batch.patch_dim));
  }
  return relevance;
}

// A token rule: every second of the most relevant tokens, for more variety.
struct every_second {
  static constexpr const char* name = "every-second";
};
std::vector<std::uint16_t> keep(const every_second&, const cts::token_choice& choice) {
  cts::token_choice twice = choice;
  twice.count = std::min<cts::index>(2 * choice.count, static_cast<cts::index>(choice.relevance.size()));
  const auto top = keep(cts::top_tokens{}, twice);
  std::vector<std::uint16_t> kept;
  for (std::size_t i = 0; i < top.size() && static_cast<cts::index>(kept.size()) < choice.count; i += 2)
    kept.push_back(top[i]);
  return kept;
}

// A codec: four bits a number.
struct nibbles {
  static constexpr const char* name = "nibbles";
  std::vector<std::uint8_t> encode(const cts::patch_context&, std::span<const std::uint8_t> pixels) const {
    std::vector<std::uint8_t> bytes;
    for (std::size_t i = 0; i + 1 < pixels.size(); i += 2)
      bytes.push_back(static_cast<std::uint8_t>((pixels[i] & 0xf0) | (pixels[i + 1] >> 4)));
    return bytes;
  }
  void decode(const cts::patch_context& context, std::span<const std::uint8_t> bytes,
              std::span<std::uint8_t> pixels) const {
    cts::require(static_cast<cts::index>(2 * bytes.size()) == context.bytes(), "nibbles: ", bytes.size(), " bytes");
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      pixels[2 * i] = static_cast<std::uint8_t>((bytes[i] & 0xf0) + 8);
      pixels[2 * i + 1] = static_cast<std::uint8_t>((bytes[i] << 4) + 8);
    }
  }
};

// An objective: cross-entropy, and large logits cost something.
struct calm {
  static constexpr const char* name = "calm";
  double weight = 1e-3;
};
template <class B, class T = typename B::scalar>
void loss(const calm& o, B& b, cts::const_view<T> logits, const cts::objective_batch<T>& batch,
          cts::loss_tape<B>& tape) {
  loss(cts::ace{}, b, logits, batch, tape);
  b.map(cts::fn::add_scaled{2 * o.weight / static_cast<double>(logits.rows)}, *tape.dlogits, logits);
}

// A strategy as a whole: the first samples of every class, whole, as many as fit.
struct first_come {
  static constexpr const char* name = "first-come";
};
template <class B>
cts::consolidation consolidate(B&, const first_come&, const cts::vit<B>& model, const cts::task& task,
                               cts::token_memory& memory, cts::index bytes, std::uint64_t) {
  cts::consolidation done;
  const cts::patch_grid& grid = model.config().grid;
  std::vector<std::uint16_t> all(static_cast<std::size_t>(grid.tokens()));
  for (std::size_t k = 0; k < all.size(); ++k) all[k] = static_cast<std::uint16_t>(k);
  for (const cts::index i : task.train_indices) {
    const auto pixels = cts::patchify(task.data->train.view_of(i), grid.patch);
    if (!memory.append_within({.patches = pixels, .positions = all, .target = task.data->train.label(i)}, bytes)) break;
    done.samples.push_back(i);
  }
  return done;
}

int main() {
  backend b(1);
  const auto tasks = cts::class_incremental(
      cts::scenes({.classes = 4, .train_per_class = 30, .test_per_class = 10, .image = 32}), {.tasks = 2});
  const auto model = [&] { return cts::vit<backend>(b, {.grid = {32, 32, 3, 8}, .dim = 32, .depth = 1, .heads = 2}); };
  const cts::learner_options options{.budget = cts::kibibytes(16), .fit = {.epochs = 2}};

  // All of them inside one learner, through a sequence.
  const cts::core_tokenset<hardest, contrast, every_second, nibbles> recipe{.keep = 0.25};
  cts::continual_learner learner(b, model(), options, recipe, calm{});
  const auto result = cts::run_sequence(learner, tasks);
  std::printf("own parts: %td samples of 4 tokens, %td bytes\n", result.memory_samples, result.memory_bytes);

  // In a report, and before the judge.
  const auto& test = tasks.data().test;
  const cts::image sheet = cts::relevance_sheet(b, learner.model(), {test, {0, 1}}, contrast{}, cts::rollout{});
  const cts::image kept = cts::kept_tokens_sheet(learner.memory(), tasks.data().train, learner.sources());
  cts::token_batch batch;
  cts::make_batch(test, std::vector<cts::index>{0, 1, 2}, learner.model().config(), batch);
  cts::measured_batch<backend> measured(b, learner.model(), batch, cts::target::label());
  cts::attribution_workspace<backend> workspace;
  cts::judgement judged;
  cts::judge(contrast{}, b, learner.model(), measured, {}, false, {}, workspace, judged);
  std::printf("a sheet of relevance, one of what is kept: %s; judged by %zu measures\n",
              sheet.pixels.empty() || kept.pixels.empty() ? "missing" : "drawn", cts::to_json(judged).size());

  // The same bits from a file, as long as the program that reads it knows the codec.
  learner.memory().save("own-parts.safetensors");
  const auto again = cts::load_token_memory("own-parts.safetensors", nibbles{});
  std::printf("read again: %s\n", again.sample(0).patches == learner.memory().sample(0).patches ? "the same" : "other");

  cts::continual_learner simple(b, model(), options, first_come{});
  const auto first = cts::run_sequence(simple, tasks);
  std::printf("own strategy: %td samples of %td tokens, %td bytes\n", first.memory_samples,
              first.memory_tokens / first.memory_samples, first.memory_bytes);
}
