// Greedy non-maximum suppression.
//
// Each candidate, best first, is compared with the boxes kept so far, which lie as structure of arrays in the first
// level cache; the comparison with a block of them is branch-free. This visits the pairs a loop over suppressed flags
// would visit, but touches no candidate behind the last one kept.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "registers.h"
#include "simd.h"
#include "suppression.h"

namespace py = pybind11;

namespace det_ops {
namespace {

template <class T>
struct Problem {
  const T* boxes;
  const T* scores;
  const int64_t* groups;  // null: one group
  const uint8_t* valid;   // null: all
  int64_t n;
  T threshold;
  T offset;
  int64_t max_output;
};

template <class T>
struct Scratch {
  std::vector<uint64_t> keys, spare;
  std::vector<int32_t> order, slot, table;
  std::vector<int64_t> values, start, filled;
  std::vector<T> kept;  // five arrays of boxes kept: x1, y1, x2, y2, area
};

// Stable: the index is the low half of each key and they come in rising order.
void radix_sort(std::vector<uint64_t>& keys, std::vector<uint64_t>& spare) {
  constexpr int kBits = 11;
  constexpr size_t kBuckets = size_t{1} << kBits;
  const size_t n = keys.size();
  spare.resize(n);
  std::vector<uint32_t> counts(3 * kBuckets, 0);
  for (uint64_t key : keys) {
    for (int pass = 0; pass < 3; ++pass) ++counts[pass * kBuckets + ((key >> (32 + pass * kBits)) & (kBuckets - 1))];
  }
  for (int pass = 0; pass < 3; ++pass) {
    uint32_t* count = counts.data() + pass * kBuckets;
    uint32_t sum = 0;
    for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
      const uint32_t here = count[bucket];
      count[bucket] = sum;
      sum += here;
    }
    for (uint64_t key : keys) spare[count[(key >> (32 + pass * kBits)) & (kBuckets - 1)]++] = key;
    keys.swap(spare);
  }
}

void sort_candidates(const Problem<float>& p, Scratch<float>& s) {
  s.keys.clear();
  for (int64_t i = 0; i < p.n; ++i) {
    if (!p.valid || p.valid[i]) s.keys.push_back(uint64_t{descending<uint32_t>(p.scores[i])} << 32 | static_cast<uint64_t>(i));
  }
  if (s.keys.size() < 512) {
    std::sort(s.keys.begin(), s.keys.end());
  } else {
    radix_sort(s.keys, s.spare);
  }
  s.order.resize(s.keys.size());
  for (size_t i = 0; i < s.keys.size(); ++i) s.order[i] = static_cast<int32_t>(s.keys[i] & 0xffffffffu);
}

void sort_candidates(const Problem<double>& p, Scratch<double>& s) {
  s.order.clear();
  for (int64_t i = 0; i < p.n; ++i) {
    if (!p.valid || p.valid[i]) s.order.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(s.order.begin(), s.order.end(), [&](int32_t a, int32_t b) {
    return p.scores[a] > p.scores[b] || (std::isnan(p.scores[a]) && !std::isnan(p.scores[b]));
  });
}

// Numbers the groups of the candidates from 0, and gives each a stretch of `kept` long enough for all it can keep.
template <class T>
int64_t lay_out_groups(const Problem<T>& p, Scratch<T>& s) {
  const int64_t m = static_cast<int64_t>(s.order.size());
  s.slot.resize(m);
  int64_t count = 1;
  if (!p.groups) {
    s.start.assign(1, m);
  } else {
    int64_t low = p.groups[s.order[0]], high = low;
    for (int32_t i : s.order) {
      low = std::min(low, p.groups[i]);
      high = std::max(high, p.groups[i]);
    }
    const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
    if (range < static_cast<uint64_t>(4 * m + 1024)) {
      s.table.assign(range + 1, -1);
      count = 0;
      s.start.clear();
      for (int64_t i = 0; i < m; ++i) {
        int32_t& slot = s.table[static_cast<uint64_t>(p.groups[s.order[i]]) - static_cast<uint64_t>(low)];
        if (slot < 0) {
          slot = static_cast<int32_t>(count++);
          s.start.push_back(0);
        }
        s.slot[i] = slot;
        ++s.start[slot];
      }
    } else {
      s.values.clear();
      for (int32_t i : s.order) s.values.push_back(p.groups[i]);
      std::sort(s.values.begin(), s.values.end());
      s.values.erase(std::unique(s.values.begin(), s.values.end()), s.values.end());
      count = static_cast<int64_t>(s.values.size());
      s.start.assign(count, 0);
      for (int64_t i = 0; i < m; ++i) {
        const auto found = std::lower_bound(s.values.begin(), s.values.end(), p.groups[s.order[i]]);
        s.slot[i] = static_cast<int32_t>(found - s.values.begin());
        ++s.start[s.slot[i]];
      }
    }
  }
  int64_t total = 0;
  for (int64_t& start : s.start) {  // from sizes to first places
    const int64_t room = Suppressors<T>::room(std::min(start, p.max_output));
    start = total;
    total += room;
  }
  s.filled.assign(count, 0);
  return total;
}

template <class T>
DET_OPS_INLINE void suppress(const Problem<T>& p, Scratch<T>& s, int64_t total, int64_t* indices, uint8_t* flags,
                             bool legacy) {
  const Suppressors<T> kept(s.kept.data(), total, p.threshold, p.offset);
  const int64_t m = static_cast<int64_t>(s.order.size());
  int64_t found = 0;
  for (int64_t i = 0; i < m && found < p.max_output; ++i) {
    const int64_t index = s.order[i];
    const Candidate<T> c(p.boxes + 4 * index, p.offset);
    const int32_t group = p.groups ? s.slot[i] : 0;
    const int64_t begin = s.start[group], end = begin + s.filled[group];
    if (kept.any_suppresses(begin, end, c, legacy)) continue;
    kept.append(begin, end, c);
    ++s.filled[group];
    indices[found] = index;
    flags[found] = 1;
    ++found;
  }
  std::fill(indices + found, indices + p.max_output, int64_t{0});
  std::fill(flags + found, flags + p.max_output, uint8_t{0});
}

template <class T>
DET_OPS_INLINE void suppress(const Problem<T>& p, Scratch<T>& s, int64_t total, int64_t* indices, uint8_t* flags) {
  if (p.offset == 0) {
    suppress(p, s, total, indices, flags, false);
  } else {
    suppress(p, s, total, indices, flags, true);
  }
}

DET_OPS_CLONES void suppress_clones(const Problem<float>& p, Scratch<float>& s, int64_t total, int64_t* indices,
                                    uint8_t* kept) {
  suppress(p, s, total, indices, kept);
}

DET_OPS_CLONES void suppress_clones(const Problem<double>& p, Scratch<double>& s, int64_t total, int64_t* indices,
                                    uint8_t* kept) {
  suppress(p, s, total, indices, kept);
}

template <class T>
void nms_one(const Problem<T>& p, int64_t* indices, uint8_t* kept) {
  thread_local Scratch<T> scratch;
  sort_candidates(p, scratch);
  int64_t total = 0;
  if (!scratch.order.empty()) total = lay_out_groups(p, scratch);
  if (scratch.kept.size() < static_cast<size_t>(5 * total)) scratch.kept.resize(5 * total);
  suppress_clones(p, scratch, total, indices, kept);
}

template <class T>
void nms_batch(uintptr_t boxes, uintptr_t scores, uintptr_t groups, uintptr_t valid, int64_t batch, int64_t n,
               double threshold, int64_t max_output, double offset, int threads, uintptr_t indices, uintptr_t kept) {
  const T rounded = round_down<T>(threshold);
  parallel_for(batch, threads, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      Problem<T> p{reinterpret_cast<const T*>(boxes) + 4 * n * b,
                   reinterpret_cast<const T*>(scores) + n * b,
                   groups ? reinterpret_cast<const int64_t*>(groups) + n * b : nullptr,
                   valid ? reinterpret_cast<const uint8_t*>(valid) + n * b : nullptr,
                   n,
                   rounded,
                   static_cast<T>(offset),
                   max_output};
      nms_one(p, reinterpret_cast<int64_t*>(indices) + max_output * b,
              reinterpret_cast<uint8_t*>(kept) + max_output * b);
    }
  });
}

}  // namespace

void register_nms(py::module_& module) {
  module.def("nms_float32", &nms_batch<float>, py::call_guard<py::gil_scoped_release>());
  module.def("nms_float64", &nms_batch<double>, py::call_guard<py::gil_scoped_release>());
}

}  // namespace det_ops
