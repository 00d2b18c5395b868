#pragma once
// The data sets that the command line names, for all commands that read some.

#include <cstdint>
#include <string>

#include "core_tokensets/data/tasks.hpp"
#include "core_tokensets/data/text/text_tasks.hpp"

namespace cts_command {

/// What `--data` may name, and for which tasks.
struct data_source {
  const char *name, *about;
  bool classes, questions, captions;
};
inline constexpr data_source data_sources[] = {
    {"scenes",
     "built-in pictures; scenes:shapes is the hard variant where only the shape tells the class, in scenes:small "
     "objects fill 4 % of a picture",
     true, true, true},
    {"folder:DIR", "one folder a class below train/ and val/ or test/, and boxes.csv where there are boxes", true,
     false, false},
    {"cifar:DIR", "CIFAR-10 or CIFAR-100 in their binary version", true, false, false},
    {"idx:DIR", "MNIST and its like", true, false, false},
    {"photos:DIR", "folder:DIR with boxes, as questions or captions about them", false, true, true},
    {"easy-vqa:DIR", "easy-VQA", false, true, false},
    {"vqa:DIR", "VQA v2 in its JSON files", false, true, false},
    {"coco:DIR", "COCO captions in their JSON files", false, false, true}};

/// What a command learns or judges: the word of `--task`.
enum class task_kind { classify, vqa, caption };

/// "scenes, folder:DIR, ..." of the sources for a task.
std::string data_names(task_kind task);
/// One line for each source, for help.
std::string data_help();

/// What to read: `sets` as in --data, several with commas between.
struct data_request {
  std::string sets = "scenes", classes = {};
  task_kind task = task_kind::classify;
  std::ptrdiff_t image = 0;                          ///< side of the pictures, 0: as they are (texts: 64)
  std::ptrdiff_t channels = 3;                       ///< of the pictures of a folder
  std::ptrdiff_t per_class = 0, test_per_class = 0;  ///< 0: all (scenes: 300 and 100)
  std::ptrdiff_t pictures = 0, test_pictures = 0;    ///< of each set of questions or captions, 0: all
  std::ptrdiff_t scene_classes = 10;                 ///< of built-in pictures
  std::uint64_t seed = 0;
  int threads = 0;
  bool skip_damaged = false;  ///< go on without picture files of folders that cannot be read
};

/// Throws where a name is unknown, or the folder that it names is not there; reads nothing.
void check_data(const data_request& request);

/// Pictures of classes, of one set.
core_tokensets::dataset_split read_classes(const data_request& request);
/// Tasks of classes: those that one set is cut into, or each of several sets.
core_tokensets::task_stream read_tasks(const data_request& request,
                                       const core_tokensets::class_incremental_options& how);
/// The part of them to measure on, numbered as the part to learn from, with masks of objects where there are any.
core_tokensets::dataset read_test_pictures(const data_request& request);
/// Questions or captions: several sets are a task each; the groups of a single one are its tasks (`tasks` of them, or
/// each group one if 0).
core_tokensets::text_stream read_texts(const data_request& request, std::ptrdiff_t tasks);

}  // namespace cts_command
