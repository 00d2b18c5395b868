#pragma once
// Weights in the number type in which they are stored: with F16 or BF16 a model takes half the bytes.

#include <cmath>
#include <string>
#include <utility>

#include "core_tokensets/io/safetensors.hpp"

namespace core_tokensets {

/// A file of weights with all its numbers rounded to the nearest of `type`. Models are read from any of these types and
/// compute in that of their backend. `Error`: a type or an array that is not of floating-point numbers, a number that
/// F16, whose largest is 65504, cannot hold (BF16 has the range of F32, and three digits less than F16).
inline tensor_file stored_as(dtype type, tensor_file file) {
  require(is_floating(type), "weights in ", dtype_name(type), ", expected F64, F32, F16 or BF16");
  for (auto& [name, array] : file.arrays) {
    require(is_floating(array.type), file.path, ": '", name, "' holds ", dtype_name(array.type),
            ", expected floating-point numbers");
    host_array rounded = array.to(type);
    const auto before = array.as<double>(), after = rounded.as<double>();
    for (std::size_t i = 0; i < before.size(); ++i) {
      require(std::isfinite(after[i]) || !std::isfinite(before[i]), file.path, ": '", name, "' holds ", before[i],
              ", which ", dtype_name(type), " cannot",
              type == dtype::f16 && std::abs(before[i]) < 3e38 ? "; BF16 can" : "");
    }
    array = std::move(rounded);
  }
  return file;
}

}  // namespace core_tokensets
