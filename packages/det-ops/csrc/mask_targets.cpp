// Mask targets at the resolution of the mask head: polygons by COCO's rules, and RoIAlign of bitmaps.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "registers.h"
#include "simd.h"

namespace py = pybind11;

namespace det_ops {
namespace {

// One bit per row, a word or more per column; a toggle at row y flips all rows from y on, so parity needs no counting.
class Columns {
 public:
  explicit Columns(int size) : size_(size), words_((size + 63) / 64), bits_(static_cast<size_t>(size) * words_) {}

  void clear() { std::fill(bits_.begin(), bits_.end(), 0); }

  void toggle(int column, int row) {
    uint64_t* word = &bits_[static_cast<size_t>(column) * words_];
    for (int k = row / 64; k < words_; ++k) {
      word[k] ^= k == row / 64 ? ~uint64_t{0} << (row % 64) : ~uint64_t{0};
    }
  }

  void merge(const Columns& other) {
    for (size_t k = 0; k < bits_.size(); ++k) bits_[k] |= other.bits_[k];
  }

  void write(float* out) const {
    for (int y = 0; y < size_; ++y) {
      for (int x = 0; x < size_; ++x) {
        *out++ = static_cast<float>(bits_[static_cast<size_t>(x) * words_ + y / 64] >> (y % 64) & 1);
      }
    }
  }

 private:
  int size_, words_;
  std::vector<uint64_t> bits_;
};

int fine(double value) { return static_cast<int>(5.0 * std::min(std::max(value, -1e7), 1e7) + 0.5); }

int clamped_row(int fine_row, int size) {
  const double row = (fine_row + 0.5) / 5.0 - 0.5;
  return static_cast<int>(std::ceil(std::min(std::max(row, 0.0), static_cast<double>(size))));
}

// Columns an edge crosses, as COCO's rleFrPoly finds them by walking the edge on a grid five times finer: column k
// toggles where the walk steps between fine columns 5k + 2 and 5k + 3, at the smaller of the two fine rows.
void add_edge(double x1, double y1, double x2, double y2, int size, Columns& columns) {
  if (std::isnan(x1) || std::isnan(y1) || std::isnan(x2) || std::isnan(y2)) return;
  int xs = fine(x1), ys = fine(y1), xe = fine(x2), ye = fine(y2);
  const int dx = std::abs(xe - xs), dy = std::abs(ye - ys);
  if (dx == 0) return;
  const bool wide = dx >= dy;
  if (wide ? xs > xe : ys > ye) {
    std::swap(xs, xe);
    std::swap(ys, ye);
  }
  const int left = std::min(xs, xe), right = std::max(xs, xe);
  // Columns with left <= 5k + 2 and 5k + 3 <= right.
  const int first = left <= 2 ? 0 : (left + 2) / 5, last = right < 3 ? -1 : std::min((right - 3) / 5, size - 1);
  if (wide) {
    const double slope = static_cast<double>(ye - ys) / dx;
    for (int k = first; k <= last; ++k) {
      const int step = 5 * k + 2 - xs;
      const int a = static_cast<int>(ys + slope * step + 0.5), b = static_cast<int>(ys + slope * (step + 1) + 0.5);
      columns.toggle(k, clamped_row(std::min(a, b), size));
    }
  } else {
    const double slope = static_cast<double>(xe - xs) / dy;
    const bool rising = xe > xs;
    for (int k = first; k <= last; ++k) {
      const int column = 5 * k + 2;
      const auto passed = [&](int step) {
        const int at = static_cast<int>(xs + slope * step + 0.5);
        return rising ? at > column : at <= column;
      };
      // First step past the boundary: a guess, corrected by what the rounded walk does.
      int step = std::min(std::max(static_cast<int>((column + 0.5 - xs) / slope), 1), dy);
      while (step > 1 && passed(step - 1)) --step;
      while (step < dy && !passed(step)) ++step;
      columns.toggle(k, clamped_row(ys + step - 1, size));
    }
  }
}

struct Frame {
  double x, y;
  double ratio_x, ratio_y;
  bool legacy;

