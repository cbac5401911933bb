// Convolution of 3x3 taps and stride 1 by Winograd's minimal filtering F(4x4, 3x3): 36 matrix products over channels
// replace 144 multiplications per four by four outputs. A thread transforms a block of tiles, multiplies and transforms
// back before it takes the next one, so that what is between the transforms stays in its own cache.
//
// Polynomials are evaluated at 0, +-5/8, +-3/2 and infinity: exact in binary, and a quarter of the error of 0, +-1,
// +-2. Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016); Barabasz et al., Error Analysis and
// Improving the Accuracy of Winograd Convolution (2020). Gradients are the same products, transforms transposed.
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "product.h"
#include "registers.h"
#include "simd.h"

namespace py = pybind11;

namespace det_ops {
namespace {

constexpr int kTile = 4, kSide = 3, kPatch = kTile + kSide - 1, kPlanes = kPatch * kPatch;

template <class T>
struct Points {
  static constexpr T a = T(0.625), b = T(1.5);
  static constexpr T aa = a * a, bb = b * b, sum = aa + bb, product = aa * bb;
  // 1 / product over the other points of the difference; of points +-p the same.
  static constexpr T at_0 = T(1) / product, at_a = T(1) / (2 * aa * (aa - bb)), at_b = T(1) / (2 * bb * (bb - aa));
};

// The one-dimensional transforms: from values `step` apart to values `out_step` apart. V is T or a vector of it.

// B^T: 6 inputs.
struct InputLine {
  static constexpr int from = kPatch, to = kPatch;
  template <class T, class V>
  DET_OPS_INLINE static void apply(const V* d, int step, V* out, int out_step) {
    using P = Points<T>;
    const V d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const V even_a = d4 - P::bb * d2, odd_a = P::a * (d3 - P::bb * d1);
    const V even_b = d4 - P::aa * d2, odd_b = P::b * (d3 - P::aa * d1);
    out[0] = d4 - P::sum * d2 + P::product * d0;
    out[out_step] = even_a + odd_a;
    out[2 * out_step] = even_a - odd_a;
    out[3 * out_step] = even_b + odd_b;
    out[4 * out_step] = even_b - odd_b;
    out[5 * out_step] = d5 - P::sum * d3 + P::product * d1;
  }
};

// A^T: 6 products to 4 outputs.
struct OutputLine {
  static constexpr int from = kPatch, to = kTile;
  template <class T, class V>
  DET_OPS_INLINE static void apply(const V* m, int step, V* out, int out_step) {
    using P = Points<T>;
    const V m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    const V sum_a = m1 + m2, difference_a = P::a * (m1 - m2), sum_b = m3 + m4, difference_b = P::b * (m3 - m4);
    out[0] = m[0] + sum_a + sum_b;
    out[out_step] = difference_a + difference_b;
    out[2 * out_step] = P::aa * sum_a + P::bb * sum_b;
    out[3 * out_step] = P::aa * difference_a + P::bb * difference_b + m[5 * step];
  }
};

// A: gradients of 4 outputs to those of 6 products.
struct GradientLine {
  static constexpr int from = kTile, to = kPatch;
  template <class T, class V>
  DET_OPS_INLINE static void apply(const V* y, int step, V* out, int out_step) {
    using P = Points<T>;
    const V y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const V even_a = y0 + P::aa * y2, odd_a = P::a * (y1 + P::aa * y3);
    const V even_b = y0 + P::bb * y2, odd_b = P::b * (y1 + P::bb * y3);
    out[0] = y0;
    out[out_step] = even_a + odd_a;
    out[2 * out_step] = even_a - odd_a;
    out[3 * out_step] = even_b + odd_b;
    out[4 * out_step] = even_b - odd_b;
    out[5 * out_step] = y3;
  }
};

// G: 3 taps to 6.
struct WeightLine {
  static constexpr int from = kSide, to = kPatch;
  template <class T, class V>
  DET_OPS_INLINE static void apply(const V* g, int step, V* out, int out_step) {
    using P = Points<T>;
    const V g0 = g[0], g1 = g[step], g2 = g[2 * step];
    const V even_a = P::at_a * (g0 + P::aa * g2), odd_a = P::at_a * P::a * g1;
    const V even_b = P::at_b * (g0 + P::bb * g2), odd_b = P::at_b * P::b * g1;
    out[0] = P::at_0 * g0;
    out[out_step] = even_a + odd_a;
    out[2 * out_step] = even_a - odd_a;
    out[3 * out_step] = even_b + odd_b;
    out[4 * out_step] = even_b - odd_b;
    out[5 * out_step] = g2;
  }
};

// G^T: gradients of 6 transformed taps to those of 3.
struct WeightGradientLine {
  static constexpr int from = kPatch, to = kSide;
  template <class T, class V>
  DET_OPS_INLINE static void apply(const V* u, int step, V* out, int out_step) {
    using P = Points<T>;
    const V u1 = u[step], u2 = u[2 * step], u3 = u[3 * step], u4 = u[4 * step];
    const V sum_a = P::at_a * (u1 + u2), sum_b = P::at_b * (u3 + u4);
    out[0] = P::at_0 * u[0] + sum_a + sum_b;
    out[out_step] = P::at_a * P::a * (u1 - u2) + P::at_b * P::b * (u3 - u4);
    out[2 * out_step] = P::aa * sum_a + P::bb * sum_b + u[5 * step];
  }
};

// Squares of addresses: value k of channel 0 is at [k].
template <class From, class To = From>
struct Squares {
  const From* source[kPlanes];
  To* target[kPlanes];
  const SumOf<From>* bias = nullptr;  // added to all values
  bool relu = false;                  // then a rectifier
};

// Neighbouring numbers as what they are computed in, and back.
template <class V, class T>
DET_OPS_INLINE void load(const T* numbers, V& values) {
  values = *reinterpret_cast<const V*>(numbers);
}
template <class V, class T>
DET_OPS_INLINE void store(const V& values, T* numbers) {
  *reinterpret_cast<V*>(numbers) = values;
}
#if defined(__GNUC__)
constexpr int kLanes = kWide / sizeof(float);
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
template <>
DET_OPS_INLINE void load(const BFloat16* numbers, typename Lanes<float, kWide>::type& values) {
  const Halves halves = *reinterpret_cast<const Halves*>(numbers);
  values = (typename Lanes<float, kWide>::type)(__builtin_convertvector(halves, Words) << 16);
}
template <>
DET_OPS_INLINE void store(const typename Lanes<float, kWide>::type& values, BFloat16* numbers) {
  const Words words = (Words)values, nearest = (words + 0x7fff + (words >> 16 & 1)) >> 16, nan = Words{} + 0x7fc0;
  *reinterpret_cast<Halves*>(numbers) = __builtin_convertvector(values == values ? nearest : nan, Halves);
}
#endif
template <>
DET_OPS_INLINE void load(const BFloat16* numbers, float& value) {
  value = widened(*numbers);
}
template <>
DET_OPS_INLINE void store(const float& value, BFloat16* numbers) {
  *numbers = rounded(value);
}

template <class Line, int bytes, class From, class To>
DET_OPS_INLINE void transform_lanes(const Squares<From, To>& squares, int64_t c) {
  using T = SumOf<From>;
  using V = typename Lanes<T, bytes>::type;
  constexpr int from = Line::from, to = Line::to;
  // Aligned, because a template's argument loses the attribute that says it need not be.
  alignas(64) V values[from * from], half[from * to], result[to * to];
  for (int k = 0; k < from * from; ++k) load(squares.source[k] + c, values[k]);
  for (int row = 0; row < from; ++row) Line::template apply<T>(values + row * from, 1, half + row * to, 1);
  for (int column = 0; column < to; ++column) Line::template apply<T>(half + column, to, result + column, to);
  if (squares.bias) {
    const V bias = *reinterpret_cast<const V*>(squares.bias + c);
    for (int k = 0; k < to * to; ++k) result[k] += bias;
  }
  if (squares.relu) {
    const V zero{};
    for (int k = 0; k < to * to; ++k) result[k] = result[k] < zero ? zero : result[k];  // NaN stays
  }
  for (int k = 0; k < to * to; ++k) store(result[k], squares.target[k] + c);
}

template <class Line, class From, class To>
DET_OPS_INLINE void transform_any(const Squares<From, To>& squares, int64_t channels) {
  int64_t c = 0;
  constexpr int64_t lanes = sizeof(typename Lanes<SumOf<From>, kWide>::type) / sizeof(SumOf<From>);
  for (; lanes > 1 && c + lanes <= channels; c += lanes) transform_lanes<Line, kWide>(squares, c);
  for (; c < channels; ++c) transform_lanes<Line, 0>(squares, c);
}

// Clones do not apply to templates.
#define DET_OPS_TRANSFORM(Line, From, To)                                                    \
  DET_OPS_CLONES void transform(Line, const Squares<From, To>& squares, int64_t channels) { \
    transform_any<Line>(squares, channels);                                                  \
  }
DET_OPS_TRANSFORM(InputLine, float, float)
DET_OPS_TRANSFORM(InputLine, double, double)
DET_OPS_TRANSFORM(InputLine, BFloat16, float)
DET_OPS_TRANSFORM(InputLine, BFloat16, BFloat16)
DET_OPS_TRANSFORM(OutputLine, float, float)
DET_OPS_TRANSFORM(OutputLine, double, double)
DET_OPS_TRANSFORM(OutputLine, float, BFloat16)
DET_OPS_TRANSFORM(GradientLine, float, float)
DET_OPS_TRANSFORM(GradientLine, double, double)
DET_OPS_TRANSFORM(GradientLine, BFloat16, float)
DET_OPS_TRANSFORM(WeightLine, float, float)
DET_OPS_TRANSFORM(WeightLine, double, double)
DET_OPS_TRANSFORM(WeightGradientLine, float, float)
DET_OPS_TRANSFORM(WeightGradientLine, double, double)
#undef DET_OPS_TRANSFORM

// Channels-last maps, cut into squares of `side` pixels whose origins are kTile apart. A mosaic is `rows` by `columns`
// of them, `period` pixels from one to the next, so that neighbours share their padding, and tiles that no map fills.
struct Maps {
  int64_t height, width, channels, padding_y, padding_x, images, period_y, period_x, rows, columns, tiles_y, tiles_x;

