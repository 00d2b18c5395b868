#pragma once
// All parameters of a model in one array, with a table of their names: zeroing is one fill, AdamW one pass, a
// checkpoint one write.

#include <numeric>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Place of one parameter in the array, as a matrix; empty for a parameter that the model does not have.
struct slot {
  index offset = 0, rows = 0, cols = 0;
  index size() const { return rows * cols; }
};

/// One named parameter: its shape as PyTorch has it, and whether weight decay applies.
struct parameter {
  std::string name;
  std::vector<index> shape;
  slot where;
  bool decay = false;
};

/// The table of a model's parameters and the size of the array that holds them.
class parameter_layout {
 public:
  /// Appends a parameter; as a matrix it has `shape[0]` rows (one row for a vector).
  slot add(std::string name, std::vector<index> shape, bool decay) {
    const index total = std::accumulate(shape.begin(), shape.end(), index{1}, std::multiplies<>());
    const index rows = shape.size() < 2 ? 1 : shape.front();
    const slot place{size_, rows, rows == 0 ? 0 : total / rows};
    size_ += (total + 15) / 16 * 16;  // every parameter starts on a cache line
    table_.push_back({std::move(name), std::move(shape), place, decay});
    return place;
  }
  index size() const { return size_; }
  const std::vector<parameter>& table() const { return table_; }
  const parameter& at(const std::string& name) const {
    for (const parameter& p : table_) {
      if (p.name == name) return p;
    }
    fail("model: no parameter is named '", name, "'");
  }

 private:
  std::vector<parameter> table_;
  index size_ = 0;
};

/// Looks a slot up in an array of parameters (or of their gradients). A null array gives empty views.
template <class T>
struct parameter_view {
  T* base = nullptr;

  view<T> operator[](const slot& s) const {
    return base == nullptr || s.size() == 0 ? view<T>{} : view<T>(base + s.offset, s.rows, s.cols);
  }
  constexpr operator parameter_view<const T>() const requires(!std::is_const_v<T>) { return {base}; }
  explicit operator bool() const { return base != nullptr; }
};

}  // namespace core_tokensets
