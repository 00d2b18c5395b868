// Each layer on its own against finite differences in double, on ragged batches where it knows samples: gradients at
// its input (=) and at its parameters (+=).

#include <functional>
#include <map>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/nn/class_block.hpp"
#include "core_tokensets/nn/decoder_block.hpp"
#include "core_tokensets/nn/patch_embedding.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"

namespace nn_layer_gradients_tests {

namespace {

namespace cts = core_tokensets;
using cts::index;
using numbers = std::vector<double>;

/// A layer with its parameters: `x` `[rows, in]` to `y` `[rows_out, out]`, and back.
template <class B>
struct layer_case {
  using tensor = cts::tensor<B>;
  std::string name;
  index rows = 0, in = 0, rows_out = 0, out = 0;
  cts::parameter_layout layout = {};
  std::function<void(B&, const tensor& parameters, const tensor& x, tensor& y)> forward = {};
  /// After `forward` of the same arguments; may change `dy`.
  std::function<void(B&, const tensor& parameters, const tensor& x, tensor& dy, tensor& gradients, tensor& dx)>
      backward = {};
};

numbers noise(index count, std::uint64_t stream, double shift = 0) {
  cts::random_stream random(11, stream);
  numbers values;
  for (index i = 0; i < count; ++i) values.push_back(random.normal() + shift);
  return values;
}

/// Central differences of `loss` at every one of `values` against `gradient`.
void check_differences(numbers values, const numbers& gradient, const std::function<double(const numbers&)>& loss) {
  constexpr double h = 1e-5;
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = values[i];
    values[i] = x + h;
    const double above = loss(values);
    values[i] = x - h;
    const double below = loss(values);
    values[i] = x;
    const double numeric = (above - below) / (2 * h);
    error += (numeric - gradient[i]) * (numeric - gradient[i]);
    norm += numeric * numeric;
  }
  CHECK(norm > 0);
  CHECK(std::sqrt(error / norm) <= 1e-7);
}

/// The loss is the sum of all outputs, each with a weight of its own.
template <class B>
void check_layer(B& b, const layer_case<B>& c) {
  INFO(c.name);
  const auto upload = [&](const numbers& values, index rows) {
    cts::tensor<B> m;
    m.assign(b, rows, static_cast<index>(values.size()) / rows, values.data());
    return m;
  };
  const numbers x = noise(c.rows * c.in, 1, 0.3), parameters = noise(c.layout.size() + 1, 2, 0.2),
                weights = noise(c.rows_out * c.out, 3);
  const auto loss = [&](const numbers& p, const numbers& input) {
    cts::tensor<B> y(b, c.rows_out, c.out);
    c.forward(b, upload(p, 1), upload(input, c.rows), y);
    const auto values = y.to_host(b);
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += weights[i] * values[i];
    return sum;
  };
  loss(parameters, x);
  cts::tensor<B> dy = upload(weights, c.rows_out), gradients(b, 1, c.layout.size() + 1), dx(b, c.rows, c.in);
  b.fill(*gradients, 1);
  b.fill(*dx, std::nan(""));
  c.backward(b, upload(parameters, 1), upload(x, c.rows), dy, gradients, dx);
  check_differences(x, dx.to_host(b), [&](const numbers& moved) { return loss(parameters, moved); });
  auto got = gradients.to_host(b);
  for (double& g : got) g -= 1;  // they are added to what was there
  for (const auto& p : c.layout.table()) {
    INFO(p.name);
    const auto begin = static_cast<std::ptrdiff_t>(p.where.offset), end = begin + p.where.size();
    if (p.name.ends_with("k_norm.bias")) {  // the same in all keys: no attention moves, and nothing can be compared
      for (auto at = begin; at < end; ++at) CHECK(std::abs(got[static_cast<std::size_t>(at)]) < 1e-12);
      continue;
    }
    check_differences({parameters.begin() + begin, parameters.begin() + end}, {got.begin() + begin, got.begin() + end},
                      [&](const numbers& moved) {
                        auto all = parameters;
                        std::copy(moved.begin(), moved.end(), all.begin() + begin);
                        return loss(all, x);
                      });
  }
}

template <class T>
cts::parameter_view<const T> reading(const T* data) {
  return {data};
}

template <class B>
layer_case<B> linear_case(bool bias) {
  using tensor = cts::tensor<B>;
  layer_case<B> c{bias ? "linear" : "linear without bias", 5, 4, 5, 3};
  const auto l = cts::add_linear(c.layout, "linear", 4, 3, bias);
  c.forward = [l](B& b, const tensor& p, const tensor& x, tensor& y) {
    cts::forward<B, double>(b, l, reading(p.data()), *x, {}, *y);
  };
  c.backward = [l](B& b, const tensor& p, const tensor& x, tensor& dy, tensor& g, tensor& dx) {
    cts::backward<B, double>(b, l, reading(p.data()), {g.data()}, *x, *std::as_const(dy), *dx);
  };
  return c;
}

template <class B>
layer_case<B> layer_norm_case() {
  using tensor = cts::tensor<B>;
  layer_case<B> c{"layer norm", 5, 6, 5, 6};
  const auto l = cts::add_layer_norm(c.layout, "norm", 6, 1e-6);
  const auto tape = std::make_shared<cts::layer_norm_tape<B>>();
  c.forward = [=](B& b, const tensor& p, const tensor& x, tensor& y) {
    cts::forward<B, double>(b, l, reading(p.data()), *x, *tape);
    b.map(cts::fn::copy{}, *y, *std::as_const(tape->y));
  };
  c.backward = [=](B& b, const tensor& p, const tensor& x, tensor& dy, tensor& g, tensor& dx) {
    cts::forward<B, double>(b, l, reading(p.data()), *x, *tape);
    cts::backward<B, double>(b, l, reading(p.data()), {g.data()}, *x, *tape, *std::as_const(dy), *dx);
  };
  return c;
}

/// Samples of 3, 1 and 5 tokens.
const cts::sequences ragged{{0, 3, 4, 9}};

template <class B>
layer_case<B> attention_case() {
  using tensor = cts::tensor<B>;
  constexpr index heads = 2, dim = 6;
  layer_case<B> c{"attention", 9, 3 * dim, 9, dim};
  const auto a = std::make_shared<tensor>();
  const double scale = cts::attention_scale<double>(dim / heads);
  const auto part = [](auto m, index i) { return cts::qkv_part(m, i, heads); };
  c.forward = [=](B& b, const tensor&, const tensor& x, tensor& y) {
    a->resize(b, 1, cts::attention_rows(ragged).size(heads));
    cts::ops::attention<B, double>(b, ragged, part(*x, 0), part(*x, 1), part(*x, 2), scale, (*y).split_cols(heads),
                                   a->data());
  };
  c.backward = [=](B& b, const tensor&, const tensor& x, tensor& dy, tensor&, tensor& dx) {
    tensor y(b, 9, dim);
    c.forward(b, x, x, y);
    cts::ops::attention_backward<B, double>(b, ragged, part(*x, 0), part(*x, 1), part(*x, 2), scale, a->data(),
                                            (*std::as_const(dy)).split_cols(heads), part(*dx, 0), part(*dx, 1),
                                            part(*dx, 2), nullptr);
  };
  return c;
}

template <class B>
layer_case<B> block_case(bool qkv_bias, bool norms = false) {
  using tensor = cts::tensor<B>;
  layer_case<B> c{std::string("block") + (qkv_bias ? "" : " without bias of q, k, v") + (norms ? " with norms" : ""), 9,
                  6, 9, 6};
  const auto l = cts::add_block(c.layout, "block", 6, 2, 8, qkv_bias, 1e-6, norms);
  const auto tape = std::make_shared<cts::block_tape<B>>();
  c.forward = [=](B& b, const tensor& p, const tensor& x, tensor& y) {
    cts::forward<B, double>(b, l, reading(p.data()), ragged, *x, *tape, cts::attention_kept::gradients, *y);
  };
  c.backward = [=](B& b, const tensor& p, const tensor& x, tensor& dy, tensor& g, tensor& dx) {
    tensor y(b, 9, 6);
    cts::forward<B, double>(b, l, reading(p.data()), ragged, *x, *tape, cts::attention_kept::gradients, *y);
    cts::backward<B, double>(b, l, reading(p.data()), {g.data()}, ragged, *x, *tape, true, *dy);
    b.map(cts::fn::copy{}, *dx, *std::as_const(dy));
  };
  return c;
}

/// The last block, of which only the first token of each sample is read.
template <class B>
layer_case<B> class_block_case(bool qkv_bias, bool norms = false) {
  using tensor = cts::tensor<B>;
  layer_case<B> c{
      std::string("class block") + (qkv_bias ? "" : " without bias of q, k, v") + (norms ? " with norms" : ""), 9, 6, 3,
      6};
  const auto l = cts::add_block(c.layout, "block", 6, 2, 8, qkv_bias, 1e-6, norms);
  const auto tape = std::make_shared<cts::class_block_tape<B>>();
  const cts::attention_rows rows(cts::sequences{{0, 1, 2, 3}}, ragged);
  const auto first = std::make_shared<cts::row_list<B>>();
  c.forward = [=](B& b, const tensor& p, const tensor& x, tensor& y) {
    first->assign(b, std::vector<std::int32_t>{0, 3, 4});
    cts::forward<B, double>(b, l, reading(p.data()), rows, *first, *x, *tape, cts::attention_kept::gradients, *y);
  };
  c.backward = [=](B& b, const tensor& p, const tensor& x, tensor& dy, tensor& g, tensor& dx) {
    tensor y(b, 3, 6);
    c.forward(b, p, x, y);
    cts::backward<B, double>(b, l, reading(p.data()), {g.data()}, rows, *first, *x, *tape, *std::as_const(dy), *dx);
  };
  return c;
}

/// Samples of 3, 0 and 2 patches; in the second form one patch is left out and one is scaled up.
template <class B>
layer_case<B> embedding_case(bool scaled, bool norm = false) {
  using tensor = cts::tensor<B>;
  layer_case<B> c{std::string("patch embedding") + (scaled ? " with scale" : "") + (norm ? " and norm" : ""), 5, 8, 8,
                  6};
  cts::patch_embedding l;
  l.proj = cts::add_linear(c.layout, "proj", 8, 6);
  l.class_token = c.layout.add("cls_token", {1, 6}, false);
  l.positions = c.layout.add("pos_embed", {5, 6}, false);
  if (norm) l.norm = cts::add_layer_norm(c.layout, "norm_pre", 6, 1e-6);
  const auto tape = std::make_shared<cts::embedding_tape<B>>();
  const auto plan = std::make_shared<cts::embedding_plan<B>>();
  const auto assign = [=](B& b) {
    const std::vector<double> scale = scaled ? std::vector<double>{1, 0, 1.75, 1, 0.5} : std::vector<double>{};
    plan->assign(b, l, {0, 3, 3, 5}, {0, 2, 3, 1, 2}, scale, {});
  };
  c.forward = [=](B& b, const tensor& p, const tensor& x, tensor& y) {
    assign(b);
    cts::forward<B, double>(b, l, reading(p.data()), *plan, *x, *tape, *y);
  };
  c.backward = [=](B& b, const tensor& p, const tensor& x, tensor& dy, tensor& g, tensor& dx) {
    tensor y(b, 8, 6);
    c.forward(b, p, x, y);
    cts::backward_norm<B, double>(b, l, reading(p.data()), {g.data()}, *tape, *dy);
    cts::backward<B, double>(b, l, reading(p.data()), {g.data()}, *plan, *x, *std::as_const(dy), *dx);
  };
  return c;
}

/// Texts of 2 and 3 tokens about a picture of 3, and one of 1 about a picture of 2: the first rows of x are the texts,
/// the others the image tokens.
template <class B>
layer_case<B> decoder_block_case() {
  using tensor = cts::tensor<B>;
  constexpr index length = 6, image = 5;
  layer_case<B> c{"decoder block", length + image, 6, length, 6};
  const auto l = cts::add_decoder_block(c.layout, "block", 6, 6, 2, 8, 1e-6);
  const auto tape = std::make_shared<cts::decoder_block_tape<B>>();
  const cts::sequences texts{{0, 2, 5, 6}}, texts_of_picture{{0, 5, 6}}, pictures{{0, 3, 5}};
  const cts::decoder_rows rows{{texts, texts, true}, {texts_of_picture, pictures}};
  c.forward = [=](B& b, const tensor& p, const tensor& x, tensor& y) {
    cts::forward<B, double>(b, l, reading(p.data()), rows, (*x).slice_rows(0, length), (*x).slice_rows(length, image),
                            *tape, cts::attention_kept::gradients, *y);
  };
  c.backward = [=](B& b, const tensor& p, const tensor& x, tensor& dy, tensor& g, tensor& dx) {
    tensor y(b, length, 6);
    c.forward(b, p, x, y);
    const auto dtext = (*dx).slice_rows(0, length), dimage = (*dx).slice_rows(length, image);
    b.map(cts::fn::copy{}, dtext, *std::as_const(dy));
    b.fill(dimage, 0.0);
    cts::backward<B, double>(b, l, reading(p.data()), {g.data()}, rows, (*x).slice_rows(0, length),
                             (*x).slice_rows(length, image), *tape, true, dtext, dimage);
  };
  return c;
}

template <class B>
void check_layers(B b) {
  for (const bool with : {true, false}) {
    check_layer(b, linear_case<B>(with));
    check_layer(b, block_case<B>(with));
    check_layer(b, class_block_case<B>(with));
    check_layer(b, embedding_case<B>(with));
    check_layer(b, block_case<B>(with, true));
    check_layer(b, class_block_case<B>(with, true));
    check_layer(b, embedding_case<B>(with, true));
  }
  check_layer(b, layer_norm_case<B>());
  check_layer(b, attention_case<B>());
  check_layer(b, decoder_block_case<B>());
}

}  // namespace

TEST_CASE("every layer's gradients agree with finite differences", "[gradient]") {
  check_layers(cts::reference_backend<double>());
  check_layers(cts::eigen_backend<double>());
}

}  // namespace nn_layer_gradients_tests
