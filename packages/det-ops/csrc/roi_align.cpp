// Multi-level RoIAlign, forward and backward, on channels-last maps; regions are channels-last or channels-first.
//
// A cell is a weighted sum of feature pixels whose weights factor into rows and columns. Both lists are built once per
// region with equal rows (columns) merged; the inner loops then run over channels alone. Backward: a thread owns an
// image and a range of channels, so no two threads write the same address and the order of additions, hence the
// result, does not depend on their number.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "channels.h"
#include "memory.h"
#include "parallel.h"
#include "registers.h"

namespace py = pybind11;

namespace det_ops {
namespace {

template <class T>
struct Tap {
  int64_t index;
  T weight;
};

// Rows (or columns) of all cells along one side of a region: cell p has taps[first[p]] .. taps[first[p + 1]].
template <class T>
struct Side {
  std::vector<Tap<T>> taps;
  std::vector<int> first;
  T samples;

  void add(int cell_begin, int64_t index, T weight) {
    if (weight == T(0)) return;
    const int size = static_cast<int>(taps.size());
    for (int k = size - 1; k >= std::max(cell_begin, size - 2); --k) {
      if (taps[k].index == index) {
        taps[k].weight += weight;
        return;
      }
    }
    taps.push_back({index, weight});
  }

  // `limit` rows in the map, `start` and `end` in feature coordinates.
  void build(T start, T end, int64_t limit, int pooled, int sampling_ratio, bool aligned) {
    taps.clear();
    first.assign(pooled + 1, 0);
    T length = end - start;
    if (!aligned) length = std::max(length, T(1));
    samples = sampling_ratio > 0 ? T(sampling_ratio) : std::ceil(length / pooled);
    if (!std::isfinite(start) || !std::isfinite(length) || !(samples >= T(1)) || samples > T(1 << 30)) return;
    const T cell = length / pooled;
    const T step = cell / samples;
    for (int p = 0; p < pooled; ++p) {
      const int begin = static_cast<int>(taps.size());
      const T origin = start + p * cell;
      // Regions far larger than the map: only samples that can fall on it.
      int64_t lowest = 0, highest = static_cast<int64_t>(samples);
      if (samples > T(1024)) {
        const T a = (T(-2) - origin) / step, b = (T(limit) + T(1) - origin) / step;
        lowest = static_cast<int64_t>(std::min(std::max(std::min(a, b) - T(2), T(0)), samples));
        highest = static_cast<int64_t>(std::min(std::max(std::max(a, b) + T(2), T(0)), samples));
      }
      for (int64_t i = lowest; i < highest; ++i) {
        T position = origin + (T(i) + T(0.5)) * cell / samples;
        if (!(position >= T(-1) && position <= T(limit))) continue;
        position = std::max(position, T(0));
        const int64_t low = static_cast<int64_t>(position);
        if (low >= limit - 1) {
          add(begin, limit - 1, T(1));
        } else {
          const T fraction = position - T(low);
          add(begin, low, T(1) - fraction);
          add(begin, low + 1, fraction);
        }
      }
      first[p + 1] = static_cast<int>(taps.size());
    }
  }
};

template <class T>
struct Cell {
  std::vector<int64_t> offset;
  std::vector<T> weight;

  // Pairs of a row and a column of one cell; returns their number.
  int pair(const Side<T>& rows, int ph, const Side<T>& columns, int pw, int64_t width, int64_t channels, T scale) {
    const int ny = rows.first[ph + 1] - rows.first[ph], nx = columns.first[pw + 1] - columns.first[pw];
    const size_t n = static_cast<size_t>(ny) * nx;
    if (offset.size() < n) {
      offset.resize(n);
      weight.resize(n);
    }
    int k = 0;
    for (int i = rows.first[ph]; i < rows.first[ph + 1]; ++i) {
      const int64_t row = rows.taps[i].index * width;
      const T row_weight = rows.taps[i].weight * scale;
      for (int j = columns.first[pw]; j < columns.first[pw + 1]; ++j, ++k) {
        offset[k] = (row + columns.taps[j].index) * channels;
        weight[k] = row_weight * columns.taps[j].weight;
      }
    }
    return k;
  }
};

// Copies a region between layouts; blocks of channels keep both sides in the cache.
template <class T>
void relayout(int64_t pixels, int64_t channels, const T* from, int64_t from_pixel, int64_t from_channel, T* to,
              int64_t to_pixel, int64_t to_channel) {
  constexpr int64_t block = 64 / sizeof(T);
  for (int64_t first = 0; first < channels; first += block) {
    const int64_t last = std::min(first + block, channels);
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = first; c < last; ++c) to[p * to_pixel + c * to_channel] = from[p * from_pixel + c * from_channel];
    }
  }
}

