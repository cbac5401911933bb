// Masks resampled into their boxes, as images or as run lengths. Both use the same arithmetic, so they agree exactly.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "memory.h"
#include "parallel.h"
#include "registers.h"
#include "rle.h"
#include "simd.h"

namespace py = pybind11;

namespace det_ops {
namespace {

// Bilinear resampling along one side of the image: pixel first + i is low[i] * cell[i] + high[i] * (cell[i] + 1) of the
// mask with one cell of zeros before and two after it.
struct Axis {
  int64_t first = 0;
  std::vector<int> cell;
  std::vector<float> low, high;

  int64_t size() const { return static_cast<int64_t>(cell.size()); }

  void clear() {
    cell.clear();
    low.clear();
    high.clear();
  }

  void add(int64_t pixel, int at, float fraction) {
    if (cell.empty()) first = pixel;
    cell.push_back(at);
    low.push_back(1.0f - fraction);
    high.push_back(fraction);
  }

  // detectron2: grid_sample at pixel centres, at most one pixel outside the box.
  void grid_sample(float begin, float end, int cells, int64_t extent) {
    clear();
    if (!(end > begin)) return;
    const float limit = static_cast<float>(extent);
    const int64_t start = static_cast<int64_t>(std::min(std::max(std::floor(begin) - 1.0f, 0.0f), limit));
    const int64_t stop = static_cast<int64_t>(std::min(std::max(std::ceil(end) + 1.0f, 0.0f), limit));
    for (int64_t pixel = start; pixel < stop; ++pixel) {
      const float grid = (static_cast<float>(pixel) + 0.5f - begin) / (end - begin) * 2.0f - 1.0f;
      const float position = ((grid + 1.0f) * static_cast<float>(cells) - 1.0f) / 2.0f;
      if (!(position > -1.0f && position < static_cast<float>(cells))) continue;
      const float floor = std::floor(position);
      add(pixel, static_cast<int>(floor) + 1, position - floor);
    }
  }

  // maskrcnn-benchmark and torchvision: padded mask resized to the expanded box in whole pixels, last one included.
  void expanded(float begin, float end, int cells, int64_t extent) {
    clear();
    const int padded = cells + 2;
    const float half = (end - begin) * 0.5f * static_cast<float>(static_cast<double>(padded) / cells);
    const float centre = (end + begin) * 0.5f;
    const auto whole = [](float value) { return static_cast<int64_t>(std::min(std::max(value, -1e6f), 1e6f)); };
    const int64_t start = whole(centre - half), last = whole(centre + half);
    const float scale = static_cast<float>(padded) / static_cast<float>(std::max<int64_t>(last - start + 1, 1));
    for (int64_t pixel = std::max<int64_t>(start, 0); pixel < std::min(last + 1, extent); ++pixel) {
      const float position = std::max(scale * (static_cast<float>(pixel - start) + 0.5f) - 0.5f, 0.0f);
      const int at = std::min(static_cast<int>(position), padded - 1);
      add(pixel, at, std::min(position - static_cast<float>(at), 1.0f));
    }
  }
};

struct Paste {
  const float* masks;
  const float* boxes;
  int64_t count, height, width;
  int mask_height, mask_width;
  float threshold;
  bool expanded;
};

// One mask in its box: pixels resampled along x, not yet along y.
struct Pasted {
  Axis rows, columns;
  int stride = 0;                // rows of `cells`, padding included
  std::vector<float> padded;     // [stride, mask width + 3]
  std::vector<float> resampled;  // [stride, pixels] or transposed

  // False where nothing is to be drawn.
  bool place(const Paste& job, int64_t k) {
    const float* box = job.boxes + 4 * k;
    for (int i = 0; i < 4; ++i) {
      if (!std::isfinite(box[i])) return false;
    }
    if (job.expanded) {
      rows.expanded(box[1], box[3], job.mask_height, job.height);
      columns.expanded(box[0], box[2], job.mask_width, job.width);
    } else {
      rows.grid_sample(box[1], box[3], job.mask_height, job.height);
      columns.grid_sample(box[0], box[2], job.mask_width, job.width);
    }
    if (rows.size() == 0 || columns.size() == 0) return false;
    stride = job.mask_height + 3;
    const int width = job.mask_width + 3;
    padded.assign(static_cast<size_t>(stride) * width, 0.0f);
    const float* mask = job.masks + k * job.mask_height * job.mask_width;
    for (int y = 0; y < job.mask_height; ++y) {
      std::copy_n(mask + y * job.mask_width, job.mask_width, &padded[(y + 1) * width + 1]);
    }
    resampled.resize(static_cast<size_t>(stride) * columns.size());
    return true;
  }

