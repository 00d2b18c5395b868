#include "data.hpp"

#include <algorithm>
#include <filesystem>

#include "core_tokensets/data/arriving.hpp"
#include "core_tokensets/data/readers/boxes.hpp"
#include "core_tokensets/data/readers/cifar.hpp"
#include "core_tokensets/data/readers/coco_captions.hpp"
#include "core_tokensets/data/readers/easy_vqa.hpp"
#include "core_tokensets/data/readers/folder.hpp"
#include "core_tokensets/data/readers/idx.hpp"
#include "core_tokensets/data/readers/photo_questions.hpp"
#include "core_tokensets/data/readers/vqa_json.hpp"
#include "core_tokensets/data/scenes/scene_captions.hpp"
#include "core_tokensets/data/scenes/scene_questions.hpp"
#include "core_tokensets/data/scenes/scenes.hpp"

namespace cts_command {

namespace cts = core_tokensets;
namespace fs = std::filesystem;

namespace {

bool serves(const data_source& s, task_kind task) {
  return task == task_kind::classify ? s.classes : task == task_kind::vqa ? s.questions : s.captions;
}

/// A name of --data, cut at its colon. `Error` unless a source of that name serves the task.
struct named_set {
  std::string text, kind, where;

  named_set(const std::string& name, task_kind task) : text(name) {
    const auto colon = name.find(':');
    kind = name.substr(0, colon);
    where = colon == std::string::npos ? "" : name.substr(colon + 1);
    for (const data_source& s : data_sources) {
      const std::string known = s.name;
      const bool folder = known.ends_with(":DIR");
      if (kind != known.substr(0, known.find(':')) || !serves(s, task)) continue;
      const bool variant =
          kind == "scenes" &&
          (colon == std::string::npos || ((where == "shapes" || where == "small") && task == task_kind::classify));
      if (folder ? !where.empty() : variant) return;
    }
    cts::fail("--data '", name, "': expected ", data_names(task));
  }
};

/// Where the set that begins at `at` ends: at a comma before the name of a source, since folders may have commas, too.
std::size_t end_of_set(const std::string& sets, std::size_t at) {
  const auto name_end = sets.find_first_of(",:", at);
  const bool names_folder = name_end != std::string::npos && sets[name_end] == ':';
  if (names_folder && fs::is_directory(sets.substr(name_end + 1))) return sets.size();
  for (std::size_t comma = sets.find(',', at); comma != std::string::npos; comma = sets.find(',', comma + 1)) {
    const std::string rest = sets.substr(comma + 1), kind = rest.substr(0, rest.find_first_of(",:"));
    for (const data_source& s : data_sources) {
      const std::string known = s.name;
      const bool where = rest.size() > kind.size() && rest[kind.size()] == ':';
      if (kind == known.substr(0, known.find(':')) && (where || !known.ends_with(":DIR"))) return comma;
    }
  }
  return sets.size();
}

/// The sets of a request.
std::vector<named_set> sets_of(const data_request& r) {
  std::vector<named_set> sets;
  for (std::size_t at = 0; at <= r.sets.size();) {
    const std::size_t end = end_of_set(r.sets, at);
    sets.emplace_back(r.sets.substr(at, end - at), r.task);
    at = end + 1;
  }
  return sets;
}

/// The one set of a request.
named_set only_set(const data_request& r) {
  const auto sets = sets_of(r);
  cts::require(sets.size() == 1, "--data ", r.sets, ": ", sets.size(), " sets, expected one; several are tasks of cts ",
               "sequence");
  return sets.front();
}

cts::dataset_split read_scenes(const data_request& r, const std::string& variant) {
  const bool small = variant == "small";
  return cts::scenes({.classes = r.scene_classes,
                      .train_per_class = r.per_class > 0 ? r.per_class : 300,
                      .test_per_class = r.test_per_class > 0 ? r.test_per_class : 100,
                      .image = r.image > 0 ? r.image
                               : small     ? 64
                                           : 32,
                      .scale = small ? 0.5 : 1.0,
                      .typical = variant == "shapes" ? 0.0 : 1.0,
                      .seed = r.seed,
                      .threads = r.threads});
}

cts::folder_options pictures_of(const data_request& r) {
  return {.size = r.image,
          .channels = r.channels,
          .cache_folder = cts::default_cache_folder(),
          .threads = r.threads,
          .skip_damaged = r.skip_damaged};
}

/// Photos in class folders, with boxes and names where DIR has them.
cts::dataset_split read_photos(const fs::path& dir, const data_request& r) {
  auto split = cts::load_folder(dir, pictures_of(r));
  cts::add_box_masks(split.train, dir, "train", r.image != 0);
  cts::add_box_masks(split.test, dir, cts::test_part(dir), r.image != 0);
  return split;
}

cts::visual_text_split read_set(const named_set& set, const data_request& r) {
  const bool captions = r.task == task_kind::caption;
  const fs::path where = set.where;
  const cts::folder_options pictures = pictures_of(r);
  if (set.kind == "scenes") {
    cts::scene_text_options o;
    o.scenes.image = r.image > 0 ? r.image : 64;
    o.scenes.seed = r.seed;
    o.scenes.threads = r.threads;
    if (r.pictures > 0) o.scenes.train_per_class = (r.pictures + o.scenes.classes - 1) / o.scenes.classes;
    if (r.test_pictures > 0) o.scenes.test_per_class = (r.test_pictures + o.scenes.classes - 1) / o.scenes.classes;
    o.per_image = captions ? 5 : 6;
    return captions ? cts::scene_captions(o).data : cts::scene_questions(o).data;
  }
  if (set.kind == "easy-vqa") return cts::load_easy_vqa(where, pictures);
  if (set.kind == "photos") {
    const auto photos = read_photos(where, r);
    return captions ? cts::photo_captions(photos, {.seed = r.seed}) : cts::photo_questions(photos, {.seed = r.seed});
  }
  const auto both = [&](const auto& load) { return cts::visual_text_split{load("train"), load("val")}; };
  if (set.kind == "vqa") {
    return both([&](const std::string& part) {
      return cts::load_vqa_json(where / (part + "_questions.json"), where / (part + "_annotations.json"), where / part,
                                {.pattern = "COCO_" + part + "2014_{:012}.jpg",
                                 .limit = part == "train" ? r.pictures : r.test_pictures,
                                 .pictures = pictures});
    });
  }
  return both([&](const std::string& part) {
    const fs::path instances = where / (part + "_instances.json");
    return cts::load_coco_captions(where / (part + "_captions.json"), where / part,
                                   {.instances = fs::exists(instances) ? instances : fs::path(),
                                    .limit = part == "train" ? r.pictures : r.test_pictures,
                                    .pictures = pictures});
  });
}

}  // namespace

std::string data_names(task_kind task) {
  std::string all;
  for (const data_source& s : data_sources) {
    if (serves(s, task)) all += (all.empty() ? "" : ", ") + std::string(s.name);
  }
  return all;
}

std::string data_help() {
  std::string all;
  for (const data_source& s : data_sources) {
    all += "\n  " + std::string(s.name) + " (" + (s.classes ? "classify " : "") + (s.questions ? "vqa " : "") +
           (s.captions ? "caption " : "");
    all.back() = ')';
    all += ": " + std::string(s.about);
  }
  return all;
}

namespace {

/// `Error`: a set without its folder. A comma in its name may have been meant to begin another set.
void check_folder(const named_set& set, task_kind task) {
  const bool comma = set.where.find(',') != std::string::npos;
  cts::require(set.kind == "scenes" || fs::is_directory(set.where), "--data ", set.text, ": there is no folder ",
               set.where, comma ? "; behind a comma another set begins with " : "", comma ? data_names(task) : "");
}

}  // namespace

void check_data(const data_request& r) {
  for (const named_set& set : sets_of(r)) check_folder(set, r.task);
  if (!r.classes.empty()) cts::parse_class_range(r.classes);
}

namespace {

cts::dataset_split read_classes_of(const named_set& set, const data_request& r) {
  cts::require(!r.skip_damaged || set.kind == "folder", "--skip-damaged: ", set.text,
               " has no files of single pictures");
  cts::dataset_split split;
  if (set.kind == "scenes") {
    split = read_scenes(r, set.where);
  } else if (set.kind == "folder") {
    split = cts::load_folder(set.where, pictures_of(r));
  } else {
    cts::require(r.image == 0, "--image ", r.image, ": pictures of ", set.text, " come as they are");
    const bool ten = fs::exists(fs::path(set.where) / "test_batch.bin");
    split = set.kind == "idx" ? cts::load_idx(set.where)
            : ten             ? cts::load_cifar10(set.where)
                              : cts::load_cifar100(set.where);
  }
  if (!r.classes.empty()) split = cts::select_classes(split, cts::parse_class_range(r.classes));
  if (r.per_class > 0 && set.kind != "scenes") split.train = cts::limit_per_class(split.train, r.per_class, r.seed);
  return split;
}

}  // namespace

cts::dataset_split read_classes(const data_request& r) { return read_classes_of(only_set(r), r); }

cts::task_stream read_tasks(const data_request& r, const cts::class_incremental_options& how) {
  const auto sets = sets_of(r);
  for (const named_set& set : sets) {
    if (set.where.find(',') != std::string::npos) check_folder(set, r.task);
  }
  if (sets.size() == 1) return cts::class_incremental(read_classes_of(sets.front(), r), how);
  cts::require(how.first == 0 && how.increment == 0 && how.order.empty() && !how.shuffle, "--data ", r.sets,
               ": each of the sets is a task; --first, --increment and --order cut the classes of one set");
  std::vector<cts::named_split> parts;
  for (const named_set& set : sets) {
    const auto folder = fs::path(set.where).lexically_normal();
    const std::string name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
    const bool taken = std::any_of(parts.begin(), parts.end(), [&](const auto& p) { return p.name == name; });
    parts.push_back({set.kind == "folder" && !taken ? name : set.text, read_classes_of(set, r)});
  }
  return cts::arriving(parts);
}

cts::dataset read_test_pictures(const data_request& r) {
  const named_set set = only_set(r);
  if (set.kind != "folder") return read_classes(r).test;
  const fs::path dir = set.where;
  auto data = cts::load_test_folder(dir, pictures_of(r));
  cts::add_box_masks(data, dir, cts::test_part(dir), true);
  return r.classes.empty() ? data : cts::select_classes(data, cts::parse_class_range(r.classes));
}

cts::text_stream read_texts(const data_request& r, std::ptrdiff_t tasks) {
  cts::require(!r.skip_damaged || r.sets.find("photos:") != std::string::npos, "--skip-damaged: texts of ", r.sets,
               " are about all of its pictures");
  std::vector<std::pair<std::string, cts::visual_text_split>> sets;
  for (const named_set& set : sets_of(r)) {
    auto split = read_set(set, r);
    if (r.pictures > 0) split.train = cts::limit_images(split.train, r.pictures, r.seed);
    if (r.test_pictures > 0) split.test = cts::limit_images(split.test, r.test_pictures, r.seed);
    sets.emplace_back(set.kind, std::move(split));
  }
  if (sets.size() > 1) return cts::sets_as_tasks(std::move(sets));
  auto& only = sets.front().second;
  if (tasks == 1 || only.train.groups() == 1) return cts::sets_as_tasks(std::move(sets));
  return cts::groups_as_tasks(std::move(only), tasks);
}

}  // namespace cts_command