struct Pyramid {
  std::vector<uintptr_t> maps;
  std::vector<int64_t> heights, widths;
  std::vector<double> scales;
  int64_t batch, channels;
};

template <class T>
struct Regions {
  const T* boxes;
  const int64_t* image_index;
  const int64_t* levels;
  int64_t count;
  int pooled_height, pooled_width, sampling_ratio;
  bool aligned;

  // Level of the region, or -1 for padding.
  int level(int64_t r, const Pyramid& pyramid) const {
    const int64_t level = levels[r];
    return level >= 0 && level < static_cast<int64_t>(pyramid.maps.size()) ? static_cast<int>(level) : -1;
  }

  int64_t image(int64_t r) const { return image_index[r]; }

  // Live regions read the memory of their images.
  void check_images(const Pyramid& pyramid) const {
    for (int64_t r = 0; r < count; ++r) {
      if (level(r, pyramid) >= 0 && (image_index[r] < 0 || image_index[r] >= pyramid.batch)) {
        throw std::invalid_argument("image_index must be within the batch of " + std::to_string(pyramid.batch) +
                                    " images, got " + std::to_string(image_index[r]) + " for region " +
                                    std::to_string(r));
      }
    }
  }

  void build(int64_t r, int level, const Pyramid& pyramid, Side<T>& rows, Side<T>& columns) const {
    const T scale = static_cast<T>(pyramid.scales[level]), shift = aligned ? T(0.5) : T(0);
    const T* box = boxes + 4 * r;
    rows.build(box[1] * scale - shift, box[3] * scale - shift, pyramid.heights[level], pooled_height, sampling_ratio,
               aligned);
    columns.build(box[0] * scale - shift, box[2] * scale - shift, pyramid.widths[level], pooled_width, sampling_ratio,
                  aligned);
  }
};

// Live regions by level, image and place, so that neighbours find the pixels they share in the cache; padding last.
template <class T>
std::vector<int64_t> order_by_place(const Pyramid& pyramid, const Regions<T>& regions) {
  constexpr double tile = 16;
  std::vector<std::pair<uint64_t, int64_t>> keys(regions.count);
  for (int64_t r = 0; r < regions.count; ++r) {
    const int level = regions.level(r, pyramid);
    uint64_t key = ~uint64_t{0};
    if (level >= 0) {
      const T* box = regions.boxes + 4 * r;
      const double scale = pyramid.scales[level] / tile;
      const auto cell = [](double centre) {  // NaN goes to 0
        return static_cast<uint64_t>(centre > 0 ? std::min(centre, 65535.0) : 0.0);
      };
      const uint64_t y = cell(scale * (box[1] + box[3]) / 2), x = cell(scale * (box[0] + box[2]) / 2);
      // Odd rows of tiles run backwards.
      key = (static_cast<uint64_t>(level) << 56) | (static_cast<uint64_t>(regions.image(r)) << 32) | y << 16 |
            (y % 2 ? 65535 - x : x);
    }
    keys[r] = {key, r};
  }
  std::sort(keys.begin(), keys.end());
  std::vector<int64_t> order(regions.count);
  for (int64_t i = 0; i < regions.count; ++i) order[i] = keys[i].second;
  return order;
}

template <class T>
void forward(const Pyramid& pyramid, const Regions<T>& regions, bool channels_last, int threads, T* out) {
  const int64_t channels = pyramid.channels;
  const int64_t pixels = static_cast<int64_t>(regions.pooled_height) * regions.pooled_width, size = pixels * channels;
  const std::vector<int64_t> order = order_by_place(pyramid, regions);
  advise_huge_pages(out, sizeof(T) * regions.count * size);
  parallel_for(
      regions.count, threads,
      [&](int64_t begin, int64_t end) {
        Side<T> rows, columns;
        Cell<T> cell;
        std::vector<T> region(channels_last ? 0 : size);
        for (int64_t i = begin; i < end; ++i) {
          const int64_t r = order[i];
          const int level = regions.level(r, pyramid);
          if (level < 0) {
            std::memset(out + r * size, 0, sizeof(T) * size);
            continue;
          }
          T* target = channels_last ? out + r * size : region.data();
          regions.build(r, level, pyramid, rows, columns);
          const int64_t width = pyramid.widths[level];
          const T* map = reinterpret_cast<const T*>(pyramid.maps[level]) +
                         regions.image(r) * pyramid.heights[level] * width * channels;
          const T scale = T(1) / (rows.samples * columns.samples);
          for (int ph = 0; ph < regions.pooled_height; ++ph) {
            for (int pw = 0; pw < regions.pooled_width; ++pw, target += channels) {
              const int n = cell.pair(rows, ph, columns, pw, width, channels, scale);
              gather(map, cell.offset.data(), cell.weight.data(), n, channels, target);
            }
          }
          if (!channels_last) relayout<T>(pixels, channels, region.data(), channels, 1, out + r * size, 1, pixels);
        }
      },
      8);
}

