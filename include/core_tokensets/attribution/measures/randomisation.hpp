#pragma once
// Sanity checks (Adebayo et al., NeurIPS 2018; Sixt et al., ICML 2020): relevance must change when the model's
// parameters are drawn anew, and when another class is explained.

#include "core_tokensets/attribution/measures/ranking.hpp"
#include "core_tokensets/attribution/workspace.hpp"

namespace core_tokensets {

/// Which layers are random at a time: all from the head down to one (`cascading`), or that one alone.
enum class randomised { cascading, independent };

template <>
inline constexpr std::array words<randomised>{"cascading", "independent"};

struct parameter_randomisation {
  randomised how = randomised::cascading;
  std::uint64_t seed = 0;
};

/// Spearman correlation of relevance with that of the trained model, `[S]` for each layer from the head down.
struct randomisation_result {
  std::vector<std::string> layers;
  std::vector<std::vector<double>> similarity;

  /// Mean over layers and samples.
  double mean() const {
    double sum = 0, count = 0;
    for (const auto& of_layer : similarity) {
      sum += std::accumulate(of_layer.begin(), of_layer.end(), 0.0), count += static_cast<double>(of_layer.size());
    }
    return count > 0 ? sum / count : 0;
  }
};

namespace detail {

/// Names of the layers from the head down, as prefixes of their parameters.
inline std::vector<std::vector<std::string>> layers_from_head(index depth) {
  std::vector<std::vector<std::string>> layers{{"head.", "norm."}};
  for (index i = depth; i-- > 0;) layers.push_back({"blocks." + std::to_string(i) + "."});
  layers.push_back({"patch_embed.", "pos_embed", "cls_token", "reg_token"});
  return layers;
}

/// Draws a layer's parameters from the normal distribution with the mean and deviation of each of them.
template <class T>
void randomise(const parameter_layout& layout, const std::vector<std::string>& prefixes, std::uint64_t seed,
               std::vector<T>& values) {
  std::uint64_t stream = 0;
  for (const parameter& p : layout.table()) {
    ++stream;
    if (std::none_of(prefixes.begin(), prefixes.end(), [&](const auto& x) { return p.name.starts_with(x); })) continue;
    T* at = values.data() + p.where.offset;
    const auto n = static_cast<double>(p.where.size());
    double mean = 0, square = 0;
    for (index i = 0; i < p.where.size(); ++i) mean += double(at[i]) / n, square += double(at[i]) * double(at[i]) / n;
    const double deviation = std::sqrt(std::max(square - mean * mean, 0.0));
    random_stream random(seed, 0x72616e64 + stream);
    for (index i = 0; i < p.where.size(); ++i) at[i] = static_cast<T>(mean + deviation * random.normal());
  }
}

}  // namespace detail

/// `explain(model)` gives the relevance of every patch of the batch; classes must be settled with the trained model.
/// `relevance` is that of the trained model.
template <tensor_backend B, class Explain>
randomisation_result measure(const parameter_randomisation& options, B& b, const vit<B>& model, const Explain& explain,
                             const token_batch& batch, std::span<const double> relevance) {
  const auto trained = model.parameters().to_host(b);
  auto values = trained;
  vit<B> other(b, model.config());
  randomisation_result result;
  for (const auto& layer : detail::layers_from_head(model.config().depth)) {
    if (options.how == randomised::independent) values = trained;
    detail::randomise(model.layout().parameters, layer, options.seed, values);
    other.parameters().assign(b, 1, model.layout().parameters.size(), values.data());
    const std::vector<double> changed = explain(other);
    result.layers.push_back(layer.front().substr(0, layer.front().find_last_not_of('.') + 1));
    result.similarity.emplace_back();
    for (std::size_t s = 0; s < static_cast<std::size_t>(batch.samples()); ++s) {
      result.similarity.back().push_back(spearman(of_sample(relevance, batch.offsets, s),
                                                  of_sample(std::span<const double>(changed), batch.offsets, s)));
    }
  }
  return result;
}

struct random_logit {
  std::uint64_t seed = 0;
};

/// `[S]` Spearman correlation of relevance for the explained class with that for another class, drawn at random. 1
/// means that the method does not see the class.
template <class Explain>
std::vector<double> measure(const random_logit& options, const Explain& explain, const token_batch& batch,
                            const settled_target& explained, index classes, std::span<const double> relevance) {
  require(classes > 1, "random_logit: the model has ", classes, " classes");
  target other{explained.what, explained_class::given};
  for (std::size_t s = 0; s < explained.classes.size(); ++s) {
    random_stream random(options.seed, 0x6c6f67 + static_cast<std::uint64_t>(explained.classes[s]));
    const index drawn = random.below(classes - 1);
    other.classes.push_back(static_cast<std::int32_t>(drawn < explained.classes[s] ? drawn : drawn + 1));
  }
  const std::vector<double> changed = explain(batch, other);
  std::vector<double> result;
  for (std::size_t s = 0; s < explained.classes.size(); ++s) {
    result.push_back(spearman(of_sample(relevance, batch.offsets, s),
                              of_sample(std::span<const double>(changed), batch.offsets, s)));
  }
  return result;
}

}  // namespace core_tokensets
