#include <core_tokensets/core_tokensets.hpp>
#include <cstdio>

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

int main() {
  // What a device meets: pictures of two kinds of things today, of two other kinds later.
  const auto tasks = cts::class_incremental(
      cts::scenes({.classes = 4, .train_per_class = 200, .test_per_class = 50, .typical = 1}), {.tasks = 2});

  // A small Vision Transformer that may remember 16 KiB; cts::load_vit opens a trained one with timm's names.
  backend b;
  cts::vit<backend> model(b, {.grid = {32, 32, 3, 8}, .dim = 64, .depth = 2, .heads = 4});
  cts::continual_learner learner(b, std::move(model), {.budget = cts::kibibytes(16), .fit = {.epochs = 10}});
  for (const auto& task : tasks) {
    const auto done = learner.learn(task);
    learner.save("learner");  // whenever power fails, the last whole one is there
    std::printf("%s: %td tokens of %td pictures kept in %td bytes\n", task.name.c_str(), done.memory_tokens,
                done.memory_samples, done.memory_bytes);
  }

  // Another day: it goes on from the folder, and says what it sees.
  auto later = cts::load_learner(b, "learner");
  std::printf("still knows %.0f %% of the first task and %.0f %% of the second\n",
              100 * later.evaluate(tasks[0].test()).accuracy, 100 * later.evaluate(tasks[1].test()).accuracy);
  std::printf("the last picture: %s\n", later.predict(tasks.data().test.view_of(199)).name.c_str());
}
