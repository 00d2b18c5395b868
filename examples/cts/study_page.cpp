// The page of a study, and its tables for the terminal.

#include <algorithm>
#include <utility>

#include "study.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

/// "52.2 ± 3.4" of a mean and what it is uncertain by, which may be null.
std::string with_error(const cts::json& mean, const cts::json& error, double factor, int decimals) {
  const std::string text = cts::fixed(factor * mean.get<double>(), decimals);
  return error.is_null() ? text : text + " \u00B1 " + cts::fixed(factor * error.get<double>(), decimals);
}

std::string spread_text(const cts::json& spread, double factor, int decimals) {
  return spread.is_null() ? "\u2013" : with_error(spread.at("mean"), spread.at("deviation"), factor, decimals);
}

std::string mean_text(const cts::json& spread) {
  return spread.is_null() || spread.at("mean").get<double>() == 0 ? "\u2013"
                                                                  : cts::fixed(spread.at("mean").get<double>(), 0);
}

std::string budget_text(const cts::json& row) { return row.at("budget").is_null() ? "any" : row.at("budget").text(); }

cts::report_table accuracy_table_of(const cts::json& study, const cts::json& data) {
  cts::report_table table{{"budget", "memory", "accuracy %", "forgetting %", "bytes used", "samples", "seeds"},
                          {},
                          "Mean and standard deviation over seeds, after the last task."};
  for (const auto& row : data.at("rows")) {
    const auto& accuracy = row.at("accuracy");
    const std::string n = accuracy.is_null() ? "0" : accuracy.at("n").dump();
    const bool ours = row.at("memory") == study.at("ours");
    table.rows.push_back({budget_text(row), row.at("memory").text() + (ours ? " (ours)" : ""),
                          spread_text(accuracy, 100, 1), spread_text(row.at("forgetting"), 100, 1),
                          mean_text(row.at("memory_bytes")), mean_text(row.at("memory_samples")), n});
  }
  return table;
}

