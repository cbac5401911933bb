// The end of a mask head: a transposed convolution of stride 2, a rectifier, and the inner product with weights of each
// region's own. A pixel becomes 2x2, so it is one matrix product; its result, the largest map of a detector, is summed up
// while it is in the cache.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "product.h"
#include "registers.h"

namespace det_ops {
namespace {

constexpr int64_t kBlock = 96;  // pixels at a time
constexpr int kNarrow = 16;     // bytes of the smallest registers
constexpr int kQuarters = 4;    // of a pixel: upper left, upper right, lower left, lower right

// sums[r] += own[owner[r]] . max(products[r] + bias, 0) for `width` channels at a time, of which `channels` exist.
template <class T>
struct Products {
  const T* values;  // [rows, width]
  int64_t rows, width, channels;
  const T* bias;        // [width] or null
  const T* const* own;  // a row's weights of these channels
  T* sums;              // [rows, lanes]
};

template <class T, int bytes>
DET_OPS_INLINE void add_lanes(const Products<T>& p, int64_t row, int64_t c) {
  using V = typename Lanes<T, bytes>::type;
  constexpr int64_t lanes = sizeof(typename Lanes<T, kWide>::type) / sizeof(T);
  V value = *reinterpret_cast<const V*>(p.values + row * p.width + c);
  if (p.bias) value += *reinterpret_cast<const V*>(p.bias + c);
  const V zero{};
  value = value < zero ? zero : value;  // NaN stays
  *reinterpret_cast<V*>(p.sums + row * lanes) += value * *reinterpret_cast<const V*>(p.own[row] + c);
}

template <class T>
DET_OPS_INLINE void add_any(const Products<T>& p) {
  constexpr int64_t lanes = sizeof(typename Lanes<T, kWide>::type) / sizeof(T);
  constexpr int64_t few = sizeof(typename Lanes<T, kNarrow>::type) / sizeof(T);
  for (int64_t row = 0; row < p.rows; ++row) {
    int64_t c = 0;
    for (; lanes > 1 && c + lanes <= p.channels; c += lanes) add_lanes<T, kWide>(p, row, c);
    for (; few > 1 && c + few <= p.channels; c += few) add_lanes<T, kNarrow>(p, row, c);
    for (; c < p.channels; ++c) add_lanes<T, 0>(p, row, c);
  }
}

// Clones do not apply to templates.
#define DET_OPS_ADD(T) \
  DET_OPS_CLONES void add(const Products<T>& products) { add_any<T>(products); }
DET_OPS_ADD(float)
DET_OPS_ADD(double)
#undef DET_OPS_ADD

// Channels of a quarter, as many as panels have room for.
template <class T>
int64_t padded_channels(int64_t channels) {
  return rounded_up(channels, best_product<T>().width);
}

// Numbers that `pack` writes.
template <class T>
int64_t panels_size(int64_t depth, int64_t channels) {
  return kQuarters * padded_channels<T>(channels) * depth;
}

// Weights [depth, channels, 2, 2] of these strides to panels [4, channels / width, depth, width].
template <class T>
void pack(int64_t depth, int64_t channels, uintptr_t weight, const std::vector<int64_t>& strides, int threads,
          uintptr_t panels) {
  pybind11::gil_scoped_release release;
  const int64_t width = best_product<T>().width, count = padded_channels<T>(channels) / width;
  parallel_for(kQuarters * count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t quarter = panel / count, first = panel % count * width;
      const T* source = reinterpret_cast<const T*>(weight) + quarter / 2 * strides[2] + quarter % 2 * strides[3];
      T* target = reinterpret_cast<T*>(panels) + panel * depth * width;
      for (int64_t d = 0; d < depth; ++d) {
        for (int64_t c = 0; c < width; ++c) {
          const bool exists = first + c < channels;
          target[d * width + c] = exists ? source[d * strides[0] + (first + c) * strides[1]] : T(0);
        }
      }
    }
  });
}

// Logits [regions, 2 * height, 2 * width] of pixels [regions, height, width, depth].
template <class T>
void mask_logits(int64_t regions, int64_t height, int64_t width, int64_t depth, int64_t channels, uintptr_t pixels,
                 uintptr_t panels, uintptr_t bias, uintptr_t own, int threads, uintptr_t logits) {
  pybind11::gil_scoped_release release;
  const Product<T> product = best_product<T>();
  constexpr int64_t lanes = sizeof(typename Lanes<T, kWide>::type) / sizeof(T);
  const int64_t total = regions * height * width, padded = padded_channels<T>(channels);
  const int64_t room = rounded_up(kBlock, product.rows);
  parallel_for((total + kBlock - 1) / kBlock, threads, [&](int64_t from, int64_t to) {
    Scratch<T> tail(room * depth), products(room * product.width), sums(room * lanes);
    std::vector<const T*> weights(kBlock);
    for (int64_t block = from; block < to; ++block) {
      const int64_t begin = block * kBlock, count = std::min(kBlock, total - begin);
      const int64_t rows = rounded_up(count, product.rows);
      const T* source = reinterpret_cast<const T*>(pixels) + begin * depth;
      if (begin + rows > total) {
        std::copy_n(source, count * depth, tail.data());
        std::fill_n(tail.data() + count * depth, (rows - count) * depth, T(0));
        source = tail.data();
      }
      const T* panel = reinterpret_cast<const T*>(panels);
      for (int64_t quarter = 0; quarter < kQuarters; ++quarter) {
        std::fill_n(sums.data(), count * lanes, T(0));
        for (int64_t c = 0; c < padded; c += product.width, panel += product.width * depth) {
          product.multiply(source, rows, depth, panel, products.data(), product.width);
          for (int64_t row = 0; row < count; ++row) {
            weights[row] = reinterpret_cast<const T*>(own) + (begin + row) / (height * width) * channels + c;
          }
          add(Products<T>{products.data(), count, product.width, std::min(product.width, channels - c),
                          bias ? reinterpret_cast<const T*>(bias) + c : nullptr, weights.data(), sums.data()});
        }
        for (int64_t row = 0; row < count; ++row) {
          const int64_t pixel = begin + row, x = pixel % width, y = pixel / width;  // of all regions' rows
          T sum = 0;
          for (int64_t lane = 0; lane < lanes; ++lane) sum += sums.data()[row * lanes + lane];
          reinterpret_cast<T*>(logits)[(2 * y + quarter / 2) * 2 * width + 2 * x + quarter % 2] = sum;
        }
      }
    }
  });
}

}  // namespace

void register_mask_logits(pybind11::module_& module) {
  module.def("mask_logits_float32", &mask_logits<float>);
  module.def("mask_logits_float64", &mask_logits<double>);
  module.def("mask_logits_pack_float32", &pack<float>);
  module.def("mask_logits_pack_float64", &pack<double>);
  module.def("mask_logits_panels_size_float32", &panels_size<float>);
  module.def("mask_logits_panels_size_float64", &panels_size<double>);
}

}  // namespace det_ops
