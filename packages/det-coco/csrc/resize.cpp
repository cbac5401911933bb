// Bilinear resizing of 8-bit RGB pictures with the very numbers of Pillow and OpenCV, and torch's up to rounding, in
// the layout of a batch.
//
// All resize rows first and then columns. Pillow has weights in fixed point, widens its filter when it makes a picture
// smaller, and rounds between the two passes; OpenCV has them too, always weighs two neighbours, and truncates; torch
// weighs two neighbours in floating point and does not round.

#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "simd.h"

namespace py = pybind11;

namespace det_coco {

namespace {

// Weights of the inputs [first[o], first[o] + taps) for each output o; those that an output lacks are 0.
struct Weights {
  int taps = 0;
  std::vector<int32_t> first;
  std::vector<int32_t> values;  // [outputs, taps]
};

// Pillow's triangle filter. Source: Pillow 12, src/libImaging/Resample.c, precompute_coeffs, normalize_coeffs_8bpc.
constexpr int kPillowBits = 22;

Weights pillow_weights(int inputs, int outputs) {
  const double scale = static_cast<double>(inputs) / outputs;
  const double support = std::max(scale, 1.0);
  Weights weights;
  std::vector<double> row;
  std::vector<std::vector<double>> rows(outputs);
  weights.first.resize(outputs);
  for (int o = 0; o < outputs; ++o) {
    const double center = (o + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int last = std::min(static_cast<int>(center + support + 0.5), inputs);
    double sum = 0;
    row.clear();
    for (int i = first; i < last; ++i) {
      const double distance = std::abs((i - center + 0.5) * (1.0 / support));
      row.push_back(distance < 1.0 ? 1.0 - distance : 0.0);
      sum += row.back();
    }
    for (double& value : row) value = sum != 0.0 ? value / sum : value;
    weights.first[o] = first;
    weights.taps = std::max(weights.taps, static_cast<int>(row.size()));
    rows[o] = row;
  }
  weights.taps = std::min(weights.taps, inputs);
  weights.values.assign(static_cast<size_t>(outputs) * weights.taps, 0);
  for (int o = 0; o < outputs; ++o) {
    // All taps lie inside: near the end the row starts earlier.
    const int shift = std::max(weights.first[o] + weights.taps - inputs, 0);
    weights.first[o] -= shift;
    for (size_t k = 0; k < rows[o].size(); ++k) {
      weights.values[static_cast<size_t>(o) * weights.taps + shift + k] =
          static_cast<int32_t>(0.5 + rows[o][k] * (1 << kPillowBits));
    }
  }
  return weights;
}

// The two inputs that make up each output, and their weights.
template <typename Weight>
struct Pairs {
  std::vector<int32_t> first, second;
  std::vector<Weight> first_weight, second_weight;
};

using Neighbours = Pairs<float>;

// Source: PyTorch 2, aten/src/ATen/native/UpSample.h, area_pixel_compute_source_index, without aligned corners.
Neighbours torch_neighbours(int inputs, int outputs) {
  const float scale = static_cast<float>(inputs) / static_cast<float>(outputs);
  Neighbours pairs;
  for (int o = 0; o < outputs; ++o) {
    const float place = std::max(std::fma(scale, static_cast<float>(o) + 0.5f, -0.5f), 0.0f);
    const int first = std::min(static_cast<int>(place), inputs - 1);
    const float fraction = std::min(std::max(place - static_cast<float>(first), 0.0f), 1.0f);
    pairs.first.push_back(first);
    pairs.second.push_back(std::min(first + 1, inputs - 1));
    pairs.first_weight.push_back(1.0f - fraction);
    pairs.second_weight.push_back(fraction);
  }
  return pairs;
}

// Source: OpenCV 4 and 5, modules/imgproc/src/resize.cpp, INTER_LINEAR of 8 bits (11 bits of weight).
constexpr float kOpenCVOne = 2048.0f;

Pairs<int32_t> opencv_weights(int inputs, int outputs, bool horizontal) {
  const double scale = 1.0 / (static_cast<double>(outputs) / inputs);
  Pairs<int32_t> pairs;
  for (int o = 0; o < outputs; ++o) {
    float fraction = static_cast<float>((o + 0.5) * scale - 0.5);
    int first = static_cast<int>(std::floor(fraction));
    fraction -= static_cast<float>(first);
    // Beyond the border a row has one neighbour; a column keeps two weights for it, each of which truncates.
    if (horizontal && (first < 0 || first >= inputs - 1)) {
      fraction = 0;
      first = std::clamp(first, 0, inputs - 1);
    }
    pairs.first.push_back(std::clamp(first, 0, inputs - 1));
    pairs.second.push_back(std::clamp(first + 1, 0, inputs - 1));
    pairs.first_weight.push_back(static_cast<int32_t>(std::nearbyint((1.0f - fraction) * kOpenCVOne)));
    pairs.second_weight.push_back(static_cast<int32_t>(std::nearbyint(fraction * kOpenCVOne)));
  }
  return pairs;
}

// Columns that are worked on at once, so that what is between two loops stays in the nearest cache.
constexpr int kBlock = 256;
constexpr int32_t kPillowHalf = 1 << (kPillowBits - 1);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
constexpr bool kRedIsLowest = false;
#else
constexpr bool kRedIsLowest = true;  // in a word of a pixel's bytes
#endif

// A row [inputs, 3] to [3, outputs] with two taps, those of every enlargement: pixels are fetched one by one, and
// weighed many at once.
DET_COCO_CLONES
void pillow_row_of_pairs(const uint8_t* row, const int32_t* first, const int32_t* weights, int outputs, uint8_t* out) {
  uint32_t left[kBlock], right[kBlock];
  uint8_t red[kBlock], green[kBlock], blue[kBlock];
  for (int begin = 0; begin < outputs; begin += kBlock) {
    const int count = std::min(kBlock, outputs - begin);
    const int32_t* weight = weights + 2 * static_cast<ptrdiff_t>(begin);
    for (int o = 0; o < count; ++o) {
      const uint8_t* pixel = row + 3 * first[begin + o];
      std::memcpy(&left[o], pixel, 4);
      std::memcpy(&right[o], pixel + 2, 4);  // of which the last three are wanted: nothing beyond the row is read
    }
    const auto sum = [&](int o, int shift) {
      const int32_t a = left[o] >> shift & 255, b = right[o] >> (shift + 8) & 255;
      return static_cast<uint8_t>((kPillowHalf + a * weight[2 * o] + b * weight[2 * o + 1]) >> kPillowBits);
    };
    for (int o = 0; o < count; ++o) {
      red[o] = sum(o, 0);
      green[o] = sum(o, 8);
      blue[o] = sum(o, 16);
    }
    const uint8_t* colours[] = {red, green, blue};
    for (int c = 0; c < 3; ++c) std::memcpy(out + static_cast<ptrdiff_t>(c) * outputs + begin, colours[c], count);
  }
}

void pillow_row(const uint8_t* row, const Weights& weights, int outputs, uint8_t* out) {
  if (weights.taps == 2 && kRedIsLowest) {
    return pillow_row_of_pairs(row, weights.first.data(), weights.values.data(), outputs, out);
  }
  for (int o = 0; o < outputs; ++o) {
    const uint8_t* pixel = row + 3 * weights.first[o];
    const int32_t* weight = weights.values.data() + static_cast<size_t>(o) * weights.taps;
    int32_t red = kPillowHalf, green = red, blue = red;
    for (int k = 0; k < weights.taps; ++k) {
      red += pixel[3 * k] * weight[k];
      green += pixel[3 * k + 1] * weight[k];
      blue += pixel[3 * k + 2] * weight[k];
    }
    out[o] = static_cast<uint8_t>(red >> kPillowBits);
    out[outputs + o] = static_cast<uint8_t>(green >> kPillowBits);
    out[2 * static_cast<ptrdiff_t>(outputs) + o] = static_cast<uint8_t>(blue >> kPillowBits);
  }
}

// `lines` holds where each tap's row begins.
DET_COCO_CLONES
void pillow_columns(const uint8_t* const* lines, const int32_t* weight, int taps, int width, uint8_t* out) {
  if (taps == 2) {
    const uint8_t *upper = lines[0], *lower = lines[1];
    const int32_t up = weight[0], low = weight[1];
    for (int x = 0; x < width; ++x) {
      out[x] = static_cast<uint8_t>((kPillowHalf + upper[x] * up + lower[x] * low) >> kPillowBits);
    }
    return;
  }
  int32_t sums[kBlock];
  for (int begin = 0; begin < width; begin += kBlock) {
    const int count = std::min(kBlock, width - begin);
    for (int x = 0; x < count; ++x) sums[x] = kPillowHalf;
    for (int k = 0; k < taps; ++k) {
      if (weight[k] == 0) continue;
      const uint8_t* line = lines[k] + begin;
      const int32_t w = weight[k];
      for (int x = 0; x < count; ++x) sums[x] += line[x] * w;
    }
    for (int x = 0; x < count; ++x) out[begin + x] = static_cast<uint8_t>(sums[x] >> kPillowBits);
  }
}

DET_COCO_CLONES
void opencv_columns(const int16_t* upper, const int16_t* lower, int32_t up, int32_t low, int width, uint8_t* out) {
  for (int x = 0; x < width; ++x) {
    out[x] = static_cast<uint8_t>((((up * upper[x]) >> 16) + ((low * lower[x]) >> 16) + 2) >> 2);
  }
}

DET_COCO_CLONES
void torch_columns(const float* upper, const float* lower, float up, float low, int width, float* out) {
  for (int x = 0; x < width; ++x) out[x] = up * upper[x] + low * lower[x];
}

void split(const uint8_t* picture, int64_t pixels, uint8_t* out) {
  for (int64_t i = 0; i < pixels; ++i) {
    out[i] = picture[3 * i];
    out[pixels + i] = picture[3 * i + 1];
    out[2 * pixels + i] = picture[3 * i + 2];
  }
}

void resize_as_pillow(const uint8_t* picture, int height, int width, uint8_t* out, int new_height, int new_width) {
  const Weights columns = width == new_width ? Weights{} : pillow_weights(width, new_width);
  const Weights lines = height == new_height ? Weights{} : pillow_weights(height, new_height);
  const ptrdiff_t stride = 3 * static_cast<ptrdiff_t>(new_width),
                  plane = static_cast<ptrdiff_t>(new_height) * new_width;
  // Resized rows are needed in ascending order, as many at a time as there are taps.
  const int taps = std::max(lines.taps, 1);
  std::vector<uint8_t> kept(taps * stride);
  std::vector<const uint8_t*> tapped(taps);
  int made = 0;
  for (int y = 0; y < new_height; ++y) {
    const int first = lines.taps ? lines.first[y] : y;
    for (; made < first + taps; ++made) {
      const uint8_t* row = picture + static_cast<ptrdiff_t>(made) * 3 * width;
      uint8_t* target = &kept[made % taps * stride];
      columns.taps ? pillow_row(row, columns, new_width, target) : split(row, width, target);
    }
    for (int c = 0; c < 3; ++c) {
      uint8_t* target = out + c * plane + static_cast<ptrdiff_t>(y) * new_width;
      for (int k = 0; k < taps; ++k) {
        tapped[k] = &kept[(first + k) % taps * stride + c * static_cast<ptrdiff_t>(new_width)];
      }
      if (lines.taps) {
        pillow_columns(tapped.data(), &lines.values[static_cast<size_t>(y) * taps], taps, new_width, target);
      } else {
        std::memcpy(target, tapped[0], new_width);
      }
    }
  }
}

void resize_as_opencv(const uint8_t* picture, int height, int width, uint8_t* out, int new_height, int new_width) {
  const Pairs<int32_t> columns = opencv_weights(width, new_width, true);
  const Pairs<int32_t> lines = opencv_weights(height, new_height, false);
  const int stride = 3 * new_width;
  // Sums of two pixels by 2048, of which the second pass takes the upper 15 bits: [height, 3, new_width]
  std::vector<int16_t> rows(static_cast<size_t>(height) * stride);
  for (int y = 0; y < height; ++y) {
    const uint8_t* row = picture + static_cast<ptrdiff_t>(y) * 3 * width;
    int16_t* target = &rows[static_cast<size_t>(y) * stride];
    for (int x = 0; x < new_width; ++x) {
      const uint8_t* left = row + 3 * columns.first[x];
      const uint8_t* right = row + 3 * columns.second[x];
      const int32_t a = columns.first_weight[x], b = columns.second_weight[x];
      target[x] = static_cast<int16_t>((left[0] * a + right[0] * b) >> 4);
      target[new_width + x] = static_cast<int16_t>((left[1] * a + right[1] * b) >> 4);
      target[2 * new_width + x] = static_cast<int16_t>((left[2] * a + right[2] * b) >> 4);
    }
  }
  const ptrdiff_t plane = static_cast<ptrdiff_t>(new_height) * new_width;
  for (int y = 0; y < new_height; ++y) {
    for (int c = 0; c < 3; ++c) {
      opencv_columns(&rows[static_cast<size_t>(lines.first[y]) * stride + static_cast<size_t>(c) * new_width],
                     &rows[static_cast<size_t>(lines.second[y]) * stride + static_cast<size_t>(c) * new_width],
                     lines.first_weight[y], lines.second_weight[y], new_width,
                     out + c * plane + static_cast<ptrdiff_t>(y) * new_width);
    }
  }
}

void resize_as_torch(const uint8_t* picture, int height, int width, float* out, int new_height, int new_width) {
  const Neighbours columns = torch_neighbours(width, new_width);
  const Neighbours lines = torch_neighbours(height, new_height);
  const int stride = 3 * new_width;
  // Rows are needed in ascending order, two at a time.
  std::vector<float> kept(2 * static_cast<size_t>(stride));
  int held[2] = {-1, -1};
  const auto row = [&](int y) {
    float* target = &kept[static_cast<size_t>(y % 2) * stride];
    if (held[y % 2] == y) return target;
    held[y % 2] = y;
    const uint8_t* source = picture + static_cast<ptrdiff_t>(y) * 3 * width;
    for (int x = 0; x < new_width; ++x) {
      const uint8_t* left = source + 3 * columns.first[x];
      const uint8_t* right = source + 3 * columns.second[x];
      const float a = columns.first_weight[x], b = columns.second_weight[x];
      target[x] = a * left[0] + b * right[0];
      target[new_width + x] = a * left[1] + b * right[1];
      target[2 * new_width + x] = a * left[2] + b * right[2];
    }
    return target;
  };
  const ptrdiff_t plane = static_cast<ptrdiff_t>(new_height) * new_width;
  for (int y = 0; y < new_height; ++y) {
    const float* upper = row(lines.first[y]);
    const float* lower = row(lines.second[y]);
    for (int c = 0; c < 3; ++c) {
      torch_columns(upper + static_cast<ptrdiff_t>(c) * new_width, lower + static_cast<ptrdiff_t>(c) * new_width,
                    lines.first_weight[y], lines.second_weight[y], new_width,
                    out + c * plane + static_cast<ptrdiff_t>(y) * new_width);
    }
  }
}

// A resize of a picture [h, w, 3] into an array [3, H, W], both without gaps.
template <typename Out>
using Resize = void (*)(const uint8_t*, int, int, Out*, int, int);

template <typename Out, Resize<Out> resize>
void resize_array(const py::buffer& picture, const py::buffer& out) {
  const py::buffer_info from = picture.request(), to = out.request(true);
  const bool fits = from.ndim == 3 && from.shape[2] == 3 && from.item_type_is_equivalent_to<uint8_t>() &&
                    to.ndim == 3 && to.shape[0] == 3 && to.item_type_is_equivalent_to<Out>();
  if (!fits || !PyBuffer_IsContiguous(from.view(), 'C') || !PyBuffer_IsContiguous(to.view(), 'C')) {
    throw std::invalid_argument("A picture must be uint8 [h, w, 3], and its resized one [3, H, W], without gaps.");
  }
  for (const auto& shape : {from.shape, to.shape}) {
    for (const py::ssize_t length : shape) {
      if (length < 1 || length > 1 << 20) throw std::invalid_argument("Sides must be 1 to 2^20 pixels.");
    }
  }
  const auto* pixels = static_cast<const uint8_t*>(from.ptr);
  auto* target = static_cast<Out*>(to.ptr);
  const py::gil_scoped_release release;
  resize(pixels, static_cast<int>(from.shape[0]), static_cast<int>(from.shape[1]), target,
         static_cast<int>(to.shape[1]), static_cast<int>(to.shape[2]));
}

}  // namespace

void define_resizing(py::module_& module) {
  const auto picture = py::arg("picture");
  const auto out = py::arg("out");
  module.def("resize_as_pillow", &resize_array<uint8_t, resize_as_pillow>, picture, out);
  module.def("resize_as_opencv", &resize_array<uint8_t, resize_as_opencv>, picture, out);
  module.def("resize_as_torch", &resize_array<float, resize_as_torch>, picture, out);
}

}  // namespace det_coco
