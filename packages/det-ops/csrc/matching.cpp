// Assignment of anchors to ground truth by IoU, without the matrix of IoUs.
//
// Anchors are taken in blocks that stay in the first level cache; a truth that does not meet the bounding box of a
// block is skipped. Each block remembers the largest IoU it has with each truth; low-quality matches are then found by
// recomputing the blocks that hold a truth's maximum.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "parallel.h"
#include "registers.h"
#include "simd.h"

namespace py = pybind11;

namespace det_ops {
namespace {

constexpr int64_t kBlock = 256;

template <class T>
struct Truth {
  T x1, y1, x2, y2, area;
  int32_t slot;
};

template <class T>
struct Anchors {
  T x1[kBlock], y1[kBlock], x2[kBlock], y2[kBlock], area[kBlock];
  T left, top, right, bottom;  // hull of all

  DET_OPS_INLINE void load(const T* boxes, int64_t count, T offset) {
    for (int64_t i = 0; i < count; ++i) {
      x1[i] = boxes[4 * i];
      y1[i] = boxes[4 * i + 1];
      x2[i] = boxes[4 * i + 2];
      y2[i] = boxes[4 * i + 3];
    }
    for (int64_t i = count; i < kBlock; ++i) {  // meets nothing
      x1[i] = y1[i] = std::numeric_limits<T>::max();
      x2[i] = y2[i] = std::numeric_limits<T>::lowest();
    }
    for (int64_t i = 0; i < count; ++i) area[i] = (x2[i] - x1[i] + offset) * (y2[i] - y1[i] + offset);
    for (int64_t i = count; i < kBlock; ++i) area[i] = 0;
    // Halving, not a running minimum: the compiler may not reorder that one.
    T a[kBlock / 2], b[kBlock / 2], c[kBlock / 2], d[kBlock / 2];
    constexpr int64_t half = kBlock / 2;
    for (int64_t i = 0; i < half; ++i) {
      a[i] = x1[i] < x1[i + half] ? x1[i] : x1[i + half];
      b[i] = y1[i] < y1[i + half] ? y1[i] : y1[i + half];
      c[i] = x2[i] > x2[i + half] ? x2[i] : x2[i + half];
      d[i] = y2[i] > y2[i + half] ? y2[i] : y2[i + half];
    }
    for (int64_t width = half / 2; width > 0; width /= 2) {
      for (int64_t i = 0; i < width; ++i) {
        a[i] = a[i] < a[i + width] ? a[i] : a[i + width];
        b[i] = b[i] < b[i + width] ? b[i] : b[i + width];
        c[i] = c[i] > c[i + width] ? c[i] : c[i + width];
        d[i] = d[i] > d[i + width] ? d[i] : d[i + width];
      }
    }
    left = a[0];
    top = b[0];
    right = c[0];
    bottom = d[0];
  }

  inline bool may_meet(const Truth<T>& t, T offset) const {
    return (right < t.x2 ? right : t.x2) - (left > t.x1 ? left : t.x1) + offset > 0 &&
           (bottom < t.y2 ? bottom : t.y2) - (top > t.y1 ? top : t.y1) + offset > 0;
  }

