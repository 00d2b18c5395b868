#pragma once
// From the explained logit down through the blocks, one block a step: gradients of attention, and relevance. Only one
// block's matrices are held at a time.

#include <cmath>

#include "core_tokensets/attribution/workspace.hpp"
#include "core_tokensets/nn/lrp/block.hpp"

namespace core_tokensets {

/// Gradients of what is explained: after `step(i)`, `ws.attention_gradient` is that at the attention of block i (laid
/// out as `attention_layout`) and `ws.dtokens` that at the input of block i. Steps go from the last block down.
template <tensor_backend B>
class gradient_walk {
 public:
  using T = typename B::scalar;

  gradient_walk(B& b, const vit<B>& model, attribution_workspace<B>& ws) : b_(b), model_(model), ws_(ws) {
    const auto& l = model.layout();
    auto& tape = ws.tape;
    const index samples = ws.dlogits.rows(), dim = model.config().dim;
    dclass_.resize(b, samples, dim);
    scratch<B> dnorm(b, samples, dim);
    backward<B, T>(b, l.head, model.view_parameters(), {}, *tape.norm.y, *std::as_const(ws.dlogits), *dnorm);
    backward<B, T>(b, l.norm, model.view_parameters(), {}, *tape.class_out, tape.norm, *dnorm, *dclass_);
    ws.dtokens.resize(b, tape.plan.tokens(), dim);
    if (tape.keep != kept::everything) return;
    b.fill(*ws.dtokens, T(0));
    b.scatter_add_rows(*ws.dtokens, *std::as_const(dclass_), tape.plan.class_rows.data());
  }

  void step(index i) {
    auto& tape = ws_.tape;
    const auto at = static_cast<std::size_t>(i);
    const auto p = model_.view_parameters();
    const block& l = model_.layout().blocks[at];
    if (is_class_block(tape, i, model_)) {
      std::swap(tape.last.block.da, ws_.attention_gradient);
      backward<B, T>(b_, l, p, {}, tape.plan.classes, tape.plan.class_rows, *tape.stream[at], tape.last,
                     *std::as_const(dclass_), *ws_.dtokens, true);
      std::swap(tape.last.block.da, ws_.attention_gradient);
    } else {
      std::swap(tape.blocks[at].da, ws_.attention_gradient);
      backward<B, T>(b_, l, p, {}, tape.plan.all, *tape.stream[at], tape.blocks[at], true, *ws_.dtokens);
      std::swap(tape.blocks[at].da, ws_.attention_gradient);
    }
  }

 private:
  B& b_;
  const vit<B>& model_;
  attribution_workspace<B>& ws_;
  tensor<B> dclass_;
};

/// Relevance by the rules of a composite: after `step(i)`, `ws.relevance` `[T, D]` is at the input of block i (behind
/// the first at the tokens as they are before `norm_pre`, if there is one) and
/// `ws.attention_relevance` at its attention. The observer sees every operation. Relevance starts at the classes with
/// their gradient (1 for a logit), or with gradient times logit, as the composite says.
template <tensor_backend B, class Observer = lrp::no_observer>
class relevance_walk {
 public:
  using T = typename B::scalar;

  relevance_walk(const lrp::composite& c, B& b, const vit<B>& model, attribution_workspace<B>& ws,
                 const Observer& observe = {})
      : c_(c), b_(b), model_(model), ws_(ws), observe_(observe) {
    const auto& l = model.layout();
    const auto p = model.view_parameters();
    auto& tape = ws.tape;
    const index samples = ws.dlogits.rows(), dim = model.config().dim;
    scratch<B> start(b, samples, ws.dlogits.cols());
    b.map(fn::copy{}, *start, *std::as_const(ws.dlogits));
    if (c.start == lrp::start_value::logit) b.map(fn::multiply{}, *start, *std::as_const(tape.logits));
    r_class_.resize(b, samples, dim);
    lrp::relevance<B, T>(c.head, b, l.head, p, *tape.norm.y, *std::as_const(tape.logits), *start, *r_class_);
    seen(lrp::stage::head, ws.class_rows, *r_class_);
    lrp::choice_relevance<B, T>(c.copy, b, *tape.norm.y, *r_class_);
    seen(lrp::stage::choice, ws.class_rows, *r_class_);
    lrp::relevance<B, T>(c.norm, b, l.norm, p, *tape.class_out, tape.norm, *r_class_);
    seen(lrp::stage::norm, ws.class_rows, *r_class_);
    ws.relevance.resize(b, tape.plan.tokens(), dim);
    if (tape.keep != kept::everything) return;
    b.fill(*ws.relevance, T(0));
    b.scatter_add_rows(*ws.relevance, *std::as_const(r_class_), tape.plan.class_rows.data());
  }

