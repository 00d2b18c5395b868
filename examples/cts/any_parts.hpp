#pragma once
// Parts of learning that are chosen by name, each behind one call a backend, so that a learner is compiled once for all
// of them.

#include <any>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core_tokensets/memory/codecs/token_codecs.hpp"
#include "core_tokensets/memory/token_rules.hpp"
#include "core_tokensets/selection/any_selector.hpp"
#include "core_tokensets/train/learner_parts.hpp"
#include "core_tokensets/train/objectives/objectives.hpp"

namespace cts_command {

namespace cts = core_tokensets;

/// One token rule of any type.
struct any_rule {
  std::string text;
  bool needs_relevance = true;
  cts::token_weighting kept_weights = cts::token_weighting::none;
  std::function<cts::kept_tokens(const cts::token_choice&)> choose;
  std::function<any_rule(std::uint64_t)> seeded;

  any_rule() : any_rule(cts::surely_tokens{}) {}
  template <class R>
  requires(!std::same_as<R, any_rule>) explicit any_rule(const R& rule)
      : text(cts::text_of(rule)),
        needs_relevance(cts::needs_relevance(rule)),
        kept_weights(cts::weighting_of(rule)),
        choose([rule](const cts::token_choice& c) { return keep(rule, c); }),
        seeded([rule](std::uint64_t seed) { return any_rule(cts::detail::seeded(rule, seed)); }) {}
  any_rule with_seed(std::uint64_t seed) const { return seeded(seed); }
  cts::token_weighting weighting() const { return kept_weights; }
};

/// Templates, so that nothing is converted to `any_rule` on the way.
template <std::same_as<any_rule> R>
cts::kept_tokens keep(const R& rule, const cts::token_choice& c) {
  return rule.choose(c);
}
template <std::same_as<any_rule> R>
std::string text_of(const R& rule) {
  return rule.text;
}

/// One objective of any type on backend B.
template <class B>
struct any_objective {
  using T = typename B::scalar;
  std::string text;
  bool uses_start_model = false;
  cts::index stored = 0;
  std::function<cts::index(cts::index, cts::index, cts::index, cts::index)> alike;
  std::function<void(B&, cts::const_view<T>, const cts::objective_batch<T>&, cts::loss_tape<B>&)> write;

  any_objective() : any_objective(cts::ace{}) {}
  template <class O>
  requires(!std::same_as<O, any_objective>) explicit any_objective(const O& o)
      : text(cts::text_of(o)),
        uses_start_model(cts::uses_start_model(o)),
        stored(cts::stored_logits(o)),
        alike([o](cts::index fresh, cts::index replayed, cts::index first_class, cts::index classes) {
          return cts::on_equal_footing(o, fresh, replayed, first_class, classes);
        }),
        write([o](B& b, cts::const_view<T> logits, const cts::objective_batch<T>& batch, cts::loss_tape<B>& tape) {
          loss(o, b, logits, batch, tape);
        }) {}
  cts::index stored_logits() const { return stored; }
  cts::index on_equal_footing(cts::index fresh, cts::index replayed, cts::index first_class, cts::index classes) const {
    return alike(fresh, replayed, first_class, classes);
  }
};

template <class B>
void loss(const any_objective<B>& o, B& b, cts::const_view<typename B::scalar> logits,
          const cts::objective_batch<typename B::scalar>& batch, cts::loss_tape<B>& tape) {
  o.write(b, logits, batch, tape);
}
template <class B>
std::string text_of(const any_objective<B>& o) {
  return o.text;
}

/// One optimiser of any type on backend B.
template <class B>
struct any_optimiser {
  std::string text;
  std::function<void(B&, cts::optimiser_state<B>&, cts::tensor<B>&, const cts::tensor<B>&, double,
                     std::span<const cts::parameter_group>)>
      move;

  any_optimiser() : any_optimiser(cts::adamw{}) {}
  template <class O>
  requires(!std::same_as<O, any_optimiser>) explicit any_optimiser(const O& o)
      : text(cts::text_of(o)),
        move([o](B& b, cts::optimiser_state<B>& state, cts::tensor<B>& parameters, const cts::tensor<B>& gradients,
                 double schedule, std::span<const cts::parameter_group> groups) {
          step(b, o, state, parameters, gradients, schedule, groups);
        }) {}
};

template <class B>
void step(B& b, const any_optimiser<B>& o, cts::optimiser_state<B>& state, cts::tensor<B>& parameters,
          const cts::tensor<B>& gradients, double schedule, std::span<const cts::parameter_group> groups) {
  o.move(b, state, parameters, gradients, schedule, groups);
}
template <class B>
std::string text_of(const any_optimiser<B>& o) {
  return o.text;
}

/// One strategy of any type for a model on backend B; copies share what it learnt.
template <class B, class Model>
struct any_strategy {
  using data_type = typename cts::detail::model_kind<Model>::data_type;
  using task_type = cts::basic_task<data_type>;
  std::string text;
  std::function<cts::consolidation(B&, const Model&, const task_type&, cts::token_memory&, cts::index, std::uint64_t)>
      put;
  std::function<std::optional<task_type>(const task_type&)> lesson;
  std::function<cts::token_memory(cts::token_memory_format)> memory;
  std::function<cts::index(const cts::token_memory&)> price;
  std::function<cts::index(const task_type&, const cts::token_memory&)> least;
  std::function<std::vector<double>(B&, const Model&, const cts::sample_view<data_type>&)> scores;
  std::function<void(B&, const Model&, const cts::token_batch&, const cts::text_batch*, cts::missing_tokens,
                     cts::token_batch&)>
      form;
  std::function<cts::tensor_file()> save;
  std::function<void(const cts::tensor_file&)> load;

