#pragma once
// How a model is trained: everything but its objective and its optimiser, which are types.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stdexcept>

#include "core_tokensets/core/communicator.hpp"
#include "core_tokensets/core/options.hpp"
#include "core_tokensets/core/progress.hpp"
#include "core_tokensets/data/augment.hpp"
#include "core_tokensets/data/text/text_batch.hpp"
#include "core_tokensets/data/token_batch.hpp"
#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

/// Which tokens new pictures lose in the steps that leave some out: random ones, or those that the memory would leave
/// out. With the second new and old pictures lose the same, so a model cannot tell by what is missing which is old; it
/// explains every such batch, and whether it helps depends on the method (docs/results.md).
enum class token_drop_rule { random, memory };

template <>
inline constexpr std::array words<token_drop_rule>{"random", "memory"};

/// New pictures as a memory would keep them: from a whole batch, with the texts about it (null for classes), to `out`.
using remembered_form = std::function<void(const token_batch& whole, const text_batch* texts, token_batch& out)>;

/// What training throws that was asked to stop. How far it came is in the file of its checkpoint, if it has one.
class stopped : public std::runtime_error {
 public:
  explicit stopped(const std::filesystem::path& file)
      : std::runtime_error(file.empty() ? "training was stopped"
                                        : "training was stopped; " + file.string() + " holds how far it came") {}
};

/// How training is interrupted within a task and goes on from there to the same bits. It goes on where `file` is there,
/// which is an error where it is damaged or of another training. A learner removes the file when it is saved after the
/// task; who calls `fit` removes it when its results are safe.
struct checkpoint_options {
  std::filesystem::path file = {};  ///< empty: the task is learnt in one go
  double seconds = 60;              ///< between two times that it is written, at least
  std::function<bool()> stop = {};  ///< asked after every step: true writes the file and throws `stopped`
  json about = json::object();      ///< what else the training depends on, to be told where the file has another
};

struct fit_options {
  index epochs = 5;
  index batch = 64, replay_batch = 64;  ///< new samples (of texts: pictures), and samples of the memory, in each step
  index texts_per_picture = 4;          ///< of a new picture in one step, at most
  double warm_up = 0.05;                ///< share of the steps
  double clip = 1;                      ///< largest norm of the gradient; 0: any
  double backbone_rate = 1;             ///< learning rate of all below the head (of texts: of the encoder), as a share
  bool imprint = true;                  ///< new rows of the head start from the mean features of their classes
  bool align = false;                   ///< after a task the head's new rows are scaled to the length of the old ones
  missing_tokens missing = missing_tokens::drop;
  double token_drop = 0.75;       ///< share of the tokens that is left out of new pictures ...
  double token_drop_often = 0.5;  ///< ... in this share of the batches; the others stay whole
  token_drop_rule drop_rule = token_drop_rule::random;
  index shift = 2;              ///< new pictures are moved by at most so many pixels
  double flip = 0.5;            ///< probability of a mirror; never with texts, where left would become right
  bool augment_replay = false;  ///< replayed samples are mirrored, too
  std::uint64_t seed = 0;
  progress_callback on_progress = {};
  remembered_form as_remembered = {};  ///< for `drop_rule` memory and equal footing; a learner sets it
  checkpoint_options checkpoint = {};  ///< results do not depend on it
  /// Programs that train together, all with the same data and options (docs/ranks.md); results do not depend on how
  /// many share the pieces.
  team ranks = {};
  index pieces = 0;  ///< of a step, each a batch of its own: a power of two; 0: as many as there are ranks

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("epochs", self.epochs);
    visit("batch", self.batch);
    visit("replay_batch", self.replay_batch);
    visit("texts_per_picture", self.texts_per_picture);
    visit("warm_up", self.warm_up);
    visit("clip", self.clip);
    visit("backbone_rate", self.backbone_rate);
    visit("imprint", self.imprint);
    visit("align", self.align);
    visit("missing", self.missing);
    visit("token_drop", self.token_drop);
    visit("token_drop_often", self.token_drop_often);
    visit("drop_rule", self.drop_rule);
    visit("shift", self.shift);
    visit("flip", self.flip);
    visit("augment_replay", self.augment_replay);
    visit("seed", self.seed);
    visit("pieces", self.pieces);
  }
};

/// `Error` naming the option that makes no sense.
inline void check(const fit_options& o) {
  const auto at_least = [](const char* name, index value, index least) {
    require(value >= least, "fit: ", name, " ", value, ", expected at least ", least);
  };
  const auto share = [](const char* name, double value, double most) {
    require(value >= 0 && value <= most, "fit: ", name, " ", value, ", expected 0 to ", most);
  };
  at_least("epochs", o.epochs, 1);
  at_least("batch", o.batch, 1);
  at_least("replay_batch", o.replay_batch, 1);
  at_least("texts_per_picture", o.texts_per_picture, 1);
  at_least("shift", o.shift, 0);
  share("warm_up", o.warm_up, 1);
  share("clip", o.clip, 1e30);
  share("backbone_rate", o.backbone_rate, 1e6);
  share("token_drop", o.token_drop, 1);
  require(o.token_drop < 1, "fit: token_drop ", o.token_drop, ", expected less than 1: something must be left");
  share("token_drop_often", o.token_drop_often, 1);
  share("flip", o.flip, 1);
  require(o.checkpoint.seconds >= 0, "fit: checkpoint.seconds ", o.checkpoint.seconds, ", expected at least 0");
  const index ranks = o.ranks.size(), pieces = o.pieces == 0 ? ranks : o.pieces;
  require(pieces > 0 && (pieces & (pieces - 1)) == 0, "fit: ", pieces, " pieces, expected a power of two",
          o.pieces == 0 ? "; there are as many ranks" : "");
  require(pieces % ranks == 0, "fit: ", ranks, " ranks cannot share ", pieces, " pieces evenly");
}

/// The options with the number of pieces that they stand for. `Error`: see `check`.
inline fit_options settled(fit_options o) {
  check(o);
  if (o.pieces == 0) o.pieces = o.ranks.size();
  return o;
}

/// The seed of everything random in task t.
inline std::uint64_t seed_of_task(std::uint64_t seed, index t) { return seed * 1000 + static_cast<std::uint64_t>(t); }

}  // namespace core_tokensets