  void step(index i) {
    auto& tape = ws_.tape;
    const auto at = static_cast<std::size_t>(i);
    const auto p = model_.view_parameters();
    const block& l = model_.layout().blocks[at];
    ws_.attention_relevance.resize(b_, 1, tape_of_block(tape, i, model_).a.size());
    T* r_attention = ws_.attention_relevance.data();
    if (is_class_block(tape, i, model_)) {
      lrp::relevance<B, Observer, T>(c_, b_, l, p, tape.plan.classes, tape.plan.class_rows, ws_.class_rows,
                                     ws_.all_rows, *tape.stream[at], *tape.class_out, tape.last, r_attention, *r_class_,
                                     *ws_.relevance, observe_);
    } else {
      lrp::relevance<B, Observer, T>(c_, b_, l, p, tape.plan.all, ws_.all_rows, *tape.stream[at], *output_of(at),
                                     tape.blocks[at], r_attention, *ws_.relevance, observe_);
    }
    if (i == 0) pass_first_norm();
  }

 private:
  /// From the input of the first block to the tokens before their norm, where they have one.
  void pass_first_norm() {
    const auto& norm = model_.layout().embedding.norm;
    if (!norm) return;
    const auto& t = ws_.tape.embedding;
    lrp::relevance<B, T>(c_.norm, b_, *norm, model_.view_parameters(), *t.sums, *ws_.tape.stream[0], *t.rstd,
                         *ws_.relevance);
    seen(lrp::stage::norm_pre, ws_.all_rows, *std::as_const(ws_.relevance));
  }
  const tensor<B>& output_of(std::size_t block) const { return ws_.tape.stream[block + 1]; }
  void seen(lrp::stage s, const lrp::sample_rows<B>& rows, view<const T> r) const { observe_(s, rows, r); }

  lrp::composite c_;
  B& b_;
  const vit<B>& model_;
  attribution_workspace<B>& ws_;
  Observer observe_;
  tensor<B> r_class_;
};

/// One pass from the logit to the tokens (`ws.relevance` `[T, D]`). `visit(i)` is called behind each block, from the
/// last to the first.
template <tensor_backend B, class Visit, class Observer = lrp::no_observer>
void propagate(const lrp::composite& c, B& b, const vit<B>& model, attribution_workspace<B>& ws, const Visit& visit,
               const Observer& observe = {}) {
  relevance_walk<B, Observer> walk(c, b, model, ws, observe);
  for (index i = model.config().depth; i-- > 0;) {
    walk.step(i);
    visit(i);
  }
}

namespace detail {

/// Words for the first block, from the last down, whose `numbers()` behind `step(i)` are not finite in a sample.
template <tensor_backend B, class Walk>
std::string first_not_finite(B& b, attribution_workspace<B>& ws, index depth, std::size_t sample, Walk walk,
                             const tensor<B>& numbers) {
  for (index i = depth; i-- > 0;) {
    walk.step(i);
    const auto sizes = sample_magnitudes<B, typename B::scalar>(b, ws.all_rows, *numbers);
    if (!std::isfinite(sizes[sample])) return "from block " + std::to_string(i) + " down";
  }
  return "at the tokens";
}

}  // namespace detail

/// `Error` unless relevance at the tokens (`ws.relevance`) is finite in every sample: by rules that do not conserve it
/// may grow without bound, and what is clamped at 0 behind it would hide that.
template <tensor_backend B>
void require_finite(const char* method, const lrp::composite& c, B& b, const vit<B>& model,
                    attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  const auto sizes = detail::sample_magnitudes<B, T>(b, ws.all_rows, *std::as_const(ws.relevance));
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    if (std::isfinite(sizes[s])) continue;
    const auto where =
        detail::first_not_finite(b, ws, model.config().depth, s, relevance_walk<B>(c, b, model, ws), ws.relevance);
    fail(method, ": relevance by the rules '", c.name, "' is not finite ", where, " in sample ", s,
         "; expected rules that fit the model");
  }
}

/// The same for gradients at the tokens (`ws.dtokens`), which products that are clamped at 0 would hide.
template <tensor_backend B>
void require_finite_gradients(const char* method, B& b, const vit<B>& model, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  const auto sizes = detail::sample_magnitudes<B, T>(b, ws.all_rows, *std::as_const(ws.dtokens));
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    if (std::isfinite(sizes[s])) continue;
    const auto where =
        detail::first_not_finite(b, ws, model.config().depth, s, gradient_walk<B>(b, model, ws), ws.dtokens);
    fail(method, ": gradients are not finite ", where, " in sample ", s,
         "; expected weights that fit their arithmetic");
  }
}

/// The relevance of all patches `[P]` of a batch, or an `Error` that names the method and a sample where it is not
/// finite.
inline std::vector<double> finite_relevance(const char* method, const token_batch& batch,
                                            std::vector<double> relevance) {
  const auto bad = std::find_if(relevance.begin(), relevance.end(), [](double x) { return !std::isfinite(x); });
  if (bad == relevance.end()) return relevance;
  const auto sample = std::upper_bound(batch.offsets.begin(), batch.offsets.end(), bad - relevance.begin()) - 1;
  fail(method, ": relevance is not finite in sample ", sample - batch.offsets.begin(),
       ", though it is in every block; expected weights that fit their arithmetic");
}

}  // namespace core_tokensets
