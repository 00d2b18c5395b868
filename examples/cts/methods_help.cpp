// The table of methods as --help shows it.

#include <algorithm>

#include "core_tokensets/tensor/reference.hpp"
#include "methods.hpp"

namespace cts_command {

namespace {

using any_backend = cts::reference_backend<float>;  // what works on answers does so on every backend

/// Each with its defaults, and what it is about on a line of its own.
template <class... M>
std::string help_of(const std::string& heading, cts::choices<M...> methods) {
  const auto answers = names_of(cts::methods_for_answers<any_backend>());
  std::string text = heading + ", as NAME or NAME:OPTION=VALUE:..., with what the options are unless given:\n";
  for (const auto& [name, about] : table_of(methods)) {
    const bool answers_too = std::find(answers.begin(), answers.end(), name.substr(0, name.find(':'))) != answers.end();
    text += "  " + name + "\n      " + about + (answers_too ? " (also for answers)" : "") + "\n";
  }
  return text;
}

}  // namespace

std::string methods_help() { return help_of("Methods", cts::attribution_methods{}); }

std::string answer_methods_help() { return help_of("Methods", cts::methods_for_answers<any_backend>()); }

}  // namespace cts_command
