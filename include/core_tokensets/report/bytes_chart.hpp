#pragma once
// Values over bytes on a logarithmic axis, with error bars: what memories of several sizes are worth. Names stand below
// the picture, so that it can be read on a narrow screen, too.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/report/chart.hpp"
#include "core_tokensets/report/html.hpp"

namespace core_tokensets {

/// Points of a line and how far they are uncertain to both sides (`error`: as long as `value`, or left out). Without
/// `bytes` it has one value and is drawn as a horizontal line over the whole width.
struct bytes_line {
  std::string name;
  std::vector<double> bytes, value, error = {};
  bool emphasis = false;
};

/// Lines over a number of bytes.
struct bytes_chart {
  std::vector<bytes_line> lines;
  std::string caption = {}, x_label = {}, y_label = {};
};

namespace detail {

/// A number of bytes with a unit, three digits at most: "512 B", "16 KiB", "1.5 MiB".
inline std::string bytes_text(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  const std::string digits = fixed(bytes, bytes < 10 ? 2 : bytes < 100 ? 1 : 0);
  const auto point = digits.find('.');
  const auto last = point == std::string::npos ? point : digits.find_last_not_of('0');
  return (last == std::string::npos ? digits : digits.substr(0, last + (last == point ? 0 : 1))) + " " + units[unit];
}

/// Ends of an axis in powers of two with some room beside [from, to], and the powers that are marked on it.
struct bytes_axis {
  double low, high;
  int first, last, step = 1;

  bytes_axis(double from, double to, int most_ticks = 6) : low(std::log2(from)), high(std::log2(to)) {
    const double room = std::max(0.3, 0.06 * (high - low));
    low -= room, high += room;
    if (std::floor(high) - std::ceil(low) < 1) low = std::floor(low), high = std::ceil(high);
    while ((std::floor(high) - std::ceil(low)) / step + 1 > most_ticks) ++step;
    first = static_cast<int>(std::ceil(low)), last = static_cast<int>(std::floor(high));
  }
  double place(double bytes, double from, double to) const {
    return from + (std::log2(bytes) - low) / (high - low) * (to - from);
  }
};

/// `Error`: lengths that differ, a value that is not finite, bytes that are not more than 0, no point at all.
inline void check_lines(const bytes_chart& chart) {
  bool points = false;
  for (const auto& line : chart.lines) {
    const auto n = line.value.size();
    require(
        (line.bytes.size() == n || (line.bytes.empty() && n == 1)) && (line.error.empty() || line.error.size() == n),
        "bytes chart: '", line.name, "' has ", line.bytes.size(), " bytes, ", n, " values, ", line.error.size(),
        " errors, expected as many of each, or one value without bytes");
    for (std::size_t i = 0; i < n; ++i) {
      const double error = line.error.empty() ? 0 : line.error[i], bytes = line.bytes.empty() ? 1 : line.bytes[i];
      require(std::isfinite(line.value[i]) && std::isfinite(error) && error >= 0 && std::isfinite(bytes) && bytes > 0,
              "bytes chart: point ", i, " of '", line.name,
              "' is not finite, its error is negative, or it has no bytes");
    }
    points = points || !line.bytes.empty();
  }
  require(points, "bytes chart '", chart.caption, "': no points");
}

/// Where a chart's points lie in its picture.
struct bytes_plot {
  static constexpr double width = 624, height = 370, left = 52, right = 612, top = 28, bottom = 320;
  bytes_axis x;
  axis y;