  float at(int y, int64_t x) const {
    const float* cell = &padded[static_cast<size_t>(y) * (padded.size() / stride) + columns.cell[x]];
    return columns.low[x] * cell[0] + columns.high[x] * cell[1];
  }
};

DET_OPS_CLONES void row_values(const float* a, const float* b, float low, float high, int64_t n, float* out) {
  for (int64_t x = 0; x < n; ++x) out[x] = low * a[x] + high * b[x];
}

DET_OPS_CLONES void row_at_least(const float* a, const float* b, float low, float high, float t, int64_t n,
                                 uint8_t* out) {
  for (int64_t x = 0; x < n; ++x) out[x] = low * a[x] + high * b[x] >= t;
}

DET_OPS_CLONES void row_above(const float* a, const float* b, float low, float high, float t, int64_t n, uint8_t* out) {
  for (int64_t x = 0; x < n; ++x) out[x] = low * a[x] + high * b[x] > t;
}

// `out` is float32 or, with `binary`, bool.
void paste_image(const Paste& job, int64_t k, bool binary, void* out, Pasted& pasted) {
  const int64_t pixels = job.height * job.width;
  float* values = static_cast<float*>(out) + k * pixels;
  uint8_t* flags = static_cast<uint8_t*>(out) + k * pixels;
  if (binary) {
    std::memset(flags, 0, pixels);
  } else {
    std::memset(values, 0, sizeof(float) * pixels);
  }
  if (!pasted.place(job, k)) return;
  const Axis &rows = pasted.rows, &columns = pasted.columns;
  const int64_t n = columns.size();
  for (int y = 0; y < pasted.stride; ++y) {
    for (int64_t x = 0; x < n; ++x) pasted.resampled[y * n + x] = pasted.at(y, x);
  }
  for (int64_t y = 0; y < rows.size(); ++y) {
    const float* a = &pasted.resampled[rows.cell[y] * n];
    const int64_t start = (rows.first + y) * job.width + columns.first;
    if (!binary) {
      row_values(a, a + n, rows.low[y], rows.high[y], n, values + start);
    } else if (job.expanded) {
      row_above(a, a + n, rows.low[y], rows.high[y], job.threshold, n, flags + start);
    } else {
      row_at_least(a, a + n, rows.low[y], rows.high[y], job.threshold, n, flags + start);
    }
  }
}

std::string paste_runs(const Paste& job, int64_t k, Pasted& pasted, Changes& changes) {
  changes.clear();
  if (!pasted.place(job, k)) return changes.encode(job.height * job.width);
  const Axis &rows = pasted.rows, &columns = pasted.columns;
  // Pixels between the same two cells of the mask are one stretch.
  std::vector<int64_t> stretches{0};
  for (int64_t y = 1; y < rows.size(); ++y) {
    if (rows.cell[y] != rows.cell[y - 1]) stretches.push_back(y);
  }
  stretches.push_back(rows.size());
  std::vector<float> column(pasted.stride);
  for (int64_t x = 0; x < columns.size(); ++x) {
    for (int y = 0; y < pasted.stride; ++y) column[y] = pasted.at(y, x);
    const int64_t start = (columns.first + x) * job.height + rows.first;
    bool inside = false;
    for (size_t s = 0; s + 1 < stretches.size(); ++s) {
      const int cell = rows.cell[stretches[s]];
      const float a = column[cell], b = column[cell + 1];
      // Both ends clearly on one side: so is all between, however it is rounded.
      const float margin = 1e-6f * (std::fabs(a) + std::fabs(b) + std::fabs(job.threshold));
      if (std::min(a, b) > job.threshold + margin || std::max(a, b) < job.threshold - margin) {
        if ((a > job.threshold) != inside) {
          changes.toggle(start + stretches[s]);
          inside = !inside;
        }
        continue;
      }
      for (int64_t y = stretches[s]; y < stretches[s + 1]; ++y) {
        const float value = rows.low[y] * a + rows.high[y] * b;
        const bool now = job.expanded ? value > job.threshold : value >= job.threshold;
        if (now != inside) {
          changes.toggle(start + y);
          inside = now;
        }
      }
    }
    if (inside) changes.toggle(start + rows.size());
  }
  return changes.encode(job.height * job.width);
}

Paste make_paste(uintptr_t masks, uintptr_t boxes, int64_t count, int mask_height, int mask_width, int64_t height,
                 int64_t width, double threshold, bool expanded) {
  return {reinterpret_cast<const float*>(masks),
          reinterpret_cast<const float*>(boxes),
          count,
          height,
          width,
          mask_height,
          mask_width,
          static_cast<float>(threshold),
          expanded};
}

void paste_masks(uintptr_t masks, uintptr_t boxes, int64_t count, int mask_height, int mask_width, int64_t height,
                 int64_t width, double threshold, bool binary, bool expanded, int threads, uintptr_t out) {
  const Paste job = make_paste(masks, boxes, count, mask_height, mask_width, height, width, threshold, expanded);
  advise_huge_pages(reinterpret_cast<void*>(out), count * height * width * (binary ? sizeof(uint8_t) : sizeof(float)));
  parallel_for(count, threads, [&](int64_t begin, int64_t end) {
    Pasted pasted;
    for (int64_t k = begin; k < end; ++k) paste_image(job, k, binary, reinterpret_cast<void*>(out), pasted);
  });
}

std::vector<std::string> paste_to_rle(uintptr_t masks, uintptr_t boxes, int64_t count, int mask_height, int mask_width,
                                      int64_t height, int64_t width, double threshold, bool expanded, int threads) {
  const Paste job = make_paste(masks, boxes, count, mask_height, mask_width, height, width, threshold, expanded);
  std::vector<std::string> texts(count);
  parallel_for(count, threads, [&](int64_t begin, int64_t end) {
    Pasted pasted;
    Changes changes;
    for (int64_t k = begin; k < end; ++k) texts[k] = paste_runs(job, k, pasted, changes);
  });
  return texts;
}

}  // namespace

void register_paste(py::module_& module) {
  module.def("paste_masks", &paste_masks, py::call_guard<py::gil_scoped_release>());
  module.def("paste_to_rle", &paste_to_rle, py::call_guard<py::gil_scoped_release>());
}

}  // namespace det_ops
