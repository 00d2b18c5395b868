#pragma once
// DLPack, the structure by which array libraries (PyTorch, NumPy, JAX, CuPy) lend each other memory. The types below
// have the layout of dlpack.h, which is not needed; where a program has it, its types go in and come out just as well.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "core_tokensets/tensor/interop_strided.hpp"
#include "core_tokensets/tensor/tensor.hpp"

namespace core_tokensets::dlpack {

/// DLDevice. Types: 1 host, 2 CUDA, 3 pinned host memory of CUDA, and others.
struct device {
  std::int32_t device_type = 1, device_id = 0;
  bool operator==(const device&) const = default;
};

/// DLDataType. Codes: 0 integer, 1 unsigned, 2 floating point.
struct data_type {
  std::uint8_t code = 2, bits = 0;
  std::uint16_t lanes = 1;
};

/// DLTensor. Strides count elements; null: row after row without gaps.
struct tensor {
  void* data = nullptr;
  dlpack::device device = {};
  std::int32_t ndim = 0;
  data_type dtype = {};
  std::int64_t* shape = nullptr;
  std::int64_t* strides = nullptr;
  std::uint64_t byte_offset = 0;
};

/// DLManagedTensor: whoever holds it calls `deleter` in the end.
struct managed_tensor {
  tensor dl_tensor = {};
  void* manager_ctx = nullptr;
  void (*deleter)(managed_tensor*) = nullptr;
};

static_assert(std::is_standard_layout_v<managed_tensor> && sizeof(data_type) == 4 && sizeof(device) == 8);
static_assert(sizeof(void*) != 8 ||
              (offsetof(tensor, device) == 8 && offsetof(tensor, ndim) == 16 && offsetof(tensor, dtype) == 20 &&
               offsetof(tensor, shape) == 24 && offsetof(tensor, byte_offset) == 40 && sizeof(managed_tensor) == 64));

/// The DLPack type of T.
template <class T>
constexpr data_type type_of() {
  static_assert(std::is_arithmetic_v<T>);
  return {.code = std::is_floating_point_v<T> ? std::uint8_t{2}
                  : std::is_signed_v<T>       ? std::uint8_t{0}
                                              : std::uint8_t{1},
          .bits = 8 * sizeof(T)};
}

/// The memory of a DLTensor (this one or dlpack.h's) as a view. Throws unless it holds T on the device `where`, of up
/// to four dimensions with contiguous rows.
template <class T, class DLTensor>
view<T> as_view(const DLTensor& t, device where = {}) {
  constexpr data_type want = type_of<std::remove_const_t<T>>();
  const device at{static_cast<std::int32_t>(t.device.device_type), static_cast<std::int32_t>(t.device.device_id)};
  require(at == where, "dlpack: an array on device ", at.device_type, ":", at.device_id, ", expected ",
          where.device_type, ":", where.device_id);
  require(t.dtype.code == want.code && t.dtype.bits == want.bits && t.dtype.lanes == 1,
          "dlpack: an array of type code ", int(t.dtype.code), " with ", int(t.dtype.bits), " bits and ", t.dtype.lanes,
          " lanes, expected ", int(want.code), " with ", int(want.bits), " and 1");
  require(t.ndim >= 0 && t.ndim <= 4 && (t.ndim == 0 || t.shape != nullptr), "dlpack: an array of ", t.ndim,
          " dimensions, expected at most 4");
  std::array<index, 4> shape{}, strides{};
  index step = 1;
  for (auto i = static_cast<std::size_t>(t.ndim); i-- > 0;) {
    shape[i] = static_cast<index>(t.shape[i]);
    strides[i] = t.strides != nullptr ? static_cast<index>(t.strides[i]) : step;
    step *= shape[i];
  }
  auto* bytes = static_cast<std::byte*>(t.data);
  if (bytes != nullptr) bytes += t.byte_offset;
  require(reinterpret_cast<std::uintptr_t>(bytes) % alignof(T) == 0, "dlpack: an array whose numbers start at offset ",
          t.byte_offset, ", which is no boundary of ", alignof(T), " bytes");
  const auto n = static_cast<std::size_t>(t.ndim);
  return strided_view(reinterpret_cast<T*>(bytes), std::span<const index>(shape).first(n),
                      std::span<const index>(strides).first(n), "dlpack");
}

/// A view for others to read and write. What `get` returns points into this object.
template <class T>
class lent {
 public:
  explicit lent(const view<T>& v, device where = {})
      : data_(v.data), where_(where), shape_{v.n0, v.n1, v.rows, v.cols}, strides_{v.s0, v.s1, v.ld, 1} {
    static_assert(!std::is_const_v<T>, "DLPack cannot say that memory is read-only");
  }
  /// As `dlpack::tensor`, or as the DLTensor of dlpack.h. A matrix has two dimensions, a batch four.
  template <class DLTensor = tensor>
  DLTensor get() {
    const std::size_t skipped = shape_[0] * shape_[1] == 1 ? 2 : 0;
    constexpr data_type type = type_of<T>();
    DLTensor t{};
    t.data = const_cast<std::remove_volatile_t<T>*>(data_);
    t.device.device_type = static_cast<decltype(t.device.device_type)>(where_.device_type);
    t.device.device_id = where_.device_id;
    t.ndim = static_cast<std::int32_t>(4 - skipped);
    t.dtype = {type.code, type.bits, type.lanes};
    t.shape = shape_.data() + skipped;
    t.strides = strides_.data() + skipped;
    return t;
  }

 private:
  T* data_;
  device where_;
  std::array<std::int64_t, 4> shape_, strides_;
};

/// Gives a tensor away: the receiver owns it through the result and calls its deleter. The backend's work on it must be
/// done.
template <class DLManagedTensor = managed_tensor, tensor_backend B>
DLManagedTensor* give(core_tokensets::tensor<B>&& x, device where = {}) {
  struct parcel {
    core_tokensets::tensor<B> owner;
    lent<typename B::scalar> description;
    DLManagedTensor managed{};
  };
  auto all = std::make_unique<parcel>(parcel{std::move(x), lent<typename B::scalar>(view<typename B::scalar>{}), {}});
  all->description = lent<typename B::scalar>(*all->owner, where);
  all->managed.dl_tensor = all->description.template get<decltype(all->managed.dl_tensor)>();
  all->managed.manager_ctx = all.get();
  all->managed.deleter = [](DLManagedTensor* m) { delete static_cast<parcel*>(m->manager_ctx); };
  return &all.release()->managed;
}

/// Takes what another library gives, and calls its deleter in the end. Where the constructor throws, nothing was taken.
template <class T, class DLManagedTensor = managed_tensor>
class taken {
 public:
  explicit taken(DLManagedTensor* managed, device where = {})
      : numbers_(as_view<T>(managed->dl_tensor, where)), managed_(managed) {}
  view<T> operator*() const { return numbers_; }

 private:
  struct release {
    void operator()(DLManagedTensor* m) const {
      if (m->deleter != nullptr) m->deleter(m);
    }
  };
  view<T> numbers_;
  std::unique_ptr<DLManagedTensor, release> managed_;
};

}  // namespace core_tokensets::dlpack
