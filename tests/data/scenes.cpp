#include "core_tokensets/data/scenes/scenes.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_scenes_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

/// Test accuracy of multinomial logistic regression on the pixels, by plain stochastic gradient descent.
double linear_accuracy(const cts::dataset_split& split, int epochs, double rate) {
  const auto d = static_cast<std::size_t>(split.train.image_size()),
             k = static_cast<std::size_t>(split.train.classes());
  std::vector<float> w(k * (d + 1), 0.0f), x(d + 1, 1.0f), p(k);
  const auto predict = [&](const cts::dataset& data, cts::index i) {
    const auto* pixels = data.view_of(i).pixels;
    for (std::size_t j = 0; j < d; ++j) x[j] = static_cast<float>(pixels[j]) / 127.5f - 1.0f;
    for (std::size_t c = 0; c < k; ++c)
      p[c] = std::inner_product(x.begin(), x.end(), w.begin() + long(c * (d + 1)), 0.0f);
    return std::max_element(p.begin(), p.end()) - p.begin();
  };
  cts::random_stream random(1);
  for (int e = 0; e < epochs; ++e) {
    const auto step = static_cast<float>(rate / (1 + e));
    for (const auto i : random.permutation(split.train.n())) {
      predict(split.train, i);
      const float top = *std::max_element(p.begin(), p.end());
      float sum = 0;
      for (auto& v : p) sum += v = std::exp(v - top);
      for (std::size_t c = 0; c < k; ++c) {
        const bool right = split.train.labels.data()[i] == static_cast<std::int32_t>(c);
        const float g = step * (p[c] / sum - (right ? 1.0f : 0.0f));
        for (std::size_t j = 0; j <= d; ++j) w[c * (d + 1) + j] -= g * x[j];
      }
    }
  }
  int right = 0;
  for (cts::index i = 0; i < split.test.n(); ++i)
    right += predict(split.test, i) == split.test.labels.data()[i] ? 1 : 0;
  return double(right) / double(split.test.n());
}

}  // namespace

TEST_CASE("scenes: the same for any number of threads, different for each seed", "[data]") {
  cts::scene_options o{.train_per_class = 6, .test_per_class = 2, .seed = 4, .threads = 1};
  const auto one = cts::scenes_with_descriptions(o);
  o.threads = 4;
  const auto four = cts::scenes_with_descriptions(o);
  CHECK(one.data.train.pixels == four.data.train.pixels);
  CHECK(one.data.train.masks == four.data.train.masks);
  CHECK(one.test == four.test);
  one.data.train.check();
  one.data.test.check();
  CHECK(one.data.train.n() == 60);
  CHECK(one.data.test.n() == 20);
  CHECK(std::count(one.data.train.labels.begin(), one.data.train.labels.end(), 3) == 6);
  o.seed = 5;
  CHECK(cts::scenes(o).train.pixels != one.data.train.pixels);
  // Test pictures are not train pictures, and more pictures do not change the first ones.
  CHECK_FALSE(std::equal(one.data.test.pixels.begin(), one.data.test.pixels.end(), one.data.train.pixels.begin()));
  o.seed = 4;
  o.train_per_class = 7;
  const auto more = cts::scenes(o);
  CHECK(std::equal(one.data.train.pixels.begin(), one.data.train.pixels.end(), more.train.pixels.begin()));
}

TEST_CASE("scenes: descriptions, boxes and masks agree with the pictures", "[data]") {
  const auto s = cts::scenes_with_descriptions(
      {.classes = 48, .train_per_class = 4, .test_per_class = 0, .image = 64, .objects = 3, .seed = 9});
  REQUIRE(s.train.size() == 192);
  int several = 0;
  for (cts::index i = 0; i < s.data.train.n(); ++i) {
    const auto& scene = s.train[static_cast<std::size_t>(i)];
    const auto mask = s.data.train.mask_of(i);
    REQUIRE(!scene.objects.empty());
    several += scene.objects.size() > 1 ? 1 : 0;
    const auto& main = scene.objects[0];
    const std::string name = std::string(cts::name_of(main.texture)) + " " + std::string(cts::name_of(main.shape));
    CHECK(s.data.train.class_names[static_cast<std::size_t>(s.data.train.labels[static_cast<std::size_t>(i)])] == name);
    for (std::size_t o = 0; o < scene.objects.size(); ++o) {
      cts::scene_box box{64, 64, 0, 0};
      double area = 0;
      for (cts::index y = 0; y < 64; ++y) {
        for (cts::index x = 0; x < 64; ++x) {
          if (mask[static_cast<std::size_t>(y * 64 + x)] != o + 1) continue;
          area += 1;
          box = {std::min(box.top, y), std::min(box.left, x), std::max(box.bottom, y + 1), std::max(box.right, x + 1)};
        }
      }
      const auto& object = scene.objects[o];
      CHECK(box == object.box);
      const double disc = 3.14159 * object.radius * object.radius;
      CHECK(area > 0.18 * disc);
      CHECK(area < 0.95 * disc);
    }
    for (const auto value : mask) REQUIRE(value <= scene.objects.size());
  }
  CHECK(several > 80);

  cts::scene_description d;
  d.objects.resize(2);
  d.objects[0] = {
      .shape = cts::scene_shape::star, .texture = cts::scene_texture::striped, .size = cts::scene_size::large};
  d.objects[1].colour = cts::scene_colour::blue;
  CHECK(d.text() == "a large red striped star and a medium blue circle");
}