  double across(double bytes) const { return x.place(bytes, left, right); }
  double down(double value) const { return y.place(value, bottom, top); }
};

/// Axes that hold all points with their errors.
inline bytes_plot plot_of(const bytes_chart& chart) {
  double x_low = HUGE_VAL, x_high = -HUGE_VAL, y_low = HUGE_VAL, y_high = -HUGE_VAL;
  for (const auto& line : chart.lines) {
    for (const double bytes : line.bytes) x_low = std::min(x_low, bytes), x_high = std::max(x_high, bytes);
    for (std::size_t i = 0; i < line.value.size(); ++i) {
      const double error = line.error.empty() ? 0 : line.error[i];
      y_low = std::min(y_low, line.value[i] - error), y_high = std::max(y_high, line.value[i] + error);
    }
  }
  return {bytes_axis(x_low, x_high), axis(y_low, y_high)};
}

inline std::string frame_svg(const bytes_plot& plot, const bytes_chart& chart) {
  using p = bytes_plot;
  std::string svg;
  for (int i = 0; i < plot.y.ticks(); ++i) {
    const double at = plot.down(plot.y.tick(i));
    svg += svg_line(p::left, at, p::right, at, "grid") +
           svg_text(p::left - 8, at + 4, "tick end", fixed(plot.y.tick(i), plot.y.decimals));
  }
  for (int power = plot.x.first; power <= plot.x.last; power += plot.x.step) {
    const double at = plot.across(std::exp2(power));
    svg += svg_line(at, p::bottom, at, p::bottom + 5, "axis") +
           svg_text(at, p::bottom + 20, "tick mid", bytes_text(std::exp2(power)));
  }
  return svg + svg_line(p::left, p::bottom, p::right, p::bottom, "axis") +
         svg_text((p::left + p::right) / 2, p::bottom + 42, "name mid", chart.x_label) +
         svg_text(4, 14, "name", chart.y_label) + "\n";
}

/// How line number `k` is drawn: its colour, and dots where a colour comes for the second time.
inline std::string line_kind(const bytes_line& line, std::size_t k) {
  return "line" + std::string(line.bytes.empty() ? " level" : "") + (line.emphasis ? " strong" : "") +
         (k / 6 % 2 == 1 ? " alt" : "") + " hue" + std::to_string(k % 6);
}

inline std::string line_svg(const bytes_plot& plot, const bytes_line& line, std::size_t k, double aside) {
  const std::string kind = line_kind(line, k), hue = " hue" + std::to_string(k % 6);
  if (line.bytes.empty()) {
    const double at = plot.down(line.value[0]);
    return svg_line(bytes_plot::left, at, bytes_plot::right, at, kind.c_str()) + "\n";
  }
  std::string points, marks;
  for (std::size_t i = 0; i < line.bytes.size(); ++i) {
    const double at = plot.across(line.bytes[i]) + aside, height = plot.down(line.value[i]);
    points += fixed(at, 1) + "," + fixed(height, 1) + " ";
    if (!line.error.empty() && line.error[i] > 0) {
      const double a = plot.down(line.value[i] - line.error[i]), b = plot.down(line.value[i] + line.error[i]);
      const std::string whisker = "whisker" + hue;
      marks += svg_line(at, a, at, b, whisker.c_str()) + svg_line(at - 4, a, at + 4, a, whisker.c_str()) +
               svg_line(at - 4, b, at + 4, b, whisker.c_str());
    }
    marks += "<circle cx=\"" + fixed(at, 1) + "\" cy=\"" + fixed(height, 1) + "\" r=\"" +
             (line.emphasis ? "4.5" : "3.2") + "\" class=\"dot" + hue + "\"/>";
  }
  return "<polyline points=\"" + points + "\" class=\"" + kind + "\"/>" + marks + "\n";
}

inline std::string legend_html(const bytes_chart& chart) {
  std::string html = "<ul class=\"legend\">";
  for (std::size_t k = 0; k < chart.lines.size(); ++k) {
    const auto& line = chart.lines[k];
    html += "<li" + std::string(line.emphasis ? " class=\"strong\">" : ">") +
            "<svg viewBox=\"0 0 28 10\" width=\"28\" height=\"10\" aria-hidden=\"true\">" +
            svg_line(0, 5, 28, 5, line_kind(line, k).c_str()) + "</svg>" + escape_html(line.name) + "</li>";
  }
  return html + "</ul>";
}

inline std::string html_of(const bytes_chart& chart) {
  check_lines(chart);
  const bytes_plot plot = plot_of(chart);
  std::string svg = svg_open(bytes_plot::width, bytes_plot::height, chart.caption) + frame_svg(plot, chart);
  const auto count = static_cast<double>(chart.lines.size());
  for (std::size_t k = 0; k < chart.lines.size(); ++k) {
    // Bars of several lines at the same bytes stand a little beside each other.
    svg += line_svg(plot, chart.lines[k], k, 5 * (static_cast<double>(k) - (count - 1) / 2));
  }
  return figure_html("<div class=\"bytes\">" + svg + "</svg>" + legend_html(chart) + "</div>", chart.caption);
}

}  // namespace detail

}  // namespace core_tokensets
