#include <core_tokensets/core_tokensets.hpp>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

int main() {
  // A small Vision Transformer; cts::load_vit opens one with timm's parameter names.
  backend b;
  const cts::vit<backend> model(b,
                                {.image = {32, 32, 3}, .patch = 8, .dim = 48, .depth = 2, .heads = 4, .classes = 10});

  // One picture as a packed batch of 16 tokens, and how much each of them matters for the predicted class.
  const std::vector<float> picture(3 * 32 * 32, 0.5f);
  const cts::token_batch batch = cts::patchify(picture, 1, model.config().image, model.config().patch);
  cts::attribution_workspace<backend> workspace;
  const std::vector<double> scores = cts::attribute(cts::grad_lrp{}, b, model, batch, {}, workspace);

  // A memory that keeps the four tokens that matter most, as a file that any safetensors reader opens.
  cts::token_memory memory({.image_height = 32, .image_width = 32, .channels = 3, .patch = 8});
  const std::vector<std::uint8_t> pixels(batch.patches.size(), 128);
  const std::vector<std::uint16_t> positions(batch.positions.begin(), batch.positions.end());
  const std::vector<float> relevance(scores.begin(), scores.end());
  memory.append({.patches = pixels, .positions = positions, .relevance = relevance, .target = 3});
  memory.shrink(4);
  memory.save("memory.safetensors");
  std::printf("%td of %td tokens kept\n", memory.tokens(), batch.tokens());
}
