// cts info: what this program was compiled with, and what it found on this machine; or what a file of weights is.

#include <cstdio>
#include <memory>

#include "backends.hpp"
#include "commands.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/model/describe_weights.hpp"
#include "core_tokensets/model/weight_neighbours.hpp"

namespace cts_command {

namespace {

using core_tokensets::json;

/// The widest vector instructions that the compiler was allowed to use.
std::string compiled_simd() {
#if defined(__AVX512F__)
  return "avx512f";
#elif defined(__AVX2__)
  return "avx2";
#elif defined(__AVX__)
  return "avx";
#elif defined(__SSE2__)
  return "sse2";
#elif defined(__ARM_NEON)
  return "neon";
#else
  return "none known";
#endif
}

/// The widest ones that this processor has.
std::string processor_simd() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return "avx512f";
  if (__builtin_cpu_supports("avx2")) return "avx2";
  if (__builtin_cpu_supports("avx")) return "avx";
  return "sse2";
#else
  return compiled_simd();
#endif
}

std::string version(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

/// The accelerator of a backend that has one; null in a program without such a backend.
json device() {
#ifdef CTS_HAS_CUDA
  return cuda_device();
#else
  return nullptr;
#endif
}

json describe() {
  json j;
  j["version"] = CTS_VERSION;
  j["compiler"] = CTS_COMPILER;
  j["build_type"] = CTS_BUILD_TYPE;
  j["backends"] = backend_names();
  j["simd"] = {{"compiled", compiled_simd()}, {"processor", processor_simd()}};
  j["threads"] = core_tokensets::default_threads();
#ifdef _OPENMP
  j["openmp"] = _OPENMP;
#else
  j["openmp"] = nullptr;
#endif
  j["eigen"] = version(EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION);
#ifdef CTS_HAS_XTENSOR
  j["xtensor"] = version(XTENSOR_VERSION_MAJOR, XTENSOR_VERSION_MINOR, XTENSOR_VERSION_PATCH);
  j["blas"] = core_tokensets::blas_description();
#ifdef XTENSOR_USE_XSIMD
  j["xsimd"] = version(XSIMD_VERSION_MAJOR, XSIMD_VERSION_MINOR, XSIMD_VERSION_PATCH);
#else
  j["xsimd"] = nullptr;
#endif
#else
  j["xtensor"] = j["blas"] = j["xsimd"] = nullptr;
#endif
  j["device"] = device();
  return j;
}

void print_text(const json& j) {
  const auto text = [](const json& value) {
    return value.is_null() ? "none" : value.is_string() ? value.get<std::string>() : value.dump();
  };
  const auto line = [](const char* name, const std::string& value) { std::printf("%-11s %s\n", name, value.c_str()); };
  line("version", text(j["version"]));
  line("compiler", text(j["compiler"]) + ", " + text(j["build_type"]));
  line("backends", backend_list());
  line("simd", text(j["simd"]["compiled"]) + " compiled, " + text(j["simd"]["processor"]) + " here");
  line("threads", text(j["threads"]) + (j["openmp"].is_null() ? ", no OpenMP" : ", OpenMP " + text(j["openmp"])));
  for (const char* name : {"eigen", "xtensor", "xsimd", "blas", "device"}) line(name, text(j[name]));
}

struct info_arguments {
  std::string weights;
  bool as_json = false;
};

/// Lines of the same name become a list in JSON.
void describe_file(const info_arguments& a) {
  const auto lines = core_tokensets::describe_weights(core_tokensets::load_weights(a.weights));
  if (!a.as_json) {
    for (const auto& [name, text] : lines) std::printf("%-11s %s\n", name.c_str(), text.c_str());
    return;
  }
  json j{{"file", a.weights}, {"beside", json::array()}, {"unusual", json::array()}};
  for (const auto& [name, text] : lines) {
    if (j.contains(name) && j[name].is_array()) {
      j[name].push_back(text);
    } else {
      j[name] = text;
    }
  }
  std::printf("%s\n", j.dump(1).c_str());
}

}  // namespace

void add_info(CLI::App& app) {
  auto a = std::make_shared<info_arguments>();
  auto* command = app.add_subcommand("info", "what this program was compiled with, and what it found here");
  command->add_option("--weights", a->weights,
                      "instead what these weights are, a file or a downloaded folder, and whether they can be loaded");
  command->add_flag("--json", a->as_json, "as JSON");
  command->final_callback([a] {
    if (!a->weights.empty()) return describe_file(*a);
    const json j = describe();
    a->as_json ? static_cast<void>(std::printf("%s\n", j.dump(1).c_str())) : print_text(j);
  });
}

}  // namespace cts_command
