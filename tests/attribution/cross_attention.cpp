// The rules of generic attention explainability for cross-attention and for whole matrices, on given maps.

#include "core_tokensets/attribution/answers/cross_attention.hpp"

#include "core_tokensets/attribution/passes/walk.hpp"
#include "support.hpp"

namespace attribution_cross_attention_tests {

namespace {

using namespace attribution_tests;
using cts::index;
using cts::self_relevance;
using cts::token_map;

struct maps {
  cts::tensor_file in = cts::load_safetensors(golden::folder("generic_xattn") / "inputs.safetensors");
  cts::tensor_file want = cts::load_safetensors(golden::folder("generic_xattn") / "outputs.safetensors");

  auto shape(const std::string& layer) const {
    const auto& s = in.at("attn." + layer).shape;
    return std::array<index, 3>{s[s.size() - 3], s[s.size() - 2], s[s.size() - 1]};
  }
  std::vector<double> attention(const std::string& layer) const { return in.at("attn." + layer).as<double>(); }
  std::vector<double> gradient(const std::string& layer) const { return in.at("grad." + layer).as<double>(); }
  token_map c(const std::string& layer) const {
    const auto [heads, rows, cols] = shape(layer);
    return cts::positive_mean(attention(layer), gradient(layer), heads, rows, cols);
  }
  /// Mean over heads of attention itself.
  token_map mean(const std::string& layer) const {
    const auto [heads, rows, cols] = shape(layer);
    const auto a = attention(layer);
    return cts::positive_mean(a, std::vector<double>(a.size(), 1.0), heads, rows, cols);
  }
  void check(const std::string& name, const token_map& got) const { check_close(want, name, got.values, 1e-9); }
};

const std::vector<std::pair<std::string, self_relevance>> variants{{"default", self_relevance::normalised},
                                                                   {"nonorm", self_relevance::as_it_is},
                                                                   {"noself10", self_relevance::unused}};

void check_two_streams(const maps& m, const std::string& name, self_relevance how) {
  cts::two_stream_relevance r(7, 9, how);
  for (const char* i : {"0", "1", "2"}) r.text_self(m.c("two.text." + std::string(i)));
  for (const char* i : {"0", "1"}) r.image_self(m.c("two.image." + std::string(i)));
  for (const std::string i : {"0", "1", "2"}) {
    const std::string layer = "two.x." + i + ".";
    if (i == "2") {
      r.last_cross(m.c(layer + "text_to_image"));
      r.text_self(m.c(layer + "text_self"));
    } else {
      r.cross(m.c(layer + "text_to_image"), m.c(layer + "image_to_text"));
      r.text_self(m.c(layer + "text_self"));
      r.image_self(m.c(layer + "image_self"));
    }
  }
  r.text_text(0, 0) = 0;
  m.check("two." + name + ".R_tt", r.text_text);
  m.check("two." + name + ".R_ti", r.text_image);
  m.check("two." + name + ".R_ii", r.image_image);
  m.check("two." + name + ".R_it", r.image_text);
}

void check_encoder_decoder(const maps& m, const std::string& name, self_relevance how) {
  cts::encoder_decoder_relevance r(8, 6, how);
  for (const char* i : {"0", "1"}) r.encoder_self(m.c("encdec.enc." + std::string(i)));
  for (const char* i : {"0", "1", "2"}) {
    r.decoder_self(m.c("encdec.dec." + std::string(i) + ".self"));
    r.cross(m.c("encdec.dec." + std::string(i) + ".cross"));
  }
  m.check("encdec." + name + ".R_ii", r.image_image);
  m.check("encdec." + name + ".R_qq", r.query_query);
  m.check("encdec." + name + ".R_qi", r.query_image);
}

template <class B>
void check_whole_matrix(B& b, const golden::vit_case<B>& c) {
  const auto want = c.file("attribution");
  const auto& config = c.model.config();
  const index n = config.grid.tokens() + 1, samples = c.batch.samples(), per_sample = config.heads * n * n;
  for (const auto& [name, t] : golden_targets()) {
    cts::attribution_workspace<B> ws;
    cts::explain_forward(b, c.model, c.batch, t, ws);
    cts::gradient_walk<B> walk(b, c.model, ws);
    std::vector<std::vector<double>> attention, gradient;
    for (index i = config.depth; i-- > 0;) {
      walk.step(i);
      const auto a = ws.tape.blocks[std::size_t(i)].a.to_host(b), g = ws.attention_gradient.to_host(b);
      attention.emplace_back(a.begin(), a.end());
      gradient.emplace_back(g.begin(), g.end());
    }
    std::vector<double> all;
    for (index s = 0; s < samples; ++s) {
      token_map r = token_map::identity(n);
      for (std::size_t i = attention.size(); i-- > 0;) {
        const auto part = [&](const std::vector<double>& v) {
          return std::span(v).subspan(std::size_t(s * per_sample), std::size_t(per_sample));
        };
        r += cts::multiply(cts::positive_mean(part(attention[i]), part(gradient[i]), config.heads, n, n), r);
      }
      all.insert(all.end(), r.values.begin(), r.values.end());
    }
    check_close(want, "generic.R." + name, all, tolerance<typename B::scalar>());
  }
}

}  // namespace

TEST_CASE("the rules of cross-attention give the reference's numbers", "[attribution][golden]") {
  const maps m;
  for (const auto& [name, how] : variants) {
    check_two_streams(m, name, how);
    check_encoder_decoder(m, name, how);
  }
  std::vector<token_map> encoder, decoder;
  for (const char* i : {"0", "1"}) encoder.push_back(m.mean("encdec.enc." + std::string(i)));
  for (const char* i : {"0", "1", "2"}) decoder.push_back(m.mean("encdec.dec." + std::string(i) + ".self"));
  const std::string last = "encdec.dec.2.cross";
  const auto [heads, rows, cols] = m.shape(last);
  m.check("encdec.rollout.R_qi",
          cts::multiply(cts::rollout_of(decoder), cts::multiply(m.mean(last), cts::rollout_of(encoder)), true));
  m.check("encdec.gradcam.R_qi", cts::attention_grad_cam(m.attention(last), m.gradient(last), heads, rows, cols));
  m.check("encdec.raw.R_qi", m.mean(last));
}

TEST_CASE("the whole matrix of generic attention is the reference's", "[attribution][golden]") {
  on_every_case([](auto& b, const auto& c) { check_whole_matrix(b, c); });
}

TEST_CASE("maps of other shapes are errors", "[attribution]") {
  token_map a = token_map::zeros(2, 3);
  CHECK_THROWS_AS(a += token_map::zeros(3, 2), cts::Error);
  CHECK_THROWS_AS(cts::multiply(a, a), cts::Error);
  CHECK(cts::multiply(a, token_map::identity(2), true).rows == 3);
  CHECK_THROWS_AS(cts::positive_mean(std::vector<double>(4), std::vector<double>(4), 1, 2, 3), cts::Error);
}

}  // namespace attribution_cross_attention_tests
