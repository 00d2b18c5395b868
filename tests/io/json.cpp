#include "core_tokensets/io/json.hpp"

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace io_json_tests {

// nlohmann's library is the second opinion on what a text says.

namespace cts = core_tokensets;
using cts::json;
using cts::parse_json;
using other_json = nlohmann::ordered_json;
using support::has;
using support::message_of;

namespace {

std::string reason(const std::string& text, int deepest = 16) {
  return message_of([&] { parse_json(text, "x", deepest); });
}

/// The bits of the one number in `text`.
std::uint64_t bits_of(const std::string& text) {
  const auto value = parse_json(text).get<double>();
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// Any value, up to `depth` levels deep, as both libraries hold it.
std::pair<json, other_json> any_value(cts::random_stream& random, int depth) {
  switch (random.below(depth > 0 ? 8 : 6)) {
    case 0:
      return {nullptr, nullptr};
    case 1:
      return {true, true};
    case 2: {
      const auto x = static_cast<std::int64_t>(random.below(std::numeric_limits<cts::index>::max())) *
                     (random.below(2) == 0 ? -1 : 1);
      return {x, x};
    }
    case 3: {
      const auto x = std::numeric_limits<std::uint64_t>::max() - static_cast<std::uint64_t>(random.below(1000));
      return {x, x};
    }
    case 4: {
      const double x = std::ldexp(random.uniform() - 0.5, static_cast<int>(random.below(2000)) - 1000);
      return {x, x};
    }
    case 5: {
      std::string text;
      for (auto i = random.below(12); i > 0; --i) {
        const char* pieces[] = {
            "a", "\"", "\\", "/", "\n", "\x01", "\x7f", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
        text += pieces[random.below(10)];
      }
      return {text, text};
    }
    case 6: {
      std::pair<json, other_json> list{json::array(), other_json::array()};
      for (auto i = random.below(4); i > 0; --i) {
        auto [ours, theirs] = any_value(random, depth - 1);
        list.first.push_back(std::move(ours));
        list.second.push_back(std::move(theirs));
      }
      return list;
    }
    default: {
      std::pair<json, other_json> members{json::object(), other_json::object()};
      for (auto i = random.below(4); i > 0; --i) {
        auto [ours, theirs] = any_value(random, depth - 1);
        const std::string key = "k\xc3\xa4" + std::to_string(random.below(5));
        members.first[key] = std::move(ours);
        members.second[key] = std::move(theirs);
      }
      return members;
    }
  }
}

}  // namespace

TEST_CASE("json: what is written is read by another library as the same, and the other way round", "[io][json]") {
  cts::random_stream random(5);
  for (int trial = 0; trial < 3000; ++trial) {
    const auto [ours, theirs] = any_value(random, 4);
    for (const int indent : {-1, 0, 1, 3}) {
      const std::string text = ours.dump(indent);
      INFO(text);
      REQUIRE(other_json::parse(text) == theirs);
      REQUIRE(parse_json(text) == ours);
      REQUIRE(parse_json(theirs.dump(indent)) == ours);
      REQUIRE(parse_json(theirs.dump(indent, ' ', true)) == ours);  // all that is not ASCII as \uXXXX
      REQUIRE(parse_json(text).dump(indent) == text);               // the keys in their order
    }
  }
}

TEST_CASE("json: values are laid out as one expects, on one line and indented", "[io][json]") {
  json value{{"a", 1}, {"b", {1, 2.5, true}}, {"c", {{"d", nullptr}, {"e", "x"}}}, {"f", json::array()}};
  value["g"] = json::object();
  value["a"] = -1;
  CHECK(value.dump() == R"({"a":-1,"b":[1,2.5,true],"c":{"d":null,"e":"x"},"f":[],"g":{}})");
  CHECK(value.dump(1) == other_json::parse(value.dump()).dump(1));
  CHECK(json(1.0).dump() == "1.0");
  CHECK(json(-0.0).dump() == "-0.0");
  CHECK(json(0.1).dump() == "0.1");
  CHECK(json(1e300).dump() == "1e+300");
  CHECK(json(0.1f).dump() == "0.10000000149011612");
  CHECK(json(std::map<std::string, std::vector<double>>{{"x", {1, 2}}}).dump() == R"({"x":[1.0,2.0]})");
  CHECK(json(std::vector<std::pair<int, std::string>>{{1, "a"}}).dump() == R"([[1,"a"]])");
  CHECK(json(std::vector<bool>{true, false}).dump() == "[true,false]");
  CHECK(json(std::uint8_t{200}).dump() == "200");
  for (const double x : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    CHECK(has(message_of([&] { json{{"x", x}}.dump(); }), "not finite"));
    CHECK(cts::finite_or_null(x).is_null());
  }
  CHECK(cts::finite_or_null(2) == 2.0);
}

TEST_CASE("json: the fewest digits that give the same number back", "[io][json]") {
  cts::random_stream random(6);
  for (int trial = 0; trial < 20000; ++trial) {
    std::uint64_t bits = 0;
    for (int part = 0; part < 4; ++part) bits = bits << 16 | static_cast<std::uint64_t>(random.below(65536));
    double x = 0;
    std::memcpy(&x, &bits, sizeof x);
    if (!std::isfinite(x)) continue;
    const std::string text = json(x).dump();
    INFO(text);
    REQUIRE(bits_of(text) == bits);
    REQUIRE(text.size() <= other_json(x).dump().size() + 2);  // ours may end in .0 instead of an exponent
  }
}

TEST_CASE("json: bytes that are not UTF-8 are replaced where another library replaces them", "[io][json]") {
  cts::random_stream random(7);
  const unsigned char bytes[] = {'a',  '"',  0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0,
                                 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff, 0x1f};
  for (int trial = 0; trial < 20000; ++trial) {
    std::string text;
    for (auto i = random.below(8); i > 0; --i) text += static_cast<char>(bytes[random.below(24)]);
    REQUIRE(json(text).dump() == other_json(text).dump(-1, ' ', false, other_json::error_handler_t::replace));
    const bool valid = other_json::accept("\"" + text + "\"");
    REQUIRE((reason("\"" + text + "\"").empty()) == valid);
  }
}

TEST_CASE("json: any text is taken or refused as another library does", "[io][json]") {
  std::vector<std::string> texts{"",
                                 " ",
                                 "{",
                                 "}",
                                 "[",
                                 "]",
                                 "{}",
                                 "[]",
                                 " [ ] ",
                                 "[1]",
                                 "[1,]",
                                 "[,1]",
                                 "[1 2]",
                                 "[1,2]",
                                 "{\"a\"}",
                                 "{\"a\":}",
                                 "{\"a\":1,}",
                                 "{a:1}",
                                 "{\"a\":1}",
                                 "{\"a\" : 1 , \"b\":2}",
                                 "{1:2}",
                                 "true",
                                 "tru",
                                 "truee",
                                 "True",
                                 "null",
                                 "nul",
                                 "false",
                                 "NaN",
                                 "Infinity",
                                 "-Infinity",
                                 "0",
                                 "-0",
                                 "00",
                                 "01",
                                 "-",
                                 "+1",
                                 "1.",
                                 ".5",
                                 "1.5",
                                 "1e",
                                 "1e+",
                                 "1e5",
                                 "1E-5",
                                 "1e+05",
                                 "0x10",
                                 "1_0",
                                 "--1",
                                 "1.5.2",
                                 "1e5.5",
                                 "9223372036854775807",
                                 "9223372036854775808",
                                 "-9223372036854775808",
                                 "-9223372036854775809",
                                 "18446744073709551615",
                                 "18446744073709551616",
                                 "123456789012345678901234567890",
                                 "1e308",
                                 "1e309",
                                 "-1e309",
                                 "1e-400",
                                 "-1e-400",
                                 "0.0000000000001e-320",
                                 "1e99999999999999999999",
                                 "1e-99999999999999999999",
                                 "0e99999999999999999999",
                                 "1" + std::string(400, '0'),
                                 "0." + std::string(400, '0') + "1",
                                 "1" + std::string(400, '0') + "e-300",
                                 "0." + std::string(400, '0') + "1e500",
                                 "4.9e-324",
                                 "2.2250738585072014e-308",
                                 "\"",
                                 "\"a",
                                 "\"a\"b",
                                 "\"\\\"",
                                 "\"\\x\"",
                                 "\"\\u12\"",
                                 "\"\\u12g4\"",
                                 "\"\\u0041\"",
                                 "\"\\u00e4\\u20aC\"",
                                 "\"\\ud83d\\ude00\"",
                                 "\"\\ud83d\"",
                                 "\"\\ude00\"",
                                 "\"\\ud83dx\"",
                                 "\"\\ud83d\\n\"",
                                 "\"\\ud83d\\u0041\"",
                                 "\"\\udbff\\udfff\"",
                                 "\"\t\"",
                                 "\"\n\"",
                                 "\"\\t\\b\\f\\r\\/\"",
                                 std::string("\"\0\"", 3),
                                 std::string("[1\0]", 4),
                                 "\"\x7f\"",
                                 "'a'",
                                 "// c\n1",
                                 "/* c */ 1",
                                 "1 // c",
                                 "[1]]",
                                 "{}{}",
                                 "\xef\xbb\xbf[1]",
                                 "\xef\xbb[1]",
                                 "\v1",
                                 "\xc2\xa0"
                                 "1",
                                 "[\"a\",\"b\"",
                                 "[[]",
                                 "{\"a\":{}",
                                 "{\"a\":1]",
                                 "[1}",
                                 "{\"\":\"\"}"};
  cts::random_stream random(8);
  const std::string seed = R"({"a": [1, -2.5e3, "x\n\u00e4", {"b": null}], "c": true, "d": {}})";
  for (int trial = 0; trial < 20000; ++trial) {  // and texts that were almost right
    std::string text = seed;
    for (auto i = 1 + random.below(3); i > 0; --i) {
      auto& c = text[static_cast<std::size_t>(random.below(static_cast<cts::index>(text.size())))];
      c = "0123456789\"\"{}[],:.-+eEtfnu\\ x"[random.below(30)];
    }
    texts.push_back(text);
  }
  int taken = 0;
  for (const auto& text : texts) {
    INFO(text);
    const auto theirs = other_json::parse(text, nullptr, false);
    const std::string why = reason(text);
    if (has(why, "twice")) continue;  // ours is stricter there
    REQUIRE(why.empty() == !theirs.is_discarded());
    if (!why.empty()) {
      CHECK(has(why, "x is not valid JSON: "));
      CHECK(has(why, " at byte "));
      CHECK(cts::parse_json_or_null(text).is_null());
      continue;
    }
    ++taken;
    REQUIRE(other_json::parse(parse_json(text).dump()) == theirs);
    REQUIRE(parse_json(text).is_number_integer() == theirs.is_number_integer());
  }
  CHECK(taken > 1000);
}

TEST_CASE("json: numbers are read to the last bit", "[io][json]") {
  for (const char* text : {"0.1", "1e23", "8.98846567431158e307", "2.2250738585072011e-308", "4.9406564584124654e-324",
                           "9007199254740993.0", "-1.7976931348623157e308", "123456789012345678901234567890"}) {
    INFO(text);
    const double theirs = other_json::parse(text).get<double>();
    std::uint64_t bits = 0;
    std::memcpy(&bits, &theirs, sizeof bits);
    CHECK(bits_of(text) == bits);
  }
  CHECK(std::signbit(parse_json("-1e-999").get<double>()));
  CHECK(has(reason("[1e999]"), "no double holds"));
}

TEST_CASE("json: depth, keys that come twice, and the place of an error", "[io][json]") {
  CHECK(reason("[[1]]", 2).empty());
  CHECK(has(reason("[[[]]]", 2), "x is nested too deeply, more than 2 levels at byte 2"));
  CHECK(has(reason(R"({"a":{"b":{}}})", 2), "nested too deeply"));
  CHECK(reason("[[],[],[[]],[]]", 3).empty());
  CHECK(has(reason(std::string(10'000'000, '[')), "nested too deeply"));
  CHECK(has(reason(R"({"a":1,"b":2,"a":3})"), "x names 'a' twice"));
  CHECK(has(reason(R"([{"a":{"k":1,"\u006b":2}}])"), "x names 'k' twice"));
  CHECK(reason(R"({"a":{"a":1},"b":{"a":2}})").empty());
  CHECK(has(reason("[1, 2; 3]"), "expected ',' or ']' at byte 5"));
}

TEST_CASE("json: reading takes time in proportion to the length", "[io][json]") {
  const auto seconds = [](int members) {
    std::string text = "{";
    for (int i = 0; i < members; ++i) text += "\"key " + std::to_string(i) + "\":[" + std::to_string(i) + "],";
    text.back() = '}';
    const auto start = std::chrono::steady_clock::now();
    CHECK(parse_json(text).size() == static_cast<std::size_t>(members));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  CHECK(seconds(200'000) < 5);  // a search of all keys for each key would take minutes
}

TEST_CASE("json: values are had as what they are, and as nothing else", "[io][json]") {
  json value = parse_json(R"({"n": 3, "neg": -3, "big": 18446744073709551615, "x": 2.5, "whole": 2.0, "s": "text",
                              "t": true, "z": null, "list": [1, 2], "o": {"a": [1.5]}})");
  CHECK(value["n"].get<int>() == 3);
  CHECK(value["n"].get<double>() == 3.0);
  CHECK(value["big"].get<std::uint64_t>() == std::numeric_limits<std::uint64_t>::max());
  CHECK(value["s"].get<std::string>() == "text");
  CHECK(value["list"].get<std::vector<float>>() == std::vector<float>{1, 2});
  CHECK(value["list"].get<std::pair<int, int>>() == std::pair(1, 2));
  CHECK(value["o"].get<std::map<std::string, std::vector<double>>>().at("a")[0] == 1.5);
  CHECK(value.value("n", 7) == 3);
  CHECK(value.value("none", 7) == 7);
  CHECK(value["n"].holds<std::uint8_t>());
  CHECK_FALSE(value["neg"].holds<std::uint8_t>());
  CHECK_FALSE(value["big"].holds<std::int64_t>());
  CHECK_FALSE(value["whole"].holds<int>());
  CHECK(value["n"].is_number_unsigned());
  CHECK_FALSE(value["neg"].is_number_unsigned());
  for (const char* key : {"z", "s", "t", "x", "neg", "list", "o", "big"}) {
    INFO(key);
    CHECK_THROWS_AS(value[key].get<std::uint8_t>(), cts::Error);
  }
  for (const char* key : {"z", "s", "t", "list", "o"}) CHECK_THROWS_AS(value[key].get<double>(), cts::Error);
  for (const char* key : {"z", "s", "n", "list", "o"}) CHECK_THROWS_AS(value[key].get<bool>(), cts::Error);
  for (const char* key : {"z", "t", "n", "list", "o"}) CHECK_THROWS_AS(value[key].get<std::string>(), cts::Error);
  for (const char* key : {"z", "t", "n", "s", "o"}) {
    CHECK_THROWS_AS(value[key].get<std::vector<int>>(), cts::Error);
    CHECK_THROWS_AS(value[key][0], cts::Error);
    CHECK_THROWS_AS(std::as_const(value)[key].list(), cts::Error);
  }
  CHECK(has(message_of([&] { (void)std::as_const(value)["none"]; }), "'none'"));
  CHECK(has(message_of([&] { (void)value.at("none"); }), "'none'"));
  CHECK(has(message_of([&] { (void)value["list"].at(2); }), "no entry 2"));
  CHECK_THROWS_AS(value.push_back(1), cts::Error);
  CHECK_THROWS_AS(value["list"]["x"], cts::Error);

  CHECK(json(1) == json(1.0));
  CHECK(json(1u) == json(1));
  CHECK_FALSE(json(-1) == json(std::numeric_limits<std::uint64_t>::max()));
  CHECK_FALSE(json(1) == json("1"));
  CHECK(json{{"a", 1}, {"b", 2}} == json{{"b", 2}, {"a", 1}});
  CHECK_FALSE(json{{"a", 1}, {"b", 2}} == json{{"a", 1}, {"c", 2}});
  CHECK_FALSE(json{1, 2} == json{2, 1});

  json copy = value;
  copy["o"]["a"][0] = 7;
  copy.update({{"n", 4}, {"new", json::array()}});
  copy.erase("z");
  CHECK(value["o"]["a"][0] == 1.5);
  CHECK(copy["n"] == 4);
  CHECK(copy.contains("new"));
  CHECK_FALSE(copy.contains("z"));
  const json moved = std::move(copy);
  CHECK(moved.size() == value.size());
  json self = value;
  self["o"] = json(self);  // a value may be put into itself
  CHECK(self["o"]["o"]["a"].size() == 1);
}

}  // namespace io_json_tests
