#pragma once
// The audit of an LRP pass: how much relevance enters and leaves every operation, and who keeps the rest.

#include <string>

#include "core_tokensets/attribution/lrp.hpp"
#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

/// Sums of relevance over one sample before and behind one operation.
struct relevance_flow {
  std::string operation;  ///< "head", "blocks.2.fc1", ...
  double entering = 0, leaving = 0;
  double absorbed() const { return entering - leaving; }
};

/// The whole pass for one sample, from the explained number down to the pixels. What was absorbed is the sum of
/// (entering - leaving) over the operations of a kind, signs and all: `linear` is biases and stabilisers.
struct conservation_report {
  std::string rules;
  std::int32_t explained_class = 0;
  double start = 0;                                        ///< what relevance started as
  double at_tokens = 0, at_embeddings = 0, at_pixels = 0;  ///< sums over the patches and, for tokens, the class token
  double class_token = 0, positions = 0;  ///< kept by class token and registers; given to positions (patches)
  double linear = 0, norms = 0, attention = 0, sums = 0, activations = 0;  ///< absorbed
  double growth = 0;      ///< largest sum of absolute relevance at the input of a block, by that at the start
  bool exploded = false;  ///< growth is beyond the limit or not finite
  std::vector<relevance_flow> flows;
};

struct audit_options {
  double limit = 1e3;  ///< of the growth
};

namespace detail {

/// Totals of each sample at every stage, in order.
template <tensor_backend B>
struct stage_totals {
  using T = typename B::scalar;
  struct record {
    lrp::stage where;
    std::vector<double> totals;
  };
  B* backend;
  std::vector<record>* records;

  void operator()(lrp::stage where, const lrp::sample_rows<B>& rows, const view<const T>& r) const {
    scratch<B> totals(*backend, rows.samples, 1);
    lrp::sample_totals<B, T>(*backend, rows, *totals, r);
    std::vector<T> host(static_cast<std::size_t>(rows.samples));
    backend->download(host.data(), totals.data(), rows.samples);
    records->push_back({where, {host.begin(), host.end()}});
  }
};

/// The flows of one sample from the records of the pass.
template <class Records>
void read_flows(const Records& records, std::size_t s, index depth, conservation_report& report) {
  using lrp::stage;
  index block = depth;
  double residual = 0, now = report.start;
  std::string prefix;
  const auto add = [&](const std::string& name, double entering, double leaving, double& absorbed) {
    report.flows.push_back({prefix + name, entering, leaving});
    absorbed += entering - leaving;
  };
  for (std::size_t i = 0; i < records.size(); ++i) {
    const double left = records[i].totals[s];
    const auto operation = [&](const std::string& name, double& absorbed) {
      add(name, now, left, absorbed);
      now = left;
    };
    const auto sum = [&](const std::string& name) {  // the residual is here, the branch in the next record
      add(name, now, left + records[i + 1].totals[s], report.sums);
      residual = left, now = records[i + 1].totals[s], ++i;
    };
    const auto join = [&](const std::string& name) {
      add(name, residual + now, left, report.sums);
      now = left;
    };
    switch (records[i].where) {
      case stage::head:
        operation("head", report.linear);
        break;
      case stage::choice:
        operation("class token", report.sums);
        break;
      case stage::norm:
        operation("norm", report.norms);
        break;
      case stage::add2_residual:
        prefix = "blocks." + std::to_string(--block) + ".";
        sum("add2");
        break;
      case stage::fc2:
        operation("fc2", report.linear);
        break;
      case stage::activation:
        operation("activation", report.activations);
        break;
      case stage::fc1:
        operation("fc1", report.linear);
        break;
      case stage::norm2:
        operation("norm2", report.norms);
        break;
      case stage::copy2:
        join("copy2");
        break;
      case stage::add1_residual:
        sum("add1");
        break;
      case stage::proj:
        operation("proj", report.linear);
        break;
      case stage::attention:
      case stage::qk_norm: {  // queries of a class block come in a record of their own
        const stage where = records[i].where;
        double total = left;
        for (; i + 1 < records.size() && records[i + 1].where == where; ++i) total += records[i + 1].totals[s];
        where == stage::attention ? add("attention", now, total, report.attention)
                                  : add("qk_norm", now, total, report.norms);
        now = total;
        break;
      }
      case stage::qkv:
        operation("qkv", report.linear);
        break;
      case stage::norm1:
        operation("norm1", report.norms);
        break;
      case stage::copy1:
        join("copy1");
        break;
      case stage::norm_pre:
        prefix.clear();
        operation("norm_pre", report.norms);
        break;
      default:
        break;
    }
  }
}

}  // namespace detail

