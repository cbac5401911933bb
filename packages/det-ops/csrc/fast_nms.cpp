// Fast NMS: of the best boxes of each class those that no better one overlaps too much, suppressed or not.
//
// All scores of all classes are visited in falling order, and sorted only as far as the result needs them. A class keeps
// the boxes it has met as structure of arrays; the first `top_k` of them are compared, later ones pass.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
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
  int64_t class_stride, box_stride;  // of the scores
  const uint8_t* valid;              // null: all
  int64_t classes, n;
  T threshold;
  int64_t top_k, max_output;
};

// Scores in falling order with their place class * n + index; sorted in growing portions when they are asked for.
template <class T>
class Ranking {
 public:
  explicit Ranking(const Problem<T>& p) {
    const bool rows = p.class_stride < p.box_stride;  // which way the scores lie in memory
    const int64_t outer = rows ? p.n : p.classes, inner = rows ? p.classes : p.n;
    entries_.reserve(p.valid ? 0 : outer * inner);
    for (int64_t a = 0; a < outer; ++a) {
      if (rows && p.valid && !p.valid[a]) continue;
      for (int64_t b = 0; b < inner; ++b) {
        const int64_t c = rows ? b : a, i = rows ? a : b;
        const T score = p.scores[c * p.class_stride + i * p.box_stride];
        if (!(score > -std::numeric_limits<T>::infinity()) || (p.valid && !p.valid[i])) continue;
        entries_.emplace_back(descending<Bits>(score), static_cast<uint32_t>(c * p.n + i));
      }
    }
  }

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

  // To be called for 0, 1, 2, ...
  int64_t place(int64_t rank) {
    if (rank == sorted_) {
      const auto begin = entries_.begin() + sorted_;
      sorted_ = std::min(size(), 4 * sorted_ + 1024);
      const auto end = entries_.begin() + sorted_;
      if (end != entries_.end()) std::nth_element(begin, end, entries_.end());
      std::sort(begin, end);
    }
    return entries_[rank].second;
  }

 private:
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

  std::vector<std::pair<Bits, uint32_t>> entries_;
  int64_t sorted_ = 0;
};

template <class T>
DET_OPS_INLINE void suppress(const Problem<T>& p, Ranking<T>& ranking, int64_t* indices, int64_t* labels,
                             uint8_t* kept) {
  const int64_t room = Suppressors<T>::room(p.top_k), total = p.classes * room;
  const std::unique_ptr<T[]> memory(new T[5 * total]);  // not touched beyond the boxes met
  const Suppressors<T> met(memory.get(), total, p.threshold, T(0));
  std::vector<int64_t> filled(p.classes, 0);
  int64_t found = 0;
  for (int64_t rank = 0; rank < ranking.size() && found < p.max_output; ++rank) {
    const int64_t place = ranking.place(rank), label = place / p.n, index = place % p.n;
    if (filled[label] == p.top_k) continue;
    const Candidate<T> c(p.boxes + 4 * index, T(0));
    const int64_t begin = label * room, end = begin + filled[label]++;
    const bool hit = met.any_suppresses(begin, end, c, false);
    met.append(begin, end, c);
    if (hit) continue;
    indices[found] = index;
    labels[found] = label;
    kept[found] = 1;
    ++found;
  }
  std::fill(indices + found, indices + p.max_output, int64_t{0});
  std::fill(labels + found, labels + p.max_output, int64_t{0});
  std::fill(kept + found, kept + p.max_output, uint8_t{0});
}

DET_OPS_CLONES void suppress_clones(const Problem<float>& p, Ranking<float>& ranking, int64_t* indices,
                                    int64_t* labels, uint8_t* kept) {
  suppress(p, ranking, indices, labels, kept);
}

DET_OPS_CLONES void suppress_clones(const Problem<double>& p, Ranking<double>& ranking, int64_t* indices,
                                    int64_t* labels, uint8_t* kept) {
  suppress(p, ranking, indices, labels, kept);
}

template <class T>
void fast_nms(uintptr_t boxes, uintptr_t scores, int64_t image_stride, int64_t class_stride, int64_t box_stride,
              uintptr_t valid, int64_t batch, int64_t classes, int64_t n, double threshold, int64_t top_k,
              int64_t max_output, int threads, uintptr_t indices, uintptr_t labels, uintptr_t kept) {
  const T rounded = round_down<T>(threshold);
  parallel_for(batch, threads, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const Problem<T> p{reinterpret_cast<const T*>(boxes) + 4 * n * b,
                         reinterpret_cast<const T*>(scores) + image_stride * b,
                         class_stride,
                         box_stride,
                         valid ? reinterpret_cast<const uint8_t*>(valid) + n * b : nullptr,
                         classes,
                         n,
                         rounded,
                         top_k,
                         max_output};
      Ranking<T> ranking(p);
      suppress_clones(p, ranking, reinterpret_cast<int64_t*>(indices) + max_output * b,
                      reinterpret_cast<int64_t*>(labels) + max_output * b,
                      reinterpret_cast<uint8_t*>(kept) + max_output * b);
    }
  });
}

}  // namespace

void register_fast_nms(py::module_& module) {
  module.def("fast_nms_float32", &fast_nms<float>, py::call_guard<py::gil_scoped_release>());
  module.def("fast_nms_float64", &fast_nms<double>, py::call_guard<py::gil_scoped_release>());
}

}  // namespace det_ops
