#pragma once
// How a case of the conformance suite is run: on the backend, on the same backend with nothing but the required
// functions, again, with other numbers of threads, and on the oracle, the reference in double.

#include <memory>

#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/only_required.hpp"
#include "support/tolerance.hpp"
#include "tensor/conformance/operand.hpp"

namespace conformance {

/// What a case writes.
struct output {
  shape extents;
  start how = start::nan;
};

/// All numbers that a case left in its outputs.
template <class T>
struct result {
  std::vector<T> numbers;
  bool marks_kept = true;
  bool operator==(const result& other) const {  // NaN equals NaN here
    return marks_kept == other.marks_kept && numbers.size() == other.numbers.size() &&
           std::equal(numbers.begin(), numbers.end(), other.numbers.begin(),
                      [](T a, T b) { return a == b || (a != a && b != b); });
  }
};

template <class B>
using operands = std::vector<operand<B>>;

/// Runs `body(backend, outputs)` on fresh outputs.
template <class B, class Body>
result<typename B::scalar> run(B& b, const std::vector<output>& outputs, const Body& body) {
  operands<B> out;
  for (std::size_t i = 0; i < outputs.size(); ++i) out.emplace_back(b, outputs[i].extents, 90 + i, outputs[i].how);
  body(b, out);
  result<typename B::scalar> got;
  for (const auto& o : out) {
    const auto numbers = o.numbers(b, got.marks_kept);
    got.numbers.insert(got.numbers.end(), numbers.begin(), numbers.end());
  }
  return got;
}

/// Largest difference, relative where numbers are larger than 1; infinite where only one of two is NaN.
template <class T>
double difference(const std::vector<T>& got, const std::vector<double>& want) {
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double g = double(got[i]), w = want[i];
    if (g == w || (std::isnan(g) && std::isnan(w))) continue;
    const double d = std::abs(g - w) / std::max(1.0, std::abs(w));
    worst = std::isnan(d) ? HUGE_VAL : std::max(worst, d);
  }
  return worst;
}

/// A backend under test, and its like with other numbers of threads where it can be had.
template <class B>
class suite {
 public:
  explicit suite(B b) : backend(std::move(b)) {
    if constexpr (has_threads) {
      for (const int threads : {1, 2, 3}) others_.push_back(std::make_unique<B>(threads));
    }
  }

  /// One case: `what` is the operation with all its parameters; `terms` the longest sum in it; `body(backend, outputs)`
  /// makes its operands in the memory of the backend that it is given.
  template <class Body>
  void check(const std::string& what, index terms, const std::vector<output>& outputs, const Body& body) {
    INFO(what);
    cts::reference_backend<double> oracle;
    const auto want = run(oracle, outputs, body);
    const auto got = run(backend, outputs, body);
    CHECK(got.marks_kept);
    CHECK(difference(got.numbers, want.numbers) <= rounding<B>(terms));
    const bool same_again = run(backend, outputs, body) == got;
    CHECK(same_again);
    if constexpr (has_threads) {
      for (auto& other : others_) {
        INFO(other->threads() << " threads");
        const bool same_bits = run(*other, outputs, body) == got;
        CHECK(same_bits);
      }
    }
  }

  /// The same for an operation of ops.hpp: also without the backend's own version.
  template <class Body>
  void check_fused(const std::string& what, index terms, const std::vector<output>& outputs, const Body& body) {
    check(what, terms, outputs, body);
    INFO(what << ", default");
    cts::reference_backend<double> oracle;
    support::only_required<B> plain(backend);
    const auto want = run(oracle, outputs, body);
    const auto got = run(plain, outputs, body);
    CHECK(got.marks_kept);
    CHECK(difference(got.numbers, want.numbers) <= rounding<B>(terms));
  }

  B backend;

 private:
  static constexpr bool has_threads = std::is_constructible_v<B, int> && requires(const B& b) { b.threads(); };
  std::vector<std::unique_ptr<B>> others_;
};

/// "name a = 1, b = 2": the parameters of a case for its message.
template <class... Parts>
std::string describe(const Parts&... parts) {
  std::ostringstream out;
  out << std::boolalpha;
  (out << ... << parts);
  return out.str();
}

}  // namespace conformance