  template <class S>
  requires(!std::same_as<S, any_strategy>) explicit any_strategy(const S& strategy) : text(cts::text_of(strategy)) {
    const auto s = std::make_shared<S>(strategy);
    put = [s](B& b, const Model& model, const task_type& t, cts::token_memory& m, cts::index bytes,
              std::uint64_t seed) { return consolidate(b, *s, model, t, m, bytes, seed); };
    lesson = [s](const task_type& t) { return cts::detail::training_task_of(*s, t); };
    memory = [s](cts::token_memory_format format) {
      if constexpr (requires { empty_memory(*s, format); }) return empty_memory(*s, std::move(format));
      return cts::token_memory(std::move(format));
    };
    price = [s](const cts::token_memory& m) { return cts::detail::price_of(*s, m); };
    least = [s](const task_type& t, const cts::token_memory& m) { return cts::detail::least_price_of(*s, t, m); };
    scores = [s](B& b, const Model& model, const cts::sample_view<data_type>& samples) {
      if constexpr (requires { class_scores(b, *s, model, samples); }) {
        return class_scores(b, *s, model, samples);
      } else if constexpr (requires { run_model(b, model, samples).logits; }) {
        const auto logits = run_model(b, model, samples).logits;
        return std::vector<double>(logits.begin(), logits.end());
      } else {
        return std::vector<double>();
      }
    };
    if constexpr (requires(B & b, const Model& model, cts::token_batch& x) {
                    remembered(b, *s, model, x, nullptr, cts::missing_tokens::drop, x);
                  }) {
      form = [s](B& b, const Model& model, const cts::token_batch& whole, const cts::text_batch* texts,
                 cts::missing_tokens how, cts::token_batch& out) { remembered(b, *s, model, whole, texts, how, out); };
    }
    save = [s] {
      if constexpr (requires { save_state(*s); }) return save_state(*s);
      return cts::tensor_file{};
    };
    load = [s](const cts::tensor_file& file) {
      if constexpr (requires { load_state(*s, file); }) load_state(*s, file);
    };
  }
};

template <class B, class Model, class Task>
cts::consolidation consolidate(B& b, const any_strategy<B, Model>& s, const Model& model, const Task& t,
                               cts::token_memory& memory, cts::index bytes, std::uint64_t seed) {
  return s.put(b, model, t, memory, bytes, seed);
}
template <class B, class Model>
std::optional<typename any_strategy<B, Model>::task_type> training_task(
    any_strategy<B, Model>& s, const typename any_strategy<B, Model>::task_type& t) {
  return s.lesson(t);
}
template <class B, class Model>
cts::token_memory empty_memory(const any_strategy<B, Model>& s, cts::token_memory_format format) {
  return s.memory(std::move(format));
}
template <class B, class Model>
cts::index memory_price(const any_strategy<B, Model>& s, const cts::token_memory& memory) {
  return s.price(memory);
}
template <class B, class Model>
cts::index least_price(const any_strategy<B, Model>& s, const typename any_strategy<B, Model>::task_type& t,
                       const cts::token_memory& memory) {
  return s.least(t, memory);
}
template <class B, class Model>
std::vector<double> class_scores(B& b, const any_strategy<B, Model>& s, const Model& model,
                                 const cts::sample_view<cts::dataset>& samples) {
  return s.scores(b, model, samples);
}
template <class B, class Model>
void remembered(B& b, const any_strategy<B, Model>& s, const Model& model, const cts::token_batch& whole,
                const cts::text_batch* texts, cts::missing_tokens how, cts::token_batch& out) {
  if (s.form) {
    s.form(b, model, whole, texts, how, out);
  } else {
    out = whole;  // a memory that keeps pictures as they are
  }
}
template <class B, class Model>
cts::tensor_file save_state(const any_strategy<B, Model>& s) {
  return s.save();
}
template <class B, class Model>
void load_state(any_strategy<B, Model>& s, const cts::tensor_file& file) {
  s.load(file);
}
template <class B, class Model>
std::string text_of(const any_strategy<B, Model>& s) {
  return s.text;
}

}  // namespace cts_command
