#pragma once
// What cts ask and cts caption do on a backend.

#include <cstdio>

#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/model/image_text_weights.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/report/mosaic.hpp"
#include "core_tokensets/train/answering.hpp"
#include "methods.hpp"

namespace cts_command {

namespace cts = core_tokensets;

struct ask_arguments {
  std::string model, image, question, method = "generic_attention", out, backend = "eigen";
  std::ptrdiff_t beams = 1, length = 40;
  int threads = 0;
};

/// Writes the answer, and where the model looked for it.
struct ask_work {
  const ask_arguments& a;
  cts::tensor_file file;

  template <class B>
  void operator()(B& b) const {
    const auto method = method_named<B>(a.method);
    method.check_answers();
    (void)cts::tokenizer_of(file);  // told before the rest if there is none
    const auto model = cts::load_image_text(b, file);
    const cts::patch_grid& grid = model.config().image.grid;
    const cts::image picture = cts::fit_picture(cts::read_image(a.image, grid.channels), grid);
    const auto answer = cts::answer(b, model, picture, a.question, method, {.beams = a.beams, .length = a.length});
    std::printf("%s\n", answer.text.c_str());
    if (a.out.empty()) return;
    const std::vector<cts::sheet_cell> cells{
        {cts::grey_to_rgb(picture), a.question},
        {cts::overlay(picture, answer.relevance, grid.rows(), grid.cols()), answer.text}};
    cts::write_png(a.out, cts::contact_sheet(cells, {.columns = 2,
                                                     .zoom = std::max<cts::index>(1, 384 / grid.height),
                                                     .title = "Where the model looked"}));
  }
};

}  // namespace cts_command
