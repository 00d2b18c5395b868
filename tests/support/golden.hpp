#pragma once
// Golden cases: where they lie, how far a result is from them, and a ViT case made ready.

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/model/vit_weights.hpp"

namespace golden {

namespace cts = core_tokensets;

/// Folder of a case: committed ones under tests/goldens, the others in the folder that CTS_SHARED names. Empty if
/// missing.
inline std::filesystem::path folder(const std::string& name) {
  const auto here = std::filesystem::path(CTS_TEST_DIR) / "goldens" / name;
  if (std::filesystem::exists(here)) return here;
  if (const char* shared = std::getenv("CTS_SHARED")) {
    const auto there = std::filesystem::path(shared) / "goldens" / name;
    if (std::filesystem::exists(there)) return there;
  }
  return {};
}

/// ||got - want|| / ||want||, or ||got|| where want is 0.
template <class A, class C>
double distance(const A& got, const C& want) {
  if (got.size() != want.size()) return HUGE_VAL;
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double difference = double(got[i]) - double(want[i]);
    error += difference * difference;
    norm += double(want[i]) * double(want[i]);
  }
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

/// Whole images f32 [B, C, H, W] as a batch with labels.
inline cts::token_batch batch_of(const cts::tensor_file& inputs, const cts::vit_config& c) {
  const auto& images = inputs.at("images");
  auto batch = cts::patchify(images.as<float>(), c.grid);
  batch.targets = inputs.at("labels").as<std::int32_t>();
  return batch;
}

/// One ViT case: model, batch, and its result files by name.
template <class B>
struct vit_case {
  std::filesystem::path where;
  cts::vit<B> model;
  cts::token_batch batch;

  cts::tensor_file file(const std::string& name) const {
    return cts::load_safetensors(where / (name + ".safetensors"));
  }
};

template <class B>
vit_case<B> load_case(B& b, const std::filesystem::path& where) {
  auto model = cts::load_vit(b, where / "weights.safetensors");
  auto batch = batch_of(cts::load_safetensors(where / "inputs.safetensors"), model.config());
  return {where, std::move(model), std::move(batch)};
}

}  // namespace golden