TEST_CASE("scenes: what the mask covers has the object's colour", "[data]") {
  const auto s = cts::scenes_with_descriptions({.train_per_class = 20, .test_per_class = 0, .seed = 2});
  double inside = 0, outside = 0;
  for (cts::index i = 0; i < s.data.train.n(); ++i) {
    const auto& object = s.train[static_cast<std::size_t>(i)].objects[0];
    if (object.texture != cts::scene_texture::plain) continue;
    const auto colour = cts::detail::rgb_of(object.colour);
    const auto mask = s.data.train.mask_of(i);
    double sums[2] = {0, 0}, counts[2] = {0, 0};
    for (cts::index k = 0; k < 32 * 32; ++k) {
      const auto* p = s.data.train.view_of(i).pixels + 3 * k;
      const int part = mask[static_cast<std::size_t>(k)] != 0 ? 1 : 0;
      sums[part] += cts::detail::distance(colour, {p[0] / 255.0, p[1] / 255.0, p[2] / 255.0});
      counts[part] += 1;
    }
    inside = std::max(inside, sums[1] / counts[1]);
    outside = outside == 0 ? sums[0] / counts[0] : std::min(outside, sums[0] / counts[0]);
  }
  CHECK(inside < 0.25);
  CHECK(outside > 0.35);
}

TEST_CASE("scenes: typical objects wear the colour and texture of their class, a pair for each shape", "[data]") {
  const auto s =
      cts::scenes_with_descriptions({.classes = 12, .train_per_class = 20, .test_per_class = 0, .typical = 1});
  std::vector<std::pair<cts::scene_colour, cts::scene_texture>> worn(12);
  for (std::size_t i = 0; i < s.train.size(); ++i) {
    const auto& object = s.train[i].objects[0];
    auto& pair = worn[static_cast<std::size_t>(s.data.train.labels[i])];
    if (i < 12) pair = {object.colour, object.texture};
    CHECK(pair == std::pair(object.colour, object.texture));
  }
  std::sort(worn.begin(), worn.end());
  CHECK(std::adjacent_find(worn.begin(), worn.end()) == worn.end());
  CHECK_THROWS_AS(cts::scenes({.typical = 1.5}), cts::Error);
  // Colour alone goes further with a linear model than shape alone, but not far.
  const auto split = cts::scenes({.train_per_class = 150, .test_per_class = 60, .typical = 1, .seed = 1});
  CHECK(linear_accuracy(split, 4, 0.002) < 0.5);
}

TEST_CASE("scenes: objects of half the scale cover a quarter of the area, a few percent of the picture", "[data]") {
  const auto share = [](double scale) {
    const auto split = cts::scenes({.train_per_class = 30, .test_per_class = 0, .image = 64, .scale = scale});
    const auto& masks = split.train.masks;
    return double(std::count_if(masks.begin(), masks.end(), [](auto m) { return m != 0; })) / double(masks.size());
  };
  const double whole = share(1), half = share(0.5);
  CHECK(half / whole == Approx(0.25).epsilon(0.15));
  CAPTURE(whole, half);
  CHECK(half > 0.02);
  CHECK(half < 0.06);
}

TEST_CASE("scenes: a linear model on pixels does not learn them", "[data]") {
  const auto split = cts::scenes({.train_per_class = 150, .test_per_class = 60, .seed = 1});
  const double accuracy = linear_accuracy(split, 4, 0.002);
  INFO("accuracy " << accuracy);
  CHECK(accuracy < 0.35);
  // The same model learns a set whose classes differ in brightness: the test can tell.
  auto easy = split;
  for (auto* part : {&easy.train, &easy.test}) {
    for (cts::index i = 0; i < part->n(); ++i) {
      for (cts::index k = 0; k < part->image_size(); ++k) {
        auto& pixel = part->pixels.data()[i * part->image_size() + k];
        if (k / 96 == part->labels.data()[i]) pixel = 255;
      }
    }
  }
  CHECK(linear_accuracy(easy, 2, 0.002) > 0.9);
}

TEST_CASE("scenes: options out of range", "[data]") {
  CHECK_THROWS_AS(cts::scenes({.classes = 49}), cts::Error);
  CHECK_THROWS_AS(cts::scenes({.classes = 0}), cts::Error);
  CHECK_THROWS_AS(cts::scenes({.image = 8}), cts::Error);
  CHECK_THROWS_AS(cts::scenes({.objects = 9}), cts::Error);
  CHECK_THROWS_AS(cts::scenes({.scale = 0}), cts::Error);
}

}  // namespace data_scenes_tests
