#pragma once
// Attribution methods by name for the commands. methods/ compiles them, a backend and an arithmetic a file, so that no
// command has to: there a name has become one value behind one call.

#include <string>

#include "core_tokensets/attribution/any_attribution.hpp"

namespace cts_command {

namespace cts = core_tokensets;

/// The method of a text. In f64, which only commands on classes offer, it does not work on answers. `Error`: see
/// `cts::attribution_text`.
template <class B>
cts::any_attribution<B> method_named(const std::string& text);

/// The table of methods for --help, a name with its defaults and a line about it each: all, and those for answers.
std::string methods_help();
std::string answer_methods_help();

}  // namespace cts_command
