#pragma once
// Charts of a page, as SVG that takes its colours from the page: bars with errors, lines with error bands.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/report/html.hpp"

namespace core_tokensets {

/// One bar: a value and how far it is uncertain to both sides. `emphasis` draws it in the page's strong colour.
struct chart_bar {
  std::string name;
  double value = 0, error = 0;
  bool emphasis = false;
};

/// Bars one under the other, from 0. `unit` stands behind the values ("%").
struct bar_chart {
  std::vector<chart_bar> bars;
  std::string caption = {}, unit = {};
  int decimals = 1;
};

/// One line through points, with a band of `error` around it where that is given (as long as `y`).
struct chart_line {
  std::string name;
  std::vector<double> x, y, error = {};
};

/// Lines over common axes.
struct line_chart {
  std::vector<chart_line> lines;
  std::string caption = {}, x_label = {}, y_label = {};
};

namespace detail {

/// Ends and step of an axis: round numbers that hold [low, high].
struct axis {
  double low, high, step;
  int decimals;

  axis(double from, double to, int most_ticks = 6, bool whole_numbers = false) {
    if (!(to > from)) to = from + (from == 0 ? 1 : std::abs(from) * 0.1);
    step = std::pow(10.0, std::floor(std::log10((to - from) / most_ticks)));
    for (const double factor : {2.0, 2.5, 2.0}) {
      if ((to - from) / step > most_ticks) step *= factor;
    }
    if (whole_numbers) step = step == 2.5 ? 5.0 : std::max(step, 1.0);
    low = std::floor(from / step + 1e-9) * step;
    high = std::ceil(to / step - 1e-9) * step;
    // 2.5 and its tens need one decimal more than their size says
    const double place = std::floor(std::log10(step) + 1e-9);
    const bool half = std::abs(step / std::pow(10.0, place) - 2.5) < 1e-9;
    decimals = static_cast<int>(std::max(0.0, -place + (half ? 1 : 0)));
  }
  int ticks() const { return static_cast<int>(std::lround((high - low) / step)) + 1; }
  double tick(int i) const { return low + i * step; }
  double place(double value, double from, double to) const { return from + (value - low) / (high - low) * (to - from); }
};

inline std::string svg_text(double x, double y, const char* kind, const std::string& text) {
  return "<text x=\"" + fixed(x, 1) + "\" y=\"" + fixed(y, 1) + "\" class=\"" + kind + "\">" + escape_html(text) +
         "</text>";
}

inline std::string svg_line(double x1, double y1, double x2, double y2, const char* kind) {
  return "<line x1=\"" + fixed(x1, 1) + "\" y1=\"" + fixed(y1, 1) + "\" x2=\"" + fixed(x2, 1) + "\" y2=\"" +
         fixed(y2, 1) + "\" class=\"" + kind + "\"/>";
}

inline std::string svg_open(double width, double height, const std::string& label) {
  const std::string w = fixed(width, 0), h = fixed(height, 0);
  return "<svg viewBox=\"0 0 " + w + " " + h + "\" width=\"" + w + "\" height=\"" + h +
         "\" role=\"img\" aria-label=\"" + escape_html(label) + "\">\n";
}

inline std::string figure_html(const std::string& content, const std::string& caption) {
  return "<figure>" + content + (caption.empty() ? "" : "<figcaption>" + escape_html(caption) + "</figcaption>") +
         "</figure>\n";
}

inline std::size_t text_length(const std::string& utf8) {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

inline std::string html_of(const bar_chart& chart) {
  require(!chart.bars.empty(), "bar chart '", chart.caption, "': no bars");
  double low = 0, high = 0;
  std::size_t longest = 0;
  for (const auto& bar : chart.bars) {
    require(std::isfinite(bar.value) && std::isfinite(bar.error) && bar.error >= 0, "bar chart: '", bar.name, "' is ",
            bar.value, " +- ", bar.error, ", expected finite numbers and an error from 0 on");
    low = std::min(low, bar.value - bar.error);
    high = std::max(high, bar.value + bar.error);
    longest = std::max(longest, text_length(bar.name));
  }
  const axis x(low, high);
  constexpr double row = 28, right = 640;
  const double left = std::clamp(7.6 * static_cast<double>(longest) + 16, 60.0, 300.0);
  const double bottom = 8 + row * static_cast<double>(chart.bars.size());
  std::string svg = svg_open(760, bottom + 26, chart.caption);
  for (int i = 0; i < x.ticks(); ++i) {
    const double at = x.place(x.tick(i), left, right);
    svg += svg_line(at, 4, at, bottom, "grid") + svg_text(at, bottom + 17, "tick mid", fixed(x.tick(i), x.decimals));
  }
  const double zero = x.place(0, left, right);
  for (std::size_t i = 0; i < chart.bars.size(); ++i) {
    const auto& bar = chart.bars[i];
    const double top = 8 + row * static_cast<double>(i), middle = top + row / 2 - 2;
    const double end = x.place(bar.value, left, right);
    svg += svg_text(left - 8, middle + 4, "name end", bar.name);
    svg += "<rect x=\"" + fixed(std::min(zero, end), 1) + "\" y=\"" + fixed(top, 1) + "\" width=\"" +
           fixed(std::abs(end - zero), 1) + "\" height=\"" + fixed(row - 6, 1) + "\" rx=\"2\" class=\"bar" +
           (bar.emphasis ? " strong" : "") + "\"/>";
    std::string value = fixed(bar.value, chart.decimals);
    double beside = std::max(end, zero);
    if (bar.error > 0) {
      const double a = x.place(bar.value - bar.error, left, right), b = x.place(bar.value + bar.error, left, right);
      svg += svg_line(a, middle, b, middle, "error") + svg_line(a, middle - 5, a, middle + 5, "error") +
             svg_line(b, middle - 5, b, middle + 5, "error");
      value += " \u00B1 " + fixed(bar.error, chart.decimals);
      beside = std::max(b, zero);
    }
    svg += svg_text(beside + 7, middle + 4, "value", value + (chart.unit.empty() ? "" : " " + chart.unit)) + "\n";
  }
  return figure_html(svg + svg_line(zero, 4, zero, bottom, "axis") + "</svg>", chart.caption);
}

inline std::string html_of(const line_chart& chart) {
  double x_low = HUGE_VAL, x_high = -HUGE_VAL, y_low = HUGE_VAL, y_high = -HUGE_VAL;
  bool whole = true;
  std::size_t longest = 0;
  for (const auto& line : chart.lines) {
    require(line.x.size() == line.y.size() && (line.error.empty() || line.error.size() == line.y.size()),
            "line chart: '", line.name, "' has ", line.x.size(), " x, ", line.y.size(), " y, ", line.error.size(),
            " errors, expected as many of each (errors may be left out)");
    longest = std::max(longest, text_length(line.name));
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      const double error = line.error.empty() ? 0 : line.error[i];
      require(std::isfinite(line.x[i]) && std::isfinite(line.y[i]) && std::isfinite(error) && error >= 0,
              "line chart: point ", i, " of '", line.name, "' is not finite, or its error is negative");
      whole = whole && line.x[i] == std::round(line.x[i]);
      x_low = std::min(x_low, line.x[i]);
      x_high = std::max(x_high, line.x[i]);
      y_low = std::min(y_low, line.y[i] - error);
      y_high = std::max(y_high, line.y[i] + error);
    }
  }
  require(x_low <= x_high, "line chart '", chart.caption, "': no points");
  const axis x(x_low, x_high, 9, whole), y(y_low, y_high);
  constexpr double left = 64, top = 24, bottom = 300;
  const double right = 740 - std::clamp(7.4 * static_cast<double>(longest) + 14, 40.0, 240.0);
  std::string svg = svg_open(760, bottom + 48, chart.caption);
  for (int i = 0; i < y.ticks(); ++i) {
    const double at = y.place(y.tick(i), bottom, top);
    svg += svg_line(left, at, right, at, "grid") + svg_text(left - 8, at + 4, "tick end", fixed(y.tick(i), y.decimals));
  }
  for (int i = 0; i < x.ticks(); ++i)
    svg += svg_text(x.place(x.tick(i), left, right), bottom + 18, "tick mid", fixed(x.tick(i), x.decimals));
  svg += svg_line(left, bottom, right, bottom, "axis") +
         svg_text((left + right) / 2, bottom + 40, "name mid", chart.x_label) + svg_text(8, 12, "name", chart.y_label) +
         "\n";

  std::vector<std::pair<double, std::size_t>> labels;  // where each line ends, for its name
  for (std::size_t k = 0; k < chart.lines.size(); ++k) {
    const auto& line = chart.lines[k];
    if (line.x.empty()) continue;
    const std::string hue = "hue" + std::to_string(k % 6);
    std::string points, band, back;
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      const double at = x.place(line.x[i], left, right), error = line.error.empty() ? 0 : line.error[i];
      points += fixed(at, 1) + "," + fixed(y.place(line.y[i], bottom, top), 1) + " ";
      band += fixed(at, 1) + "," + fixed(y.place(line.y[i] + error, bottom, top), 1) + " ";
      back = fixed(at, 1) + "," + fixed(y.place(line.y[i] - error, bottom, top), 1) + " " + back;
    }
    if (!line.error.empty()) svg += "<polygon points=\"" + band + back + "\" class=\"band " + hue + "\"/>";
    svg += "<polyline points=\"" + points + "\" class=\"line " + hue + "\"/>";
    for (std::size_t i = 0; i < line.x.size(); ++i)
      svg += "<circle cx=\"" + fixed(x.place(line.x[i], left, right), 1) + "\" cy=\"" +
             fixed(y.place(line.y[i], bottom, top), 1) + "\" r=\"3\" class=\"dot " + hue + "\"/>";
    svg += "\n";
    labels.emplace_back(y.place(line.y.back(), bottom, top), k);
  }
  std::sort(labels.begin(), labels.end());
  for (std::size_t i = 1; i < labels.size(); ++i) labels[i].first = std::max(labels[i].first, labels[i - 1].first + 15);
  const double spill = labels.back().first - bottom - 4;
  for (const auto& [at, k] : labels)
    svg += svg_text(right + 10, at + 4 - std::max(spill, 0.0), ("name hue" + std::to_string(k % 6)).c_str(),
                    chart.lines[k].name);
  return figure_html(svg + "</svg>", chart.caption);
}

}  // namespace detail

}  // namespace core_tokensets
