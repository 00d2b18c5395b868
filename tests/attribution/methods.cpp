// Methods as types, by name and erased: whatever offers `attribute` is one, and enters everywhere.

#include "support/methods.hpp"

#include "core_tokensets/attribution/measures/judge.hpp"
#include "core_tokensets/attribution/measures/measured_answers.hpp"
#include "support.hpp"
#include "support/archetype.hpp"
#include "support/scratch.hpp"

namespace attribution_methods_tests {

namespace somebody {

namespace cts = core_tokensets;

/// The least that a method can be.
struct least {};

template <class B>
std::vector<double> attribute(const least&, B&, const cts::vit<B>&, const cts::token_batch& batch, const cts::target&,
                              cts::attribution_workspace<B>&) {
  std::vector<double> relevance;
  for (cts::index p = 0; p < batch.tokens(); ++p) relevance.push_back(static_cast<double>(p % 3));
  return relevance;
}

/// A method with a name and an option: the size of a patch's numbers, to a power. It explains pictures of answers too.
struct brightness {
  static constexpr const char* name = "brightness";
  static constexpr const char* about = "the size of a patch's numbers";
  double power = 1;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("power", self.power);
  }
};

inline std::vector<double> brightness_of(const brightness& method, const cts::token_batch& batch) {
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()), 0.0);
  for (std::size_t i = 0; i < batch.patches.size(); ++i) {
    const double x = double(batch.patches[i]);
    relevance[i / static_cast<std::size_t>(batch.patch_dim)] += x * x;
  }
  for (double& r : relevance) r = std::pow(r, method.power / 2);
  return relevance;
}

template <class B>
std::vector<double> attribute(const brightness& method, B&, const cts::vit<B>&, const cts::token_batch& batch,
                              const cts::target&, cts::attribution_workspace<B>&) {
  return brightness_of(method, batch);
}
template <class B>
cts::answer_relevance attribute(const brightness& method, B&, const cts::image_text_model<B>&,
                                const cts::token_batch& images, const cts::text_batch& texts,
                                cts::answer_workspace<B>&) {
  return {brightness_of(method, images), std::vector<double>(texts.tokens.size(), 0.0)};
}

/// Says too little.
struct forgetful {};

template <class B>
std::vector<double> attribute(const forgetful&, B&, const cts::vit<B>&, const cts::token_batch&, const cts::target&,
                              cts::attribution_workspace<B>&) {
  return {1, 2};
}

/// No method: its overload gives one number.
struct single {};

template <class B>
double attribute(const single&, B&, const cts::vit<B>&, const cts::token_batch&, const cts::target&,
                 cts::attribution_workspace<B>&) {
  return 1;
}

}  // namespace somebody

namespace {

using namespace attribution_tests;
using B = cts::reference_backend<double>;  // quick to compile; how fast it runs does not matter here
using archetype = support::archetype_backend<float>;

static_assert(cts::attribution_method<somebody::least, archetype>);
static_assert(cts::attribution_method<somebody::least, B>);
static_assert(!cts::attribution_method<somebody::least, int>);
static_assert(!cts::attribution_method<somebody::single, B>);
static_assert(!cts::attribution_method<int, B>);
static_assert(!cts::answers_method<somebody::least, archetype>);
static_assert(cts::answers_method<somebody::brightness, archetype>);
static_assert(cts::attribution_method<cts::smooth_grad<somebody::least>, archetype>);
static_assert(cts::attribution_method<cts::any_attribution<B>, B> && cts::answers_method<cts::any_attribution<B>, B>);
static_assert(!cts::attribution_method<cts::any_attribution<B>, archetype>);
// What the tables say is what the types offer.
static_assert([]<class... M>(cts::choices<M...>) {
  return (cts::choice<M> && ...) && (cts::attribution_method<M, archetype> && ...);
}(cts::attribution_methods{}));

const cts::vit_config small{.grid = {10, 8, 3, 2}, .dim = 12, .depth = 3, .heads = 3, .classes = 5, .mlp_ratio = 2};

/// A small model and a batch.
struct explained {
  B b{};
  cts::vit<B> model = ragged::lively_model(b, small);
  cts::token_batch batch = ragged::noise(small, {6, 9});
};

std::string refusal(const std::string& text) {
  return support::message_of([&] { cts::check_attribution_name(text); });
}

}  // namespace

