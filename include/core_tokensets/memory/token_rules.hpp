#pragma once
// The table of all token rules by name. A rule of one's own is a type (memory/token_rule.hpp) and needs no entry.

#include "core_tokensets/memory/rules/facility.hpp"
#include "core_tokensets/memory/rules/foveated.hpp"
#include "core_tokensets/memory/rules/proportional.hpp"
#include "core_tokensets/memory/rules/soft.hpp"
#include "core_tokensets/memory/rules/surely.hpp"
#include "core_tokensets/memory/rules/window.hpp"
#include "core_tokensets/memory/token_rule.hpp"

namespace core_tokensets {

using token_rules = choices<surely_tokens, top_tokens, chance_tokens, soft_tokens, proportional_tokens, window_tokens,
                            facility_tokens, foveated_tokens>;

}  // namespace core_tokensets
