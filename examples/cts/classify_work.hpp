#pragma once
// What cts classify does on a backend: what a model says of pictures of any size, and why.

#include <cstdio>
#include <filesystem>
#include <functional>
#include <numeric>
#include <span>
#include <tuple>
#include <type_traits>

#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/io/atomic_folder.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/memory/rules/surely.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/report/mosaic.hpp"
#include "core_tokensets/train/evaluate.hpp"
#include "core_tokensets/train/feature_classifiers.hpp"
#include "core_tokensets/train/learner_files.hpp"
#include "methods.hpp"
#include "picture_size.hpp"

namespace cts_command {

namespace cts = core_tokensets;

struct classify_arguments {
  std::string model, method = "grad_lrp", explain, image, backend = "eigen";
  std::vector<std::string> pictures;
  std::ptrdiff_t top = 5, heads = 0;
  double keep = 0.5;
  bool as_json = false;
  int threads = 0;
};

/// A picture as it was found, in the size that the model sees, and what the model says of it.
struct classified {
  std::string path;
  cts::image picture;
  cts::prediction said;
};

/// The pictures in the size that a model sees. `Error` that names all that cannot be read, not the first alone.
inline std::vector<classified> read_pictures(const std::vector<std::string>& paths, const cts::patch_grid& grid) {
  std::vector<classified> all;
  std::string problems;
  for (const std::string& path : paths) {
    try {
      all.push_back({path, cts::fit_picture(cts::read_image(path, grid.channels), grid), {}});
    } catch (const cts::Error& error) {
      problems += (problems.empty() ? "" : "; ") + std::string(error.what());
    }
  }
  cts::require(problems.empty(), problems);
  return all;
}

/// Scores of classes for features, in a run that classifies by them; none for any other model.
using feature_scores = std::function<std::vector<double>(std::span<const float>)>;

inline feature_scores feature_scores_of(const std::filesystem::path& run) {
  if (!cts::saved_learner::in(run)) return {};
  const cts::saved_learner saved(run);
  const auto strategy = saved.state().at("settings").at("strategy").get<std::string>();
  feature_scores found;
  const auto attempt = [&]<class C>(std::type_identity<C>) {
    if (strategy.starts_with(C::name))
      found = [c = C::load(saved.file("strategy"))](std::span<const float> x) { return c.scores(x); };
  };
  attempt(std::type_identity<cts::nearest_class_mean>{});
  attempt(std::type_identity<cts::ridge_regression>{});
  return found;
}

/// Classes by their probability, the likeliest first.
inline std::vector<cts::index> likeliest(const cts::prediction& p, cts::index count) {
  std::vector<cts::index> order(p.all.size());
  std::iota(order.begin(), order.end(), cts::index{0});
  std::stable_sort(order.begin(), order.end(), [&](cts::index a, cts::index c) {
    return p.all[static_cast<std::size_t>(a)] > p.all[static_cast<std::size_t>(c)];
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  return order;
}

/// Prints name and probability of the likeliest classes of each picture, or all of it as JSON.
inline void print_classes(const std::vector<classified>& all, const std::vector<std::string>& names,
                          const classify_arguments& a) {
  cts::json pictures = cts::json::array();
  for (const classified& c : all) {
    cts::json classes = cts::json::array();
    if (!a.as_json && all.size() > 1) std::printf("%s\n", c.path.c_str());
    for (const cts::index k : likeliest(c.said, a.top)) {
      const auto i = static_cast<std::size_t>(k);
      const std::string name = names.empty() ? std::to_string(k) : names[i];
      classes.push_back(cts::json{{"name", name}, {"number", k}, {"probability", c.said.all[i]}});
      if (!a.as_json) std::printf("%6.1f %%  %s\n", 100 * c.said.all[i], name.c_str());
    }
    pictures.push_back(cts::json{{"picture", c.path}, {"classes", classes}});
  }
  if (a.as_json) std::printf("%s\n", pictures.dump(1).c_str());
}

struct classify_work {
  const classify_arguments& a;

  template <class B>
  void operator()(B& b) const {
    const auto method = method_named<B>(a.method);
    cts::vit_hints hints;
    if (a.heads != 0) hints.heads = a.heads;
    if (!a.image.empty()) std::tie(hints.height, hints.width) = picture_size("--image", a.image);
    const auto weights = cts::read_vit(cts::load_weights(a.model), hints);
    const auto model = cts::load_vit(b, weights);
    const auto scores = feature_scores_of(a.model);
    auto all = read_pictures(a.pictures, model.config().grid);
    for (classified& c : all) c.said = said_of(b, model, scores, c.picture);
    if (!a.explain.empty()) explain(b, model, method, all);
    for (const auto& note : weights.notes) {
      if (!a.as_json) std::printf("weights: %s\n", note.c_str());
    }
    print_classes(all, model.config().class_names, a);
  }

 private:
  template <class B>
  static cts::prediction said_of(B& b, const cts::vit<B>& model, const feature_scores& scores,
                                 const cts::image_view& picture) {
    if (!scores) return cts::predict(b, model, picture);
    const auto data = cts::one_picture(picture, model.config().grid);
    return cts::prediction_of<double>(scores(cts::run_model(b, model, data).features), model.config().class_names);
  }

  /// Writes FOLDER/N-NAME.png for each picture: itself, where the model looked, and what a memory would keep of it.
  template <class B, class Method>
  void explain(B& b, const cts::vit<B>& model, const Method& method, const std::vector<classified>& all) const {
    const cts::patch_grid& grid = model.config().grid;
    const cts::output_folder folder(a.explain);
    cts::attribution_workspace<B> workspace;
    cts::token_batch batch;
    for (std::size_t n = 0; n < all.size(); ++n) {
      const classified& c = all[n];
      cts::make_batch(cts::one_picture(c.picture, grid), std::vector<cts::index>{0}, model.config(), batch);
      const auto relevance =
          attribute(method, b, model, batch, cts::target::of_class(static_cast<std::int32_t>(c.said.label)), workspace);
      const auto kept =
          cts::keep(cts::surely_tokens{}, {relevance, cts::tokens_of_share(a.keep, grid.tokens()), n, grid.cols()});
      const std::vector<std::int32_t> positions(kept.positions.begin(), kept.positions.end());
      char percent[32];
      std::snprintf(percent, sizeof percent, " %.0f %%", 100 * c.said.probability);
      const auto file = std::filesystem::path(c.path).stem();
      const std::vector<cts::sheet_cell> cells{
          {cts::grey_to_rgb(c.picture), file.string()},
          {cts::overlay(c.picture, relevance, grid.rows(), grid.cols()), c.said.name + percent},
          {cts::kept_patches(c.picture, grid.patch, positions),
           std::to_string(positions.size()) + " of " + std::to_string(grid.tokens()) + " tokens"}};
      cts::write_png(std::filesystem::path(a.explain) / (std::to_string(n + 1) + "-" + file.string() + ".png"),
                     cts::contact_sheet(cells, {.columns = 3,
                                                .zoom = std::max<cts::index>(1, 256 / grid.height),
                                                .title = "What the model says, where it looked, what is kept"}));
    }
  }
};

}  // namespace cts_command