TEST_CASE("methods are named, printed and read back to the last digit; what is wrong is told", "[attribution]") {
  auto texts = names_of(cts::attribution_methods{});
  for (const char* more :
       {"rollout:fusion=max:start_layer=1", "lrp:rules=chefer:level=pixels:limit=1e300", "grad_lrp:stabiliser=0.03",
        "atman:factor=0.123456789012345:neighbours=patch", "atman:factor=0.3333333333333333",
        "smooth_grad(grad_lrp):samples=3", "smooth_grad(atman:factor=0.25:shift=false):sigma=0.2"}) {
    texts.emplace_back(more);
  }
  for (const auto& text : texts) {
    INFO(text);
    const std::string whole = cts::attribution_text(text);
    CHECK(cts::attribution_text(whole) == whole);
    CHECK(text_of(support::method_named<B>(text)) == whole);
    CHECK(support::method_named<B>(whole).text() == whole);
    CHECK_NOTHROW(cts::check_attribution_name(text));
  }
  CHECK(cts::attribution_text("atman:factor=0.5") ==
        "atman:factor=0.5:shift=true:neighbours=none:threshold=0.6:watch=loss");
  CHECK(cts::attribution_text("atman:factor=0.123456789012345").starts_with("atman:factor=0.123456789012345:"));
  CHECK(cts::attribution_text("smooth_grad") ==
        "smooth_grad(gradient_x_input:magnitude=false):samples=16:sigma=0.1:seed=0");
  CHECK(cts::attribution_text("averaged(rollout):pairs=2") ==
        "averaged(rollout:start_layer=0:fusion=mean:discard=0):pairs=2:mirror=true:seed=0");
  CHECK(cts::attribution_text("smooth_grad(rollout):samples=8") ==
        "smooth_grad(rollout:start_layer=0:fusion=mean:discard=0):samples=8:sigma=0.1:seed=0");
  CHECK(refusal("best") ==
        "attribution: none is named 'best'; there are " + cts::join_names(names_of(cts::attribution_methods{})));
  CHECK(refusal("atman:size=2").find("threshold") != std::string::npos);
  CHECK(refusal("atman:factor=big").find("number") != std::string::npos);
  CHECK(refusal("rollout:fusion=all").find("mean, max, min") != std::string::npos);
  CHECK(refusal("rollout:fusion").find("name=value") != std::string::npos);
  CHECK(refusal("smooth_grad(rollout").find("bracket") != std::string::npos);
  CHECK(refusal("smooth_grad(smooth_grad)").find("none is named 'smooth_grad'") != std::string::npos);
  CHECK(refusal("averaged(smooth_grad(rollout))").find("none is named 'smooth_grad(rollout)'") != std::string::npos);
  CHECK(refusal("averaged(lrp)x").find("behind the bracket 'x'") != std::string::npos);
  CHECK(refusal("smooth_grad(rollout):size=1").find("sigma") != std::string::npos);
  CHECK(refusal("rollout(grad_lrp)").find("none is named 'rollout(grad_lrp)'") != std::string::npos);
  CHECK(refusal("grad_lrp(").find("none is named") != std::string::npos);
  CHECK(support::message_of([] { support::method_named<B>("best"); }) == refusal("best"));
}