  explicit Maps(const std::vector<int64_t>& v)
      : height(v.at(0)),
        width(v.at(1)),
        channels(v.at(2)),
        padding_y(v.at(3)),
        padding_x(v.at(4)),
        images(v.at(5)),
        period_y(v.at(6)),
        period_x(v.at(7)),
        rows(v.at(8)),
        columns(v.at(9)),
        tiles_y(v.at(10)),
        tiles_x(v.at(11)) {}

  // The addresses of the pixels of a square, and `beyond` for those outside of all maps.
  template <int side, class T>
  void square(T* maps, int64_t tile, T* beyond, T** pixels) const {
    const int64_t top = tile / tiles_x % tiles_y * kTile - padding_y, left = tile % tiles_x * kTile - padding_x;
    const int64_t first = tile / (tiles_x * tiles_y) * rows * columns;
    int64_t column[side], x[side];
    for (int j = 0; j < side; ++j) {
      column[j] = left + j < 0 ? 0 : std::min((left + j) / period_x, columns - 1);
      x[j] = left + j - column[j] * period_x;
    }
    for (int i = 0; i < side; ++i) {
      const int64_t row = top + i < 0 ? 0 : std::min((top + i) / period_y, rows - 1), y = top + i - row * period_y;
      for (int j = 0; j < side; ++j) {
        const int64_t image = first + row * columns + column[j];
        const bool inside = y >= 0 && y < height && x[j] >= 0 && x[j] < width && image < images;
        pixels[i * side + j] = inside ? maps + ((image * height + y) * width + x[j]) * channels : beyond;
      }
    }
  }
};

// A plane's numbers, and a cache line more: were all planes a multiple of 4096 bytes apart, a value's 36 would share
// one set of the cache, which has room for 8 or 12.
template <class T>
int64_t plane_size(int64_t numbers) {
  return numbers + 64 / sizeof(T);
}

// Pixels to 36 planes [count, channels], for tiles begin, begin + 1, ...
template <class Line, class From, class To = From>
void to_planes(const std::vector<int64_t>& geometry, uintptr_t maps, int64_t begin, int64_t count, int threads,
               uintptr_t planes) {
  py::gil_scoped_release release;
  const Maps m(geometry);
  parallel_for(
      count, threads,
      [&](int64_t from, int64_t to) {
        const std::vector<From> zeros(m.channels);
        Squares<From, To> squares;
        for (int64_t t = from; t < to; ++t) {
          m.square<Line::from>(reinterpret_cast<const From*>(maps), begin + t, zeros.data(), squares.source);
          for (int64_t k = 0; k < kPlanes; ++k) {
            squares.target[k] = reinterpret_cast<To*>(planes) + k * plane_size<To>(count * m.channels) + t * m.channels;
          }
          transform(Line(), squares, m.channels);
        }
      },
      8);
}

// Tiles at a time: with more, what is between the transforms leaves the cache; with fewer, the weights come through it
// more often, which counts where they are too many to stay.
int64_t block_tiles(int64_t in_channels, int64_t out_channels) {
  return in_channels * out_channels <= 128 * 128 ? 48 : 96;
}

// Channels of the output at a time, a multiple of `width`.
int64_t chunk_channels(int64_t padded, int64_t width) { return std::min(padded, 256 / width * width); }

// Fills an output by weights from weight_panels, plus a bias unless it is null, then a rectifier if `relu`. Maps are of
// type T, transformed ones and the weights of type Plane.
template <class T, class Plane = T>
void convolve(const std::vector<int64_t>& in_geometry, const std::vector<int64_t>& out_geometry, int64_t tiles,
              uintptr_t in, uintptr_t panels, uintptr_t bias, bool relu, int threads, uintptr_t out) {
  if (tiles <= 0) return;
  py::gil_scoped_release release;
  using Sum = SumOf<T>;
  const Maps source(in_geometry), target(out_geometry);
  const Product<Plane> product = best_product<Plane>();
  const int64_t depth = source.channels, width = product.width, padded = rounded_up(target.channels, width);
  const int64_t chunk = chunk_channels(padded, width);
  // As many blocks as threads have use for, of the same size.
  const int64_t workers = std::max<int64_t>(std::min<int64_t>(threads, tiles / product.rows), 1);
  const int64_t most = block_tiles(depth, target.channels);
  const int64_t blocks = rounded_up((tiles + most - 1) / most, workers);
  const int64_t block = rounded_up((tiles + blocks - 1) / blocks, product.rows);
  const int64_t input_plane = plane_size<Plane>(block * depth), product_plane = plane_size<Sum>(block * chunk);
  std::atomic<int64_t> next{0};
  parallel_for(workers, static_cast<int>(workers), [&](int64_t, int64_t) {
    Scratch<Plane> inputs(kPlanes * input_plane);
    Scratch<Sum> products(kPlanes * product_plane);
    const std::vector<T> zeros(depth);
    std::vector<T> unused(target.channels);
    Squares<T, Plane> before;
    Squares<Sum, T> after;
    after.relu = relu;
    for (int64_t begin; (begin = next.fetch_add(block)) < tiles;) {
      const int64_t count = std::min(block, tiles - begin), rows = rounded_up(count, product.rows);
      for (int64_t t = 0; t < count; ++t) {
        source.square<kPatch>(reinterpret_cast<const T*>(in), begin + t, zeros.data(), before.source);
        for (int64_t k = 0; k < kPlanes; ++k) before.target[k] = inputs.data() + k * input_plane + t * depth;
        transform(InputLine(), before, depth);
      }
      for (int64_t k = 0; k < kPlanes; ++k) {
        std::fill_n(inputs.data() + k * input_plane + count * depth, (rows - count) * depth, Plane{});
      }
      for (int64_t first = 0; first < padded; first += chunk) {
        const int64_t end = std::min(first + chunk, padded);
        const Plane* panel = reinterpret_cast<const Plane*>(panels) + first * kPlanes * depth;
        for (int64_t k = 0; k < kPlanes; ++k) {
          for (int64_t c = first; c < end; c += width, panel += width * depth) {
            product.multiply(inputs.data() + k * input_plane, rows, depth, panel,
                             products.data() + k * product_plane + c - first, chunk);
          }
        }
        after.bias = bias ? reinterpret_cast<const Sum*>(bias) + first : nullptr;
        for (int64_t t = 0; t < count; ++t) {
          for (int64_t k = 0; k < kPlanes; ++k) after.source[k] = products.data() + k * product_plane + t * chunk;
          target.square<kTile>(reinterpret_cast<T*>(out) + first, begin + t, unused.data(), after.target);
          transform(OutputLine(), after, std::min(end, target.channels) - first);
        }
      }
    }
  });
}

// Numbers that weight_panels writes.
template <class T>
int64_t panels_size(int64_t depth, int64_t channels) {
  const int64_t width = best_product<T>().width;
  return kPlanes * depth * rounded_up(channels, width);
}

// Taps [9, depth, channels] to panels [channels / chunk, 36, chunk / width, depth / pair, width, pair], the order in
// which they are read; the taps in opposite order if `flip`.
template <class T>
void weight_panels(int64_t depth, int64_t channels, uintptr_t taps, bool flip, int threads, uintptr_t panels) {
  py::gil_scoped_release release;
  using Sum = SumOf<T>;
  constexpr int count = kSide * kSide;
  const Product<T> product = best_product<T>();
  const int64_t width = product.width, pair = product.pair, padded = rounded_up(channels, width);
  const int64_t chunk = chunk_channels(padded, width);
  parallel_for(padded / width, threads, [&](int64_t begin, int64_t end) {
    Scratch<Sum> planes(kPlanes * width);
    Squares<Sum> squares;
    for (int64_t k = 0; k < kPlanes; ++k) squares.target[k] = planes.data() + k * width;
    for (int64_t c = begin * width; c < end * width; c += width) {
      const int64_t first = c / chunk * chunk, size = std::min(chunk, padded - first);
      T* target = reinterpret_cast<T*>(panels) + first * kPlanes * depth + (c - first) * depth;
      for (int64_t d = 0; d < depth; ++d) {
        for (int64_t k = 0; k < count; ++k) {
          const int64_t tap = flip ? count - 1 - k : k;
          squares.source[k] = reinterpret_cast<const Sum*>(taps) + (tap * depth + d) * channels + c;
        }
        std::fill_n(planes.data(), kPlanes * width, Sum(0));
        transform(WeightLine(), squares, std::min(width, channels - c));
        for (int64_t k = 0; k < kPlanes; ++k) {
          T* row = target + k * size * depth + d / pair * pair * width + d % pair;
          for (int64_t w = 0; w < width; ++w) store(squares.target[k][w], row + w * pair);
        }
      }
    }
  });
}

// Gradients of weight planes [36, n] to gradients of taps [9, n].
template <class T>
void weight_gradient(int64_t n, uintptr_t planes, int threads, uintptr_t taps) {
  py::gil_scoped_release release;
  parallel_for(
      n, threads,
      [&](int64_t begin, int64_t end) {
        Squares<T> squares;
        for (int64_t k = 0; k < kPlanes; ++k) squares.source[k] = reinterpret_cast<const T*>(planes) + k * n + begin;
        for (int64_t k = 0; k < kSide * kSide; ++k) squares.target[k] = reinterpret_cast<T*>(taps) + k * n + begin;
        transform(WeightGradientLine(), squares, end - begin);
      },
      4096);
}

}  // namespace

void register_winograd(py::module_& module) {
  module.def("has_bfloat16", &has_bfloat16);
  module.def("winograd_convolve_float32", &convolve<float>);
  module.def("winograd_convolve_float64", &convolve<double>);
  module.def("winograd_convolve_bfloat16", &convolve<BFloat16>);
  module.def("winograd_convolve_bfloat16_by_float32", &convolve<BFloat16, float>);
  module.def("winograd_panels_size_float32", &panels_size<float>);
  module.def("winograd_panels_size_float64", &panels_size<double>);
  module.def("winograd_panels_size_bfloat16", &panels_size<BFloat16>);
  module.def("winograd_weight_panels_float32", &weight_panels<float>);
  module.def("winograd_weight_panels_float64", &weight_panels<double>);
  module.def("winograd_weight_panels_bfloat16", &weight_panels<BFloat16>);
  module.def("winograd_input_float32", &to_planes<InputLine, float>);
  module.def("winograd_input_float64", &to_planes<InputLine, double>);
  module.def("winograd_input_bfloat16", &to_planes<InputLine, BFloat16, float>);
  module.def("winograd_gradient_float32", &to_planes<GradientLine, float>);
  module.def("winograd_gradient_float64", &to_planes<GradientLine, double>);
  module.def("winograd_gradient_bfloat16", &to_planes<GradientLine, BFloat16, float>);
  module.def("winograd_weight_gradient_float32", &weight_gradient<float>);
  module.def("winograd_weight_gradient_float64", &weight_gradient<double>);
}

}  // namespace det_ops
