#pragma once
// A report as one HTML file that needs nothing else: text, tables, charts and pictures, for light and dark screens.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/report/bytes_chart.hpp"
#include "core_tokensets/report/chart.hpp"
#include "core_tokensets/report/html.hpp"
#include "core_tokensets/report/table.hpp"

namespace core_tokensets {

/// Plain text.
struct report_paragraph {
  std::string text;
};

/// A picture as the bytes of a PNG file, e.g. `encode_png(contact_sheet(cells))`.
struct report_figure {
  std::vector<std::byte> png;
  std::string caption = {};
};

/// Lines to be copied as they are, such as commands; one click marks all of them.
struct report_lines {
  std::string text, caption = {};
};

using report_block = std::variant<report_paragraph, report_table, accuracy_table, bar_chart, line_chart, bytes_chart,
                                  report_figure, report_lines>;

/// A heading and what stands under it, in order.
struct report_section {
  std::string heading;
  std::vector<report_block> blocks = {};
};

/// A whole report. `facts` are short pairs for the top of the page ("Samples", "500").
struct report_page {
  std::string title, subtitle = {};
  std::vector<std::pair<std::string, std::string>> facts = {};
  std::vector<report_section> sections = {};
};

namespace detail {

inline constexpr std::string_view page_style = R"css(
:root { color-scheme: light dark; --paper: #fbfbf9; --ink: #23252b; --soft: #5f6470; --line: #dfe0dc; --panel: #ffffff;
  --accent: #1a7f70; --bar: #9fb8c4; --hue0: #1a7f70; --hue1: #b5532a; --hue2: #4a5fb0; --hue3: #8b6a10; --hue4: #8a3f86; --hue5: #5d6b78; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e6e7ea; --soft: #a0a5b0; --line: #32363e; --panel: #1d2025;
  --accent: #3dbfa9; --bar: #4d6673; --hue0: #3dbfa9; --hue1: #e58b5e; --hue2: #8fa2ee; --hue3: #d9b354; --hue4: #d68fd2; --hue5: #a3b0bd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; } h2 { font-size: 21px; margin: 44px 0 12px; padding-top: 14px; border-top: 1px solid var(--line); }
.subtitle { color: var(--soft); margin: 0 0 20px; } p { margin: 0 0 14px; white-space: pre-line; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 20px 0; } .facts div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; }
.facts dt { color: var(--soft); font-size: 13px; } .facts dd { margin: 0; font-size: 19px; font-weight: 600; }
.wide { overflow-x: auto; margin: 0 0 20px; } table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; color: var(--soft); font-size: 14px; padding: 0 0 6px; white-space: nowrap; }
th, td { padding: 5px 14px 5px 10px; text-align: left; border-bottom: 1px solid var(--line); } thead th { border-bottom: 2px solid var(--line); font-weight: 600; }
th.n, td.n { text-align: right; } table.matrix th, table.matrix td { text-align: center; padding: 6px 12px; min-width: 62px; }
table.matrix td { border: 2px solid var(--paper); } table.matrix th { font-weight: 500; color: var(--soft); border: 0; white-space: nowrap; } table.matrix td.mean { font-weight: 600; }
figure { margin: 0 0 24px; } figure img { max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line); display: block; }
figcaption { color: var(--soft); font-size: 14px; margin-top: 6px; } svg { max-width: 100%; height: auto; display: block; font-size: 13px; font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); } svg .tick { fill: var(--soft); font-size: 12px; } svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); } svg .error { stroke: var(--ink); stroke-width: 1.4; } svg .bar { fill: var(--bar); } svg .bar.strong { fill: var(--accent); }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; } svg .line.strong { stroke-width: 3.2; } svg .line.level { stroke-dasharray: 7 5; } svg .line.alt { stroke-dasharray: 2 4; }
svg .band { opacity: .16; } svg .whisker { stroke-width: 1.3; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 20px; margin: 8px 0 0; padding: 0; font-size: 14px; }
.legend svg { display: inline-block; margin-right: 7px; vertical-align: middle; } .legend .strong { font-weight: 600; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; margin: 0; overflow-x: auto;
  font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; user-select: all; } figcaption + pre { margin-top: 6px; }
td.n { white-space: nowrap; }
@media (max-width: 560px) { main { padding: 24px 14px 48px; } .bytes > svg { font-size: 20px; } .bytes > svg .tick { font-size: 18px; } }
)css";

inline std::string html_of(const report_paragraph& paragraph) { return "<p>" + escape_html(paragraph.text) + "</p>\n"; }

inline std::string html_of(const report_figure& figure) {
  return figure_html(
      "<img alt=\"" + escape_html(figure.caption) + "\" src=\"data:image/png;base64," + base64(figure.png) + "\">",
      figure.caption);
}

inline std::string html_of(const report_lines& lines) {
  return "<figure>" + (lines.caption.empty() ? "" : "<figcaption>" + escape_html(lines.caption) + "</figcaption>") +
         "<pre>" + escape_html(lines.text) + "</pre></figure>\n";
}

}  // namespace detail

/// The page as text; everything that comes from outside is escaped. `Error`: a chart without data or not finite.
inline std::string to_html(const report_page& page) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>" +
      escape_html(page.title) + "</title>\n<style>" + std::string(detail::page_style);
  for (int i = 0; i < 6; ++i) {
    const std::string n = std::to_string(i);
    html += "svg text.hue" + n + ", svg .dot.hue" + n + ", svg .band.hue" + n + " { fill: var(--hue" + n +
            "); } svg .line.hue" + n + ", svg .whisker.hue" + n + " { stroke: var(--hue" + n + "); }\n";
  }
  html += "</style>\n</head>\n<body>\n<main>\n<h1>" + escape_html(page.title) + "</h1>\n";
  if (!page.subtitle.empty()) html += "<p class=\"subtitle\">" + escape_html(page.subtitle) + "</p>\n";
  if (!page.facts.empty()) {
    html += "<dl class=\"facts\">";
    for (const auto& [name, value] : page.facts)
      html += "<div><dt>" + escape_html(name) + "</dt><dd>" + escape_html(value) + "</dd></div>";
    html += "</dl>\n";
  }
  for (const auto& section : page.sections) {
    html += "<section>\n<h2>" + escape_html(section.heading) + "</h2>\n";
    for (const auto& block : section.blocks)
      html += std::visit([](const auto& content) { return detail::html_of(content); }, block);
    html += "</section>\n";
  }
  return html + "</main>\n</body>\n</html>\n";
}

/// Writes the page to a file, all or nothing.
inline void write_report(const std::filesystem::path& path, const report_page& page) {
  write_file(path, to_html(page));
}

}  // namespace core_tokensets