TEST_CASE("a first block and a seed reach the methods that have one, unless they are 0", "[attribution]") {
  const auto text = [](const char* method, cts::index start, std::uint64_t seed) {
    return cts::attribution_text(method, {.start_layer = start, .seed = seed});
  };
  CHECK(text("generic_attention", 2, 9) == "generic_attention:start_layer=2");
  CHECK(text("generic_attention:start_layer=1", 0, 9) == "generic_attention:start_layer=1");
  CHECK(text("random", 2, 9) == "random:seed=9");
  CHECK(text("random:seed=4", 2, 0) == "random:seed=4");
  CHECK(text("smooth_grad(random)", 2, 9) == "smooth_grad(random:seed=0):samples=16:sigma=0.1:seed=9");
  CHECK(text("attention", 2, 9) == "attention");
}

TEST_CASE("an erased method gives what its type gives", "[attribution]") {
  explained it;
  const cts::rollout method{.start_layer = 1};
  const auto want = attribute(method, it.b, it.model, it.batch);
  const cts::any_attribution<B> erased = method, called(method, "mine");
  CHECK(attribute(erased, it.b, it.model, it.batch) == want);
  CHECK(attribute(support::method_named<B>("rollout:start_layer=1"), it.b, it.model, it.batch) == want);
  CHECK(attribute(cts::any_attribution<B>::for_classes(method), it.b, it.model, it.batch) == want);
  CHECK(erased.text() == "rollout:start_layer=1:fusion=mean:discard=0");
  CHECK(called.text() == "mine");
  const cts::smooth_grad<cts::occlusion> smooth{.samples = 2};
  CHECK(attribute(support::method_named<B>("smooth_grad(occlusion):samples=2"), it.b, it.model, it.batch) ==
        attribute(smooth, it.b, it.model, it.batch));
  // The target counts, and a workspace may be brought along.
  cts::attribution_workspace<B> ws;
  const cts::any_attribution<B> seeing = cts::grad_cam{};
  CHECK(attribute(seeing, it.b, it.model, it.batch, cts::target::of_class(1)) ==
        attribute(cts::grad_cam{}, it.b, it.model, it.batch, cts::target::of_class(1), ws));
  CHECK(attribute(seeing, it.b, it.model, it.batch, cts::target::of_class(1)) !=
        attribute(seeing, it.b, it.model, it.batch, cts::target::of_class(2)));
}

TEST_CASE("a method of one's own is smoothed, erased and named like any other", "[attribution]") {
  explained it;
  const auto own = attribute(somebody::brightness{}, it.b, it.model, it.batch);
  CHECK(attribute(cts::smooth_grad<somebody::brightness>{.samples = 2, .sigma = 0}, it.b, it.model, it.batch) == own);
  const cts::any_attribution<B> erased = somebody::brightness{}, nameless(somebody::least{}, "the least");
  CHECK(attribute(erased, it.b, it.model, it.batch) == own);
  CHECK(nameless.text() == "the least");
  CHECK(attribute(nameless, it.b, it.model, it.batch).size() == 15);
  const auto mine = joined(cts::choices<somebody::brightness>{}, cts::choices<cts::last_attention>{});
  CHECK(attribute(cts::named_attribution<B>("brightness", mine), it.b, it.model, it.batch) == own);
  CHECK(attribute(cts::named_attribution<B>("brightness:power=2", mine), it.b, it.model, it.batch) != own);
  CHECK(attribute(cts::named_attribution<B>("smooth_grad(brightness):sigma=0:samples=4", mine), it.b, it.model,
                  it.batch) == own);
  CHECK(support::message_of([&] { cts::named_attribution<B>("best", mine); }) ==
        "attribution: none is named 'best'; there are brightness, attention, averaged, smooth_grad");
  const cts::any_attribution<B> wrong(somebody::forgetful{}, "forgetful");
  CHECK(support::message_of([&] { attribute(wrong, it.b, it.model, it.batch); }) ==
        "attribution: 'forgetful' gave 2 numbers for 15 patches");
}

