// Subsampling by random keys: one pass that keeps only keys still in the running.

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "parallel.h"
#include "registers.h"

namespace py = pybind11;

namespace det_ops {
namespace {

// The `most` largest keys seen; among equal ones those seen first.
template <class T>
class Largest {
 public:
  void start(int64_t most) {
    most_ = most;
    bound_ = T(-1);
    held_.clear();
  }

  bool wants(T key) const { return key > bound_; }

  void add(T key, int64_t index) {
    held_.emplace_back(key, index);
    if (static_cast<int64_t>(held_.size()) >= 2 * most_ + 64) shrink();
  }

  const std::vector<std::pair<T, int64_t>>& sorted() {
    if (static_cast<int64_t>(held_.size()) > most_) shrink();
    std::sort(held_.begin(), held_.end(), before);
    return held_;
  }

 private:
  static bool before(const std::pair<T, int64_t>& a, const std::pair<T, int64_t>& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  }

  void shrink() {
    if (most_ == 0) {
      held_.clear();
      return;
    }
    std::nth_element(held_.begin(), held_.begin() + (most_ - 1), held_.end(), before);
    bound_ = held_[most_ - 1].first;
    held_.resize(most_);
  }

  int64_t most_ = 0;
  T bound_ = -1;
  std::vector<std::pair<T, int64_t>> held_;
};

template <class T>
void sample(uintptr_t labels, uintptr_t keys, int64_t batch, int64_t n, int64_t slots, int64_t max_positive,
            int threads, uintptr_t index, uintptr_t positive, uintptr_t valid) {
  parallel_for(batch, threads, [&](int64_t begin, int64_t end) {
    thread_local Largest<T> positives, negatives;
    for (int64_t b = begin; b < end; ++b) {
      const int8_t* label = reinterpret_cast<const int8_t*>(labels) + b * n;
      const T* key = reinterpret_cast<const T*>(keys) + b * n;
      positives.start(std::min(max_positive, slots));
      negatives.start(slots);
      for (int64_t i = 0; i < n; ++i) {
        if (label[i] == 0) {
          if (negatives.wants(key[i])) negatives.add(key[i], i);
        } else if (label[i] == 1) {
          if (positives.wants(key[i])) positives.add(key[i], i);
        }
      }
      int64_t* out = reinterpret_cast<int64_t*>(index) + b * slots;
      uint8_t* is_positive = reinterpret_cast<uint8_t*>(positive) + b * slots;
      uint8_t* is_valid = reinterpret_cast<uint8_t*>(valid) + b * slots;
      std::fill(out, out + slots, int64_t{0});
      std::fill(is_positive, is_positive + slots, uint8_t{0});
      std::fill(is_valid, is_valid + slots, uint8_t{0});
      int64_t slot = 0;
      for (const auto& chosen : positives.sorted()) {
        is_positive[slot] = 1;
        out[slot++] = chosen.second;
      }
      for (const auto& chosen : negatives.sorted()) {
        if (slot == slots) break;
        out[slot++] = chosen.second;
      }
      std::fill(is_valid, is_valid + slot, uint8_t{1});
    }
  });
}

}  // namespace

void register_sampling(py::module_& module) {
  module.def("sample_float32", &sample<float>, py::call_guard<py::gil_scoped_release>());
  module.def("sample_float64", &sample<double>, py::call_guard<py::gil_scoped_release>());
}

}  // namespace det_ops