  DET_OPS_INLINE void iou(const Truth<T>& truth, T offset, T* result) const {
    const Truth<T> t = truth;
    for (int64_t i = 0; i < kBlock; ++i) {
      const T w = (x2[i] < t.x2 ? x2[i] : t.x2) - (x1[i] > t.x1 ? x1[i] : t.x1) + offset;
      const T h = (y2[i] < t.y2 ? y2[i] : t.y2) - (y1[i] > t.y1 ? y1[i] : t.y1) + offset;
      const T inter = (w > 0 ? w : T(0)) * (h > 0 ? h : T(0));
      const T all = t.area + area[i] - inter;
      result[i] = inter / (inter > 0 ? all : T(1));
    }
  }
};

template <class T>
struct Job {
  const T* anchors;
  int64_t n;
  bool shared;  // the same anchors for all images
  std::vector<std::vector<Truth<T>>> truths;
  int64_t slots;
  T high, low, offset;
  bool low_quality;
  T low_quality_iou;
  bool reassign;
  int64_t blocks;
  std::vector<T> block_best;  // [batch, blocks, slots]
  std::vector<T> truth_best;  // [batch, slots]
  int64_t* index;
  int8_t* label;
};

template <class T>
DET_OPS_INLINE void best_of_block(const Job<T>& job, const Anchors<T>& anchors, int64_t b, int64_t block,
                                  T* block_best) {
  const std::vector<Truth<T>>& truths = job.truths[b];
  const int64_t count = std::min(kBlock, job.n - block * kBlock);
  int64_t* index = job.index + b * job.n + block * kBlock;
  int8_t* label = job.label + b * job.n + block * kBlock;
  if (truths.empty()) {
    std::fill(index, index + count, int64_t{0});
    std::fill(label, label + count, int8_t{0});
    return;
  }
  T best[kBlock], quality[kBlock];
  int32_t slot[kBlock];
  for (int64_t i = 0; i < kBlock; ++i) {
    best[i] = 0;
    slot[i] = truths[0].slot;
  }
  for (size_t k = 0; k < truths.size(); ++k) {
    const Truth<T>& truth = truths[k];
    if (!anchors.may_meet(truth, job.offset)) continue;
    anchors.iou(truth, job.offset, quality);
    const int32_t here = truth.slot;
    for (int64_t i = 0; i < kBlock; ++i) {
      slot[i] = quality[i] > best[i] ? here : slot[i];
      best[i] = quality[i] > best[i] ? quality[i] : best[i];
    }
    if (job.low_quality) {
      for (int64_t width = kBlock / 2; width > 0; width /= 2) {
        for (int64_t i = 0; i < width; ++i) {
          quality[i] = quality[i] > quality[i + width] ? quality[i] : quality[i + width];
        }
      }
      block_best[k] = quality[0];
    }
  }
  for (int64_t i = 0; i < count; ++i) index[i] = slot[i];
  for (int64_t i = 0; i < count; ++i) {
    label[i] = static_cast<int8_t>(best[i] >= job.high ? 1 : (best[i] < job.low ? 0 : -1));
  }
}

template <class T>
DET_OPS_INLINE void first_pass(Job<T>& job, int64_t begin, int64_t end) {
  Anchors<T> anchors;
  const int64_t batch = static_cast<int64_t>(job.truths.size());
  for (int64_t task = begin; task < end; ++task) {
    const int64_t block = job.shared ? task : task % job.blocks;
    const int64_t image = job.shared ? 0 : task / job.blocks;
    const T* source = job.anchors + 4 * (image * job.n + block * kBlock);
    anchors.load(source, std::min(kBlock, job.n - block * kBlock), job.offset);
    for (int64_t b = image; b < (job.shared ? batch : image + 1); ++b) {
      T* block_best = job.low_quality ? job.block_best.data() + (b * job.blocks + block) * job.slots : nullptr;
      best_of_block(job, anchors, b, block, block_best);
    }
  }
}

template <class T>
DET_OPS_INLINE void second_pass(Job<T>& job, int64_t b) {
  const std::vector<Truth<T>>& truths = job.truths[b];
  T* truth_best = job.truth_best.data() + b * job.slots;
  const T* block_best = job.block_best.data() + b * job.blocks * job.slots;
  std::fill(truth_best, truth_best + job.slots, T(0));
  for (int64_t block = 0; block < job.blocks; ++block) {
    for (size_t k = 0; k < truths.size(); ++k) {
      const T here = block_best[block * job.slots + k];
      truth_best[k] = here > truth_best[k] ? here : truth_best[k];
    }
  }
  int64_t* index = job.index + b * job.n;
  int8_t* label = job.label + b * job.n;
  size_t first = 0;
  for (size_t k = 0; k < truths.size(); ++k) {
    if (truth_best[k] < job.low_quality_iou) {
      truth_best[k] = std::numeric_limits<T>::quiet_NaN();  // equals nothing
    } else if (truth_best[k] == 0) {  // all anchors share the maximum; earlier truths change nothing any more
      first = k + 1;
    }
  }
  if (first > 0) {
    std::fill(label, label + job.n, int8_t{1});
    if (!job.reassign) return;
    std::fill(index, index + job.n, int64_t{truths[first - 1].slot});
  }
  Anchors<T> anchors;
  T quality[kBlock];
  for (int64_t block = 0; block < job.blocks; ++block) {
    const int64_t begin = block * kBlock, count = std::min(kBlock, job.n - begin);
    bool loaded = false;
    for (size_t k = first; k < truths.size(); ++k) {
      const T wanted = truth_best[k];
      if (block_best[block * job.slots + k] != wanted) continue;
      if (!loaded) anchors.load(job.anchors + 4 * ((job.shared ? 0 : b * job.n) + begin), count, job.offset);
      loaded = true;
      anchors.iou(truths[k], job.offset, quality);
      for (int64_t i = 0; i < count; ++i) label[begin + i] = quality[i] == wanted ? int8_t{1} : label[begin + i];
      if (!job.reassign) continue;
      const int64_t slot = truths[k].slot;
      for (int64_t i = 0; i < count; ++i) index[begin + i] = quality[i] == wanted ? slot : index[begin + i];
    }
  }
}

DET_OPS_CLONES void first_pass_clones(Job<float>& job, int64_t begin, int64_t end) { first_pass(job, begin, end); }
DET_OPS_CLONES void first_pass_clones(Job<double>& job, int64_t begin, int64_t end) { first_pass(job, begin, end); }
DET_OPS_CLONES void second_pass_clones(Job<float>& job, int64_t b) { second_pass(job, b); }
DET_OPS_CLONES void second_pass_clones(Job<double>& job, int64_t b) { second_pass(job, b); }

template <class T>
void match(uintptr_t anchors, bool shared, int64_t n, uintptr_t truth, uintptr_t valid, int64_t batch, int64_t slots,
           double high, double low, bool low_quality, double low_quality_iou, bool reassign, double offset, int threads,
           uintptr_t index, uintptr_t label) {
  Job<T> job;
  job.anchors = reinterpret_cast<const T*>(anchors);
  job.n = n;
  job.shared = shared;
  job.slots = slots;
  job.high = static_cast<T>(high);  // rounded to nearest, as PyTorch compares a tensor with a number
  job.low = static_cast<T>(low);
  job.offset = static_cast<T>(offset);
  job.low_quality = low_quality;
  job.low_quality_iou = static_cast<T>(low_quality_iou);
  job.reassign = reassign;
  job.blocks = (n + kBlock - 1) / kBlock;
  job.index = reinterpret_cast<int64_t*>(index);
  job.label = reinterpret_cast<int8_t*>(label);
  job.truths.resize(batch);
  const T* boxes = reinterpret_cast<const T*>(truth);
  const uint8_t* used = reinterpret_cast<const uint8_t*>(valid);
  for (int64_t i = 0; i < batch * slots; ++i) {
    if (!used[i]) continue;
    const T* t = boxes + 4 * i;
    const T area = (t[2] - t[0] + job.offset) * (t[3] - t[1] + job.offset);
    job.truths[i / slots].push_back({t[0], t[1], t[2], t[3], area, static_cast<int32_t>(i % slots)});
  }
  if (low_quality) {
    job.block_best.assign(batch * job.blocks * slots, T(0));
    job.truth_best.resize(batch * slots);
  }
  parallel_for(
      shared ? job.blocks : batch * job.blocks, threads,
      [&](int64_t begin, int64_t end) { first_pass_clones(job, begin, end); }, 16);
  if (low_quality) {
    parallel_for(batch, threads, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        if (!job.truths[b].empty()) second_pass_clones(job, b);
      }
    });
  }
}

}  // namespace

void register_matching(py::module_& module) {
  module.def("match_float32", &match<float>, py::call_guard<py::gil_scoped_release>());
  module.def("match_float64", &match<double>, py::call_guard<py::gil_scoped_release>());
}

}  // namespace det_ops