TEST_CASE("a method of one's own is judged as what it is, typed or erased", "[attribution][measure]") {
  explained it;
  const std::vector<double> coverage{0, 0, 1, 1, 0, 0, 0, 0, 0, .5, 0, 0, 0, 0, 0};
  cts::attribution_workspace<B> ws;
  cts::measured_batch<B> m(it.b, it.model, it.batch, {});
  const cts::judge_options options{.steps = 4, .sets = 5};
  const auto judged = [&](const auto& method) {
    cts::judgement table;
    cts::judge(method, it.b, it.model, m, coverage, true, options, ws, table);
    table.erase("seconds");
    return table;
  };
  const auto typed = judged(somebody::brightness{});
  CHECK(typed == judged(cts::any_attribution<B>(somebody::brightness{})));
  CHECK(typed != judged(somebody::least{}));
  for (const auto& measure : cts::judged_measures) CHECK(typed.contains(measure.name));
  for (const double blind : typed.at("random_logit")) CHECK(blind == Approx(1));  // it does not see the class
  const auto own = attribute(somebody::brightness{}, it.b, it.model, it.batch);
  CHECK(typed.at("deletion") == measure(cts::flipping{.steps = 4}, m, own).area);
  CHECK(typed.at("gini")[0] == cts::gini(std::span(own).first(6)));
}

TEST_CASE("erased methods work on answers where their types do, and the others name those that do", "[answers]") {
  B b;
  const cts::image_text_config config{.image = {.grid = {8, 8, 3, 4}, .dim = 12, .depth = 2, .heads = 2},
                                      .text = {.vocabulary = 11, .length = 12, .dim = 8, .depth = 1, .heads = 2}};
  cts::image_text_model<B> model(b, config);
  const auto images = ragged::noise(config.image, {2, 4});
  cts::text_batch texts;
  for (int s = 0; s < 2; ++s) {
    texts.next_picture();
    texts.append(std::vector<std::int32_t>{5}, std::vector<std::int32_t>{7}, 0, 1);
  }
  const auto working = names_of(cts::methods_for_answers<B>());
  CHECK(working ==
        std::vector<std::string>{"random", "attention", "gradient_x_input", "grad_lrp", "generic_attention", "atman"});
  for (const auto& name : names_of(cts::attribution_methods{})) {
    INFO(name);
    const auto method = support::method_named<B>(name);
    const bool works = std::find(working.begin(), working.end(), name) != working.end();
    CHECK(method.works_on_answers() == works);
    if (works) {
      CHECK_NOTHROW(cts::check_answers_method<B>(method));
      CHECK(attribute(method, b, model, images, texts).image.size() == 6);
    } else {
      const std::string refused = support::message_of([&] { attribute(method, b, model, images, texts); });
      CHECK(refused ==
            "attribution: '" + method.text() + "' does not work on answers; " + cts::join_names(working) + " do");
      CHECK(refused == support::message_of([&] { cts::check_answers_method<B>(method); }));
    }
  }
  CHECK(attribute(cts::any_attribution<B>(cts::grad_lrp{}), b, model, images, texts).text ==
        attribute(cts::grad_lrp{}, b, model, images, texts).text);
  const auto alone = cts::any_attribution<B>::for_classes(cts::grad_lrp{});
  CHECK(support::message_of([&] { attribute(alone, b, model, images, texts); }).find("for classes alone") !=
        std::string::npos);
  // A method of one's own answers and is judged on answers without a word of ours.
  cts::measured_answers<B> m(b, model, images, texts);
  cts::answer_workspace<B> ws;
  cts::judgement typed, erased;
  cts::judge(somebody::brightness{}, m, {.steps = 4, .sets = 5}, ws, typed);
  cts::judge(cts::any_attribution<B>(somebody::brightness{}), m, {.steps = 4, .sets = 5}, ws, erased);
  typed.erase("seconds"), erased.erase("seconds");
  CHECK(typed == erased);
  CHECK(typed.at("deletion").size() == 2);
}

}  // namespace attribution_methods_tests