  Frame(const float* box, int size, bool legacy) : x(box[0]), y(box[1]), legacy(legacy) {
    if (legacy) {
      const double width = std::max<double>(box[2], x + 1.0) - x, height = std::max<double>(box[3], y + 1.0) - y;
      ratio_x = static_cast<float>(size / width);
      ratio_y = static_cast<float>(size / height);
    } else {
      ratio_x = static_cast<float>(size) / std::max(box[2] - box[0], 0.1f);
      ratio_y = static_cast<float>(size) / std::max(box[3] - box[1], 0.1f);
    }
  }

  // maskrcnn-benchmark computes in float32, detectron2 in float64 with float32 ratios.
  static double map(float value, double corner, double ratio, bool legacy) {
    if (legacy) return (value - static_cast<float>(corner)) * static_cast<float>(ratio);
    return (value - corner) * ratio;
  }
  double map_x(float value) const { return map(value, x, ratio_x, legacy); }
  double map_y(float value) const { return map(value, y, ratio_y, legacy); }
};

void rasterize(uintptr_t edges_ptr, int64_t edges, uintptr_t polygons_ptr, int64_t polygons, uintptr_t instances_ptr,
               int64_t instances, int64_t batch, uintptr_t image_index_ptr, uintptr_t instance_ptr, uintptr_t boxes_ptr,
               int64_t count, int size, bool legacy, int threads, uintptr_t out_ptr) {
  const float* all_edges = reinterpret_cast<const float*>(edges_ptr);
  const int32_t* all_polygons = reinterpret_cast<const int32_t*>(polygons_ptr);
  const int32_t* all_instances = reinterpret_cast<const int32_t*>(instances_ptr);
  const int64_t* image_index = reinterpret_cast<const int64_t*>(image_index_ptr);
  const int64_t* instance = reinterpret_cast<const int64_t*>(instance_ptr);
  const float* boxes = reinterpret_cast<const float*>(boxes_ptr);
  float* out = reinterpret_cast<float*>(out_ptr);
  const int64_t pixels = static_cast<int64_t>(size) * size;
  parallel_for(
      count, threads,
      [&](int64_t begin, int64_t end) {
        Columns one(size), all(size);
        for (int64_t r = begin; r < end; ++r) {
          const int64_t image = image_index[r], slot = instance[r];
          if (image < 0 || image >= batch || slot < 0 || slot >= instances) {
            std::memset(out + r * pixels, 0, sizeof(float) * pixels);
            continue;
          }
          all.clear();
          const Frame frame(boxes + 4 * r, size, legacy);
          const int32_t* owned = all_instances + image * (instances + 1) + slot;
          const int32_t* bounds = all_polygons + image * (polygons + 1);
          const int64_t last_polygon = std::min<int64_t>(owned[1], polygons);
          for (int64_t q = std::max<int64_t>(owned[0], 0); q < last_polygon; ++q) {
            one.clear();
            const int64_t last_edge = std::min<int64_t>(bounds[q + 1], edges);
            for (int64_t e = std::max<int64_t>(bounds[q], 0); e < last_edge; ++e) {
              const float* edge = all_edges + 4 * (image * edges + e);
              add_edge(frame.map_x(edge[0]), frame.map_y(edge[1]), frame.map_x(edge[2]), frame.map_y(edge[3]), size,
                       one);
            }
            all.merge(one);
          }
          all.write(out + r * pixels);
        }
      },
      4);
}

// Weights of the pixels of one side for one cell of RoIAlign with adaptive sampling, as a window.
struct Window {
  int64_t first = 0;
  std::vector<float> weight;
};

// As Side::build of roi_align.cpp, but dense: bitmaps are sampled at every pixel.
float windows(float start, float end, int64_t limit, int pooled, bool aligned, std::vector<Window>& cells) {
  for (Window& cell : cells) cell.weight.clear();
  float length = end - start;
  if (!aligned) length = std::max(length, 1.0f);
  const float samples = std::ceil(length / pooled);
  if (!std::isfinite(start) || !(samples >= 1.0f) || samples > static_cast<float>(1 << 30)) return 1.0f;
  const float side = length / pooled, step = side / samples;
  for (int p = 0; p < pooled; ++p) {
    Window& cell = cells[p];
    const float origin = start + p * side;
    // Only samples that can fall on the bitmap.
    const float skipped = std::min(std::max((-2.0f - origin) / step - 2.0f, 0.0f), samples);
    const float counted = std::min(std::max((limit + 1.0f - origin) / step + 2.0f, 0.0f), samples);
    const int64_t stop = static_cast<int64_t>(std::ceil(counted));
    for (int64_t i = static_cast<int64_t>(skipped); i < stop; ++i) {
      float position = origin + (i + 0.5f) * side / samples;
      if (!(position >= -1.0f && position <= limit)) continue;
      position = std::max(position, 0.0f);
      const int64_t low = std::min(static_cast<int64_t>(position), limit - 1);
      const float fraction = low == limit - 1 ? 0.0f : position - low;
      if (cell.weight.empty()) cell.first = low;
      const size_t slot = low - cell.first;
      if (cell.weight.size() < slot + 2) cell.weight.resize(slot + 2, 0.0f);
      cell.weight[slot] += 1.0f - fraction;
      cell.weight[slot + 1] += fraction;
    }
    // The weight beyond the last pixel is zero.
    if (!cell.weight.empty() && cell.first + static_cast<int64_t>(cell.weight.size()) > limit) cell.weight.pop_back();
  }
  return samples;
}

DET_OPS_CLONES void add_row(const uint8_t* row, float weight, int64_t n, float* sums) {
  for (int64_t x = 0; x < n; ++x) sums[x] += weight * static_cast<float>(row[x]);
}

void bitmap_targets(uintptr_t bitmaps_ptr, int64_t batch, int64_t slots, int64_t height, int64_t width,
                    uintptr_t image_index_ptr, uintptr_t instance_ptr, uintptr_t boxes_ptr, int64_t count, int size,
                    bool aligned, int threads, uintptr_t out_ptr) {
  const uint8_t* bitmaps = reinterpret_cast<const uint8_t*>(bitmaps_ptr);
  const int64_t* image_index = reinterpret_cast<const int64_t*>(image_index_ptr);
  const int64_t* instance = reinterpret_cast<const int64_t*>(instance_ptr);
  const float* boxes = reinterpret_cast<const float*>(boxes_ptr);
  float* out = reinterpret_cast<float*>(out_ptr);
  const int64_t pixels = static_cast<int64_t>(size) * size;
  const float shift = aligned ? 0.5f : 0.0f;
  parallel_for(count, threads, [&](int64_t begin, int64_t end) {
    std::vector<Window> rows(size), columns(size);
    std::vector<float> sums(width);
    for (int64_t r = begin; r < end; ++r) {
      float* target = out + r * pixels;
      std::memset(target, 0, sizeof(float) * pixels);
      const int64_t image = image_index[r], slot = instance[r];
      if (image < 0 || image >= batch || slot < 0 || slot >= slots) continue;
      const uint8_t* bitmap = bitmaps + (image * slots + slot) * height * width;
      const float* box = boxes + 4 * r;
      const float scale_y = 1.0f / windows(box[1] - shift, box[3] - shift, height, size, aligned, rows);
      const float scale_x = 1.0f / windows(box[0] - shift, box[2] - shift, width, size, aligned, columns);
      int64_t left = width, right = 0;
      for (const Window& cell : columns) {
        if (cell.weight.empty()) continue;
        left = std::min(left, cell.first);
        right = std::max(right, cell.first + static_cast<int64_t>(cell.weight.size()));
      }
      if (left >= right) continue;
      for (int y = 0; y < size; ++y) {
        const Window& cell = rows[y];
        if (cell.weight.empty()) continue;
        std::fill(sums.begin() + left, sums.begin() + right, 0.0f);
        for (size_t k = 0; k < cell.weight.size(); ++k) {
          add_row(bitmap + (cell.first + k) * width + left, cell.weight[k] * scale_y, right - left, &sums[left]);
        }
        for (int x = 0; x < size; ++x) {
          float sum = 0.0f;
          for (size_t k = 0; k < columns[x].weight.size(); ++k)
            sum += columns[x].weight[k] * sums[columns[x].first + k];
          target[y * size + x] = sum * scale_x;
        }
      }
    }
  });
}

}  // namespace

void register_mask_targets(py::module_& module) {
  module.def("rasterize_polygons", &rasterize, py::call_guard<py::gil_scoped_release>());
  module.def("bitmap_targets", &bitmap_targets, py::call_guard<py::gil_scoped_release>());
}

}  // namespace det_ops