cts::report_table difference_table_of(const cts::json& study, const cts::json& data) {
  cts::report_table table{{study.at("ours").text() + " minus"},
                          {},
                          "Points of accuracy by which ours is ahead: pairs of the same seed, mean and standard error, "
                          "and in how many seeds."};
  for (const auto& budget : study.at("budgets")) table.header.push_back("at " + budget.text());
  for (const auto& memory : study.at("memories")) {
    if (memory.at("name") == study.at("ours")) continue;
    std::vector<std::string> cells{memory.at("name").text()};
    for (const auto& budget : study.at("budgets")) {
      cells.push_back("\u2013");
      for (const auto& d : data.at("differences")) {
        if (d.at("memory") != memory.at("name") || d.at("budget") != budget) continue;
        cells.back() = (d.at("mean").get<double>() > 0 ? "+" : "") + with_error(d.at("mean"), d.at("error"), 100, 1) +
                       ", " + d.at("ahead").dump() + " of " + d.at("n").dump();
      }
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

/// "2.31 (1.80 to 2.97)", or what is known of the median.
std::string multiple_text(const cts::json& m) {
  const auto number = [](const cts::json& value) { return cts::fixed(value.get<double>(), 2); };
  const cts::json &k = m.at("k"), &low = m.at("low"), &high = m.at("high");
  if (!k.is_null()) return number(k) + (low.is_null() ? "" : " (" + number(low) + " to " + number(high) + ")");
  if (high.is_null()) return "more than " + number(low);
  if (low.get<double>() == 0) return "less than " + number(high);
  return low == high ? number(low) + " (median)" : number(low) + " to " + number(high) + " (median)";
}

/// What there is to say of the seeds of a multiple: "3, of which 1 only more than".
std::string multiple_seeds(const cts::json& m) {
  std::string text = m.at("n").dump();
  if (m.at("more").get<int>() > 0) text += ", " + m.at("more").dump() + " beyond the largest budget";
  if (m.at("less").get<int>() > 0) text += ", " + m.at("less").dump() + " below the smallest";
  return text;
}

cts::report_table multiple_table_of(const cts::json& study, const cts::json& data) {
  cts::report_table table{{"budget of " + study.at("ours").text(), "rival", "times the bytes", "seeds"},
                          {},
                          "How many times our bytes the rival needs for our accuracy: geometric mean over seeds with "
                          "its 95 % interval, or the median where it is only bounded."};
  for (const auto& m : data.at("multiples"))
    table.rows.push_back({m.at("budget").text(), m.at("rival").text(), multiple_text(m), multiple_seeds(m)});
  return table;
}

/// The line of a memory: accuracies in percent over budgets, or one value where any budget does. No value: nothing
/// done.
cts::bytes_line line_of(const cts::json& data, const std::string& memory, bool ours) {
  cts::bytes_line line{.name = memory, .bytes = {}, .value = {}, .error = {}, .emphasis = ours};
  for (const auto& row : data.at("rows")) {
    const auto& accuracy = row.at("accuracy");
    if (row.at("memory").text() != memory || accuracy.is_null()) continue;
    if (!row.at("budget_bytes").is_null()) line.bytes.push_back(row.at("budget_bytes").get<double>());
    line.value.push_back(100 * accuracy.at("mean").get<double>());
    line.error.push_back(accuracy.at("deviation").is_null() ? 0 : 100 * accuracy.at("deviation").get<double>());
  }
  // Budgets of a plan may come in any order.
  std::vector<std::size_t> order(line.bytes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return line.bytes[a] < line.bytes[b]; });
  cts::bytes_line sorted = line;
  for (std::size_t i = 0; i < order.size(); ++i) {
    sorted.bytes[i] = line.bytes[order[i]], sorted.value[i] = line.value[order[i]];
    sorted.error[i] = line.error[order[i]];
  }
  return sorted;
}

/// The chart of a data set, if there is a point to draw.
std::vector<cts::report_block> chart_of(const cts::json& study, const cts::json& data) {
  cts::bytes_chart chart{.lines = {},
                         .caption =
                             "Means over seeds; bars are standard deviations over seeds. A dashed line is a "
                             "memory that does not depend on the budget.",
                         .x_label = "budget",
                         .y_label = "accuracy, %"};
  bool points = false;
  for (const auto& memory : study.at("memories")) {
    auto line = line_of(data, memory.at("name").text(), memory.at("name") == study.at("ours"));
    if (line.value.empty()) continue;
    points = points || !line.bytes.empty();
    chart.lines.push_back(std::move(line));
  }
  if (!points) return {};
  return {std::move(chart)};
}

/// The command lines of the first seed, those of a memory under each other.
std::vector<cts::report_block> commands_of(const cts::json& study, const cts::json& data) {
  std::vector<cts::report_block> blocks;
  for (const auto& memory : study.at("memories")) {
    std::string lines;
    for (const auto& row : data.at("rows")) {
      if (row.at("memory") != memory.at("name")) continue;
      lines += (lines.empty() ? "" : "\n") + row.at("seeds").at(std::size_t{0}).at("command").text();
    }
    blocks.push_back(cts::report_lines{std::move(lines), memory.at("name").text()});
  }
  return blocks;
}

/// Runs without results: why, or that they were not run yet; a row for all seeds of the same reason.
cts::report_table missing_of(const cts::json& study) {
  cts::report_table table{{"data", "budget", "memory", "seeds", "why"}, {}, ""};
  for (const auto& data : study.at("data")) {
    for (const auto& row : data.at("rows")) {
      std::vector<std::pair<std::string, std::string>> reasons;  // why, and the seeds
      for (const auto& seed : row.at("seeds")) {
        if (seed.contains("accuracy")) continue;
        const std::string why =
            seed.contains("not_possible") ? "not possible: " + seed.at("not_possible").text() : "not run yet";
        auto at = std::find_if(reasons.begin(), reasons.end(), [&](const auto& r) { return r.first == why; });
        if (at == reasons.end()) at = reasons.insert(reasons.end(), {why, ""});
        at->second += (at->second.empty() ? "" : ", ") + seed.at("seed").dump();
      }
      for (const auto& [why, seeds] : reasons)
        table.rows.push_back({data.at("name").text(), budget_text(row), row.at("memory").text(), seeds, why});
    }
  }
  return table;
}

/// A table as it stands on the page: what its caption says as text, which wraps, and short names on one line.
void append_table(std::vector<cts::report_block>& blocks, cts::report_table table) {
  if (!table.caption.empty()) blocks.push_back(cts::report_paragraph{std::exchange(table.caption, {})});
  for (auto& row : table.rows) {
    for (auto& cell : row) {
      if (cell.size() > 36 || cts::detail::looks_like_a_number(cell)) continue;
      for (auto at = cell.find(' '); at != std::string::npos; at = cell.find(' ', at)) cell.replace(at, 1, "\u00A0");
    }
  }
  blocks.push_back(std::move(table));
}

}  // namespace

study_tables tables_of(const cts::json& study, const cts::json& data) {
  return {accuracy_table_of(study, data), difference_table_of(study, data), multiple_table_of(study, data)};
}

cts::report_page study_page(const cts::json& study) {
  const cts::json& runs = study.at("runs");
  cts::report_page page{.title = study.at("title").text(),
                        .subtitle = study.at("about").text(),
                        .facts = {{"Runs done", runs.at("done").dump() + " of " + runs.at("planned").dump()},
                                  {"Not possible", runs.at("not_possible").dump()},
                                  {"Seeds", std::to_string(study.at("seeds").size())},
                                  {"Ours", study.at("ours").text()}},
                        .sections = {}};
  for (const auto& data : study.at("data")) {
    const std::string name = data.at("name").text();
    study_tables tables = tables_of(study, data);
    page.sections.push_back({name, chart_of(study, data)});
    append_table(page.sections.back().blocks, std::move(tables.accuracy));
    for (auto& [heading, table] :
         {std::pair(": differences", &tables.differences), std::pair(": multiples", &tables.multiples)}) {
      if (table->rows.empty()) continue;
      page.sections.push_back({name + heading, {}});
      append_table(page.sections.back().blocks, std::move(*table));
    }
  }
  auto missing = missing_of(study);
  if (!missing.rows.empty()) {
    page.sections.push_back({"Missing results", {}});
    append_table(page.sections.back().blocks, std::move(missing));
  }
  for (const auto& data : study.at("data")) {
    cts::report_section commands{data.at("name").text() + ": commands",
                                 {cts::report_paragraph{"Of the first seed; the others differ in --seed and --out."}}};
    for (auto& block : commands_of(study, data)) commands.blocks.push_back(std::move(block));
    page.sections.push_back(std::move(commands));
  }
  return page;
}

}  // namespace cts_command
