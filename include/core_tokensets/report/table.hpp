#pragma once
// Tables of a page: from JSON results, and the accuracy matrix of a sequence of tasks with a colour in each cell.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/report/html.hpp"

namespace core_tokensets {

/// Rows of text under a header; cells that look like numbers stand at the right. Rows may be shorter than the header.
struct report_table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows = {};
  std::string caption = {};
};

/// R[t][i] = accuracy on task i after training on task t, in 0 .. 1; NaN or a missing cell: not measured. Names may be
/// left out ("after 1", "task 1", ..).
struct accuracy_table {
  std::vector<std::vector<double>> values;
  std::vector<std::string> row_names = {}, column_names = {};
  std::string caption = {};
  bool shares = true;  ///< values are printed in percent and shaded; otherwise they are amounts
};

/// A JSON value as the text of a cell.
inline std::string cell_text(const json& value) {
  if (value.is_null()) return "\u2013";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return number_text(value.get<double>());
  return value.dump();
}

/// A table from an array of objects (a row each, columns in the order in which keys first appear) or from one object
/// (a row for each key). `Error`: other JSON.
inline report_table table_from_json(const json& results, std::string caption = {}) {
  report_table table{{}, {}, std::move(caption)};
  if (results.is_object()) {
    for (const auto& [key, value] : results.items()) table.rows.push_back({key, cell_text(value)});
    return table;
  }
  require(results.is_array(), "table_from_json: ", results.type_name(), ", expected an array of objects or an object");
  for (const auto& row : results) {
    require(row.is_object(), "table_from_json: a row is ", row.type_name(), ", expected an object");
    for (const auto& item : row.items()) {
      if (std::find(table.header.begin(), table.header.end(), item.first) == table.header.end())
        table.header.push_back(item.first);
    }
  }
  for (const auto& row : results) {
    auto& cells = table.rows.emplace_back();
    for (const auto& key : table.header) cells.push_back(row.contains(key) ? cell_text(row[key]) : std::string());
  }
  return table;
}

/// An accuracy matrix from a JSON array of arrays of numbers (null: not measured). `Error`: other JSON.
inline accuracy_table matrix_from_json(const json& values, std::string caption = {}) {
  accuracy_table matrix{{}, {}, {}, std::move(caption)};
  require(values.is_array(), "matrix_from_json: ", values.type_name(), ", expected an array of arrays");
  for (const auto& row : values) {
    require(row.is_array(), "matrix_from_json: a row is ", row.type_name(), ", expected an array of numbers");
    auto& cells = matrix.values.emplace_back();
    for (const auto& cell : row) {
      require(cell.is_number() || cell.is_null(), "matrix_from_json: a cell is ", cell.type_name(),
              ", expected a number or null");
      cells.push_back(cell.is_null() ? std::nan("") : cell.get<double>());
    }
  }
  return matrix;
}

namespace detail {

inline bool looks_like_a_number(const std::string& text) {
  return !text.empty() && text.find_first_of("0123456789") != std::string::npos &&
         text.find_first_not_of("0123456789+-.,eE%\u2013\u00B1 ") == std::string::npos;
}

inline std::string caption_html(const std::string& caption) {
  return caption.empty() ? "" : "<caption>" + escape_html(caption) + "</caption>";
}

inline std::string html_of(const report_table& table) {
  std::string html = "<div class=\"wide\"><table>" + caption_html(table.caption);
  std::vector<bool> numeric;  // a column is numeric if all its filled cells are
  for (const auto& row : table.rows) {
    numeric.resize(std::max(numeric.size(), row.size()), true);
    for (std::size_t c = 0; c < row.size(); ++c)
      numeric[c] =
          numeric[c] && (row[c].empty() || row[c] == "n/a" || row[c] == "\u2013" || looks_like_a_number(row[c]));
  }
  numeric.resize(std::max(numeric.size(), table.header.size()), false);
  const auto cell = [&](const char* tag, const std::string& text, std::size_t column) {
    html += std::string("<") + tag + (numeric[column] ? " class=\"n\">" : ">") + escape_html(text) + "</" + tag + ">";
  };
  if (!table.header.empty()) {
    html += "<thead><tr>";
    for (std::size_t c = 0; c < table.header.size(); ++c) cell("th", table.header[c], c);
    html += "</tr></thead>";
  }
  html += "<tbody>";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (std::size_t c = 0; c < row.size(); ++c) cell("td", row[c], c);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

inline std::string html_of(const accuracy_table& matrix) {
  std::size_t columns = matrix.column_names.size();
  for (const auto& row : matrix.values) columns = std::max(columns, row.size());
  const auto name = [](const std::vector<std::string>& names, std::size_t i, const char* word) {
    return escape_html(i < names.size() ? names[i] : word + std::to_string(i + 1));
  };
  std::string html =
      "<div class=\"wide\"><table class=\"matrix\">" + caption_html(matrix.caption) + "<thead><tr><th></th>";
  for (std::size_t c = 0; c < columns; ++c) html += "<th>" + name(matrix.column_names, c, "task ") + "</th>";
  html += "<th>mean</th></tr></thead><tbody>";
  const auto text = [&](double value) { return matrix.shares ? fixed(100 * value, 1) : number_text(value); };
  for (std::size_t r = 0; r < matrix.values.size(); ++r) {
    html += "<tr><th>" + name(matrix.row_names, r, "after ") + "</th>";
    double sum = 0;
    int measured = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const double value = c < matrix.values[r].size() ? matrix.values[r][c] : std::nan("");
      if (!std::isfinite(value)) {
        html += "<td></td>";
        continue;
      }
      sum += value;
      ++measured;
      const std::string shade =
          " style=\"background:rgba(31,158,137," + fixed(0.05 + 0.65 * std::clamp(value, 0.0, 1.0), 3) + ")\"";
      html += "<td" + (matrix.shares ? shade : std::string()) + ">" + text(value) + "</td>";
    }
    html += "<td class=\"mean\">" + (measured > 0 ? text(sum / measured) : std::string()) + "</td></tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

}  // namespace detail

}  // namespace core_tokensets
