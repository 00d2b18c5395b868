#pragma once
// The objectives of the library by name.

#include "core_tokensets/train/objectives/cross_entropy.hpp"
#include "core_tokensets/train/objectives/dark_experience.hpp"
#include "core_tokensets/train/objectives/distilled.hpp"

namespace core_tokensets {

/// What `--objective` chooses between, the default first.
using objectives = choices<ace, summed, distilled<ace>, dark_experience<ace>>;

}  // namespace core_tokensets