template <class T>
void backward(const Pyramid& pyramid, const Regions<T>& regions, bool channels_last, int threads, const T* grad) {
  const int64_t channels = pyramid.channels;
  for (size_t level = 0; level < pyramid.maps.size(); ++level) {
    T* map = reinterpret_cast<T*>(pyramid.maps[level]);
    const int64_t size = pyramid.batch * pyramid.heights[level] * pyramid.widths[level] * channels;
    advise_huge_pages(map, sizeof(T) * size);
    parallel_for(
        size, threads, [&](int64_t begin, int64_t end) { std::memset(map + begin, 0, sizeof(T) * (end - begin)); },
        1 << 16);
  }
  const std::vector<int64_t> order = order_by_place(pyramid, regions);
  const int64_t pixels = static_cast<int64_t>(regions.pooled_height) * regions.pooled_width;
  // Parts of the channels, of at least a cache line, so that images and parts occupy all threads.
  constexpr int64_t line = 64 / sizeof(T);
  const int64_t wanted = (threads + pyramid.batch - 1) / std::max<int64_t>(pyramid.batch, 1);
  const int64_t part = std::max((channels + wanted - 1) / wanted + line - 1, line) / line * line;
  const int64_t parts = (channels + part - 1) / part;
  parallel_for(pyramid.batch * parts, threads, [&](int64_t begin, int64_t end) {
    Side<T> rows, columns;
    Cell<T> cell;
    std::vector<T> region(channels_last ? 0 : pixels * part);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t image = item / parts, first = item % parts * part, live = std::min(part, channels - first);
      for (const int64_t r : order) {
        const int level = regions.level(r, pyramid);
        if (level < 0 || regions.image(r) != image) continue;
        regions.build(r, level, pyramid, rows, columns);
        const int64_t width = pyramid.widths[level];
        T* map = reinterpret_cast<T*>(pyramid.maps[level]) + image * pyramid.heights[level] * width * channels + first;
        const T* source = grad + r * pixels * channels + first;
        const int64_t next = channels_last ? channels : live;
        if (!channels_last) {
          relayout<T>(pixels, live, grad + (r * channels + first) * pixels, 1, pixels, region.data(), live, 1);
          source = region.data();
        }
        const T scale = T(1) / (rows.samples * columns.samples);
        for (int ph = 0; ph < regions.pooled_height; ++ph) {
          for (int pw = 0; pw < regions.pooled_width; ++pw, source += next) {
            const int n = cell.pair(rows, ph, columns, pw, width, channels, scale);
            scatter(map, cell.offset.data(), cell.weight.data(), n, live, source);
          }
        }
      }
    }
  });
}

template <class T, bool kForward>
void define(py::module_& module, const char* name) {
  module.def(name, [](std::vector<uintptr_t> maps, std::vector<int64_t> heights, std::vector<int64_t> widths,
                      std::vector<double> scales, int64_t batch, int64_t channels, uintptr_t boxes,
                      uintptr_t image_index, uintptr_t levels, int64_t count, int pooled_height, int pooled_width,
                      int sampling_ratio, bool aligned, bool channels_last, int threads, uintptr_t values) {
    py::gil_scoped_release release;
    const Pyramid pyramid{std::move(maps), std::move(heights), std::move(widths), std::move(scales), batch, channels};
    const Regions<T> regions{reinterpret_cast<const T*>(boxes),
                             reinterpret_cast<const int64_t*>(image_index),
                             reinterpret_cast<const int64_t*>(levels),
                             count,
                             pooled_height,
                             pooled_width,
                             sampling_ratio,
                             aligned};
    regions.check_images(pyramid);
    if constexpr (kForward) {
      forward(pyramid, regions, channels_last, threads, reinterpret_cast<T*>(values));
    } else {
      backward(pyramid, regions, channels_last, threads, reinterpret_cast<const T*>(values));
    }
  });
}

}  // namespace

void register_roi_align(py::module_& module) {
  define<float, true>(module, "roi_align_forward_float32");
  define<double, true>(module, "roi_align_forward_float64");
  define<float, false>(module, "roi_align_backward_float32");
  define<double, false>(module, "roi_align_backward_float64");
}

}  // namespace det_ops
