#pragma once
// What cts ask and cts caption do on a backend.

#include <cstdio>

#include "core_tokensets/core_tokensets.hpp"

namespace cts_command {

namespace cts = core_tokensets;

struct ask_arguments {
  std::string weights, image, question, method = "generic_attention", out, backend = "eigen";
  std::ptrdiff_t beams = 1, length = 40;
  int threads = 0;
};

/// The picture in the size that the model sees, as a data set with one sample.
inline cts::visual_text one_picture(const ask_arguments& a, const cts::vit_config& c) {
  cts::visual_text data;
  const cts::image picture = cts::resize(cts::read_image(a.image, c.image.channels), c.image.height, c.image.width);
  data.images.height = c.image.height, data.images.width = c.image.width, data.images.channels = c.image.channels;
  data.images.pixels = picture.pixels;
  data.images.labels = {0};
  data.images.class_names = data.group_names = {"picture"};
  data.samples.push_back({0, a.question, {""}, 0});
  return data;
}

/// Writes the answer, and where the model looked for it.
struct ask_work {
  const ask_arguments& a;
  cts::attribution_method method;
  cts::tensor_file file;
  cts::tokenizer words;

  template <class B>
  void operator()(B& b) const {
    const auto model = cts::load_image_text(b, file);
    const cts::vit_config& c = model.config().image;
    const auto data = one_picture(a, c);
    const auto answers = cts::explain_written(b, model, words, data, std::vector<cts::index>{0}, method, {},
                                              {.beams = a.beams, .length = a.length});
    std::printf("%s\n", answers[0].text.c_str());
    if (a.out.empty()) return;
    const cts::image_view picture = data.images.view_of(0);
    const std::vector<cts::sheet_cell> cells{
        {cts::grey_to_rgb(picture), a.question},
        {cts::overlay(picture, answers[0].relevance, c.grid_height(), c.grid_width()), answers[0].text}};
    cts::write_png(a.out, cts::contact_sheet(cells, {.columns = 2,
                                                     .zoom = std::max<cts::index>(1, 384 / c.image.height),
                                                     .title = "Where the model looked"}));
  }
};

}  // namespace cts_command
