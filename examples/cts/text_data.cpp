#include "text_data.hpp"

#include "core_tokensets/data/boxes.hpp"
#include "core_tokensets/data/coco_captions.hpp"
#include "core_tokensets/data/easy_vqa.hpp"
#include "core_tokensets/data/folder.hpp"
#include "core_tokensets/data/photo_questions.hpp"
#include "core_tokensets/data/scene_captions.hpp"
#include "core_tokensets/data/scene_questions.hpp"
#include "core_tokensets/data/vqa_json.hpp"

namespace cts_command {

namespace cts = core_tokensets;
namespace fs = std::filesystem;

namespace {

/// Photos in class folders, with boxes and names where DIR has them.
cts::dataset_split read_photos(const fs::path& dir, const text_data_request& r) {
  auto split = cts::load_folder(dir, {.size = r.image, .threads = r.threads});
  cts::add_box_masks(split.train, dir, "train", r.image != 0);
  cts::add_box_masks(split.test, dir, cts::test_part(dir), r.image != 0);
  return split;
}

cts::visual_text_split read_set(const std::string& name, const text_data_request& r) {
  const auto colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  const fs::path where = colon == std::string::npos ? "" : name.substr(colon + 1);
  const cts::folder_options pictures{.size = r.image, .threads = r.threads};
  if (name == "scenes") {
    cts::scene_text_options o;
    o.scenes.image = r.image > 0 ? r.image : 64;
    o.scenes.seed = r.seed;
    o.scenes.threads = r.threads;
    if (r.pictures > 0) o.scenes.train_per_class = (r.pictures + o.scenes.classes - 1) / o.scenes.classes;
    if (r.test_pictures > 0) o.scenes.test_per_class = (r.test_pictures + o.scenes.classes - 1) / o.scenes.classes;
    o.per_image = r.captions ? 5 : 6;
    return r.captions ? cts::scene_captions(o).data : cts::scene_questions(o).data;
  }
  cts::require(!where.empty(), "--data '", name,
               "': expected scenes, easy-vqa:DIR, photos:DIR, vqa:DIR or coco:DIR for this task");
  if (kind == "easy-vqa" && !r.captions) return cts::load_easy_vqa(where, pictures);
  if (kind == "photos") {
    const auto photos = read_photos(where, r);
    return r.captions ? cts::photo_captions(photos, {.seed = r.seed}) : cts::photo_questions(photos, {.seed = r.seed});
  }
  const auto both = [&](const auto& load) { return cts::visual_text_split{load("train"), load("val")}; };
  if (kind == "vqa" && !r.captions) {
    return both([&](const std::string& part) {
      return cts::load_vqa_json(where / (part + "_questions.json"), where / (part + "_annotations.json"), where / part,
                                {.pattern = "COCO_" + part + "2014_{:012}.jpg",
                                 .limit = part == "train" ? r.pictures : r.test_pictures,
                                 .pictures = pictures});
    });
  }
  if (kind == "coco" && r.captions) {
    return both([&](const std::string& part) {
      const fs::path instances = where / (part + "_instances.json");
      return cts::load_coco_captions(where / (part + "_captions.json"), where / part,
                                     {.instances = fs::exists(instances) ? instances : fs::path(),
                                      .limit = part == "train" ? r.pictures : r.test_pictures,
                                      .pictures = pictures});
    });
  }
  cts::fail("--data '", name,
            "': expected scenes, easy-vqa:DIR, photos:DIR or vqa:DIR for questions, scenes, photos:DIR ",
            "or coco:DIR for captions");
}

}  // namespace

cts::text_stream read_text_tasks(const text_data_request& r, std::ptrdiff_t tasks) {
  std::vector<std::pair<std::string, cts::visual_text_split>> sets;
  for (std::size_t at = 0; at <= r.sets.size();) {
    const std::size_t end = std::min(r.sets.find(',', at), r.sets.size());
    const std::string name = r.sets.substr(at, end - at);
    auto split = read_set(name, r);
    if (r.pictures > 0) split.train = cts::limit_images(split.train, r.pictures, r.seed);
    if (r.test_pictures > 0) split.test = cts::limit_images(split.test, r.test_pictures, r.seed);
    sets.emplace_back(name.substr(0, name.find(':')), std::move(split));
    at = end + 1;
  }
  if (sets.size() > 1) return cts::sets_as_tasks(std::move(sets));
  auto& only = sets.front().second;
  if (tasks == 1 || only.train.groups() == 1) return cts::sets_as_tasks(std::move(sets));
  return cts::groups_as_tasks(std::move(only), tasks);
}

}  // namespace cts_command