/// Runs the pass by the rules `c` and reports on each sample.
template <tensor_backend B>
std::vector<conservation_report> audit(const lrp::composite& c, B& b, const vit<B>& model, const token_batch& batch,
                                       const target& t, attribution_workspace<B>& ws,
                                       const audit_options& options = {}) {
  using T = typename B::scalar;
  using totals = detail::stage_totals<B>;
  require(options.limit > 0, "audit: relevance may grow by ", options.limit, ", expected more than 0");
  explain_forward(b, model, batch, t, ws, kept::gradients);
  std::vector<typename totals::record> records;
  const totals observe{&b, &records};
  const index depth = model.config().depth;
  std::vector<std::vector<double>> magnitudes;
  relevance_walk<B, totals> walk(c, b, model, ws, observe);
  for (index i = depth; i-- > 0;) {
    walk.step(i);
    magnitudes.push_back(detail::sample_magnitudes<B, T>(b, ws.all_rows, *std::as_const(ws.relevance)));
  }
  const auto& plan = ws.tape.plan;
  tensor<B> of_rows(b, plan.tokens(), 1), at_embeddings(b, batch.tokens(), model.config().dim),
      at_pixels(b, batch.tokens(), batch.patch_dim), of_embeddings(b, batch.tokens(), 1),
      of_pixels(b, batch.tokens(), 1);
  embedding_relevance(c, b, model, ws, *at_embeddings);
  pixel_relevance<B, T>(c, b, model, batch, ws, *std::as_const(at_embeddings), *at_pixels);
  const auto row_sums = [&](const tensor<B>& of, tensor<B>& sums) {
    b.row_reduce(fn::plus{}, fn::value{}, *sums, *of);
    return sums.to_host(b);
  };
  const auto tokens = row_sums(ws.relevance, of_rows), embeddings = row_sums(at_embeddings, of_embeddings),
             pixels = row_sums(at_pixels, of_pixels);
  const auto logits = ws.tape.logits.to_host(b), seed = ws.dlogits.to_host(b);
  const auto k = static_cast<std::size_t>(model.config().classes);

  std::vector<conservation_report> reports(static_cast<std::size_t>(batch.samples()));
  for (std::size_t s = 0; s < reports.size(); ++s) {
    conservation_report& r = reports[s];
    r.rules = c.name;
    r.explained_class = ws.classes[s];
    double size = 0;
    for (std::size_t i = s * k; i < (s + 1) * k; ++i) {
      const double start = double(seed[i]) * (c.start == lrp::start_value::logit ? double(logits[i]) : 1.0);
      r.start += start, size += std::abs(start);
    }
    detail::read_flows(records, s, depth, r);
    const auto sample = static_cast<index>(s);
    r.class_token = double(tokens[static_cast<std::size_t>(plan.rows().begin(sample))]);
    for (index row = plan.rows().begin(sample + 1) - plan.registers; row < plan.rows().begin(sample + 1); ++row)
      r.class_token += double(tokens[static_cast<std::size_t>(row)]);
    for (index row = plan.rows().begin(sample); row < plan.rows().begin(sample + 1); ++row)
      r.at_tokens += double(tokens[static_cast<std::size_t>(row)]);
    for (index p = batch.offsets[s]; p < batch.offsets[s + 1]; ++p) {
      r.at_embeddings += double(embeddings[static_cast<std::size_t>(p)]);
      r.at_pixels += double(pixels[static_cast<std::size_t>(p)]);
    }
    r.positions = r.at_tokens - r.class_token - r.at_embeddings;
    r.flows.push_back({"positions", r.at_tokens - r.class_token, r.at_embeddings});
    r.flows.push_back({"patch_embed", r.at_embeddings, r.at_pixels});
    for (const auto& at_block : magnitudes) r.growth = std::max(r.growth, size > 0 ? at_block[s] / size : 0);
    r.exploded = !std::isfinite(r.growth) || r.growth > options.limit;
  }
  return reports;
}

inline json to_json(const conservation_report& r) {
  json flows = json::array();
  for (const auto& f : r.flows) {
    flows.push_back(
        {{"operation", f.operation}, {"entering", finite_or_null(f.entering)}, {"leaving", finite_or_null(f.leaving)}});
  }
  return {{"rules", r.rules},
          {"class", r.explained_class},
          {"start", finite_or_null(r.start)},
          {"at_tokens", finite_or_null(r.at_tokens)},
          {"at_embeddings", finite_or_null(r.at_embeddings)},
          {"at_pixels", finite_or_null(r.at_pixels)},
          {"class_token", finite_or_null(r.class_token)},
          {"positions", finite_or_null(r.positions)},
          {"absorbed",
           {{"linear", finite_or_null(r.linear)},
            {"norms", finite_or_null(r.norms)},
            {"attention", finite_or_null(r.attention)},
            {"sums", finite_or_null(r.sums)},
            {"activations", finite_or_null(r.activations)}}},
          {"growth", finite_or_null(r.growth)},
          {"exploded", r.exploded},
          {"flows", flows}};
}

}  // namespace core_tokensets
