// What forms of non-maximum suppression share: the order of scores, and one box against many.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "simd.h"

namespace det_ops {

// Bits that sort ascending where scores sort descending; NaN is the largest score, -0 equals 0 (as torch.sort has it).
template <class Bits, class T>
Bits descending(T score) {
  static_assert(sizeof(Bits) == sizeof(T), "");
  constexpr Bits sign = Bits{1} << (8 * sizeof(Bits) - 1);
  if (std::isnan(score)) return 0;
  score += T(0);
  Bits bits;
  std::memcpy(&bits, &score, sizeof bits);
  bits = bits & sign ? ~bits : bits | sign;
  return ~bits;
}

// The largest T that is not greater: x > threshold holds for the same numbers x of type T as in double precision.
template <class T>
T round_down(double threshold) {
  const T nearest = static_cast<T>(threshold);
  return static_cast<double>(nearest) > threshold ? std::nextafter(nearest, -std::numeric_limits<T>::infinity())
                                                  : nearest;
}

template <class T>
struct Candidate {
  T x1, y1, x2, y2, area;

  DET_OPS_INLINE Candidate(const T* box, T offset)
      : x1(box[0]),
        y1(box[1]),
        x2(box[2]),
        y2(box[3]),
        area((box[2] - box[0] + offset) * (box[3] - box[1] + offset)) {}
};

// Boxes that may suppress others, as structure of arrays in memory of five times `total` numbers. It is divided into
// stretches by the caller, each a multiple of a block long; a candidate is compared with blocks, without branches.
template <class T>
class Suppressors {
 public:
  Suppressors(T* memory, int64_t total, T threshold, T offset)
      : x1_(memory),
        y1_(memory + total),
        x2_(memory + 2 * total),
        y2_(memory + 3 * total),
        area_(memory + 4 * total),
        threshold_(threshold),
        bound_(threshold * (1 - 8 * std::numeric_limits<T>::epsilon())),
        offset_(offset) {}

  // Length of a stretch for so many boxes.
  static int64_t room(int64_t boxes) { return (boxes + kBlock - 1) / kBlock * kBlock; }

  // Whether the IoU of the candidate with any box of the stretch that begins at `begin` is above the threshold.
  DET_OPS_INLINE bool any_suppresses(int64_t begin, int64_t end, const Candidate<T>& c, bool legacy) const {
    for (int64_t j = begin; j < end; j += kBlock) {
      // Boxes that do not meet suppress each other too if the threshold is negative.
      if ((threshold_ < 0 || may_suppress(j, c, legacy)) && suppresses(j, c)) return true;
    }
    return false;
  }

  // Adds a box at `end` to the stretch that begins at `begin`.
  DET_OPS_INLINE void append(int64_t begin, int64_t end, const Candidate<T>& c) const {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    if ((end - begin) % kBlock == 0) {  // a new block, of places that suppress nothing: their area is NaN
      std::fill(x1_ + end, x1_ + end + kBlock, infinity);
      std::fill(y1_ + end, y1_ + end + kBlock, infinity);
      std::fill(x2_ + end, x2_ + end + kBlock, -infinity);
      std::fill(y2_ + end, y2_ + end + kBlock, -infinity);
      std::fill(area_ + end, area_ + end + kBlock, std::numeric_limits<T>::quiet_NaN());
    }
    x1_[end] = c.x1;
    y1_[end] = c.y1;
    x2_[end] = c.x2;
    y2_[end] = c.y2;
    area_[end] = c.area;
  }

 private:
  static constexpr int64_t kBlock = 32;  // boxes compared between two looks at the result

  // Whether any box of the block may suppress the candidate: no division, and a bound a little below the threshold, so
  // that no rounding hides one that does.
  DET_OPS_INLINE bool may_suppress(int64_t j, const Candidate<T>& candidate, bool legacy) const {
    const Candidate<T> c = candidate;
    const T bound = bound_, offset = offset_;
    int any = 0;
    for (int64_t k = j; k < j + kBlock; ++k) {
      const T left = c.x1 > x1_[k] ? c.x1 : x1_[k];
      const T top = c.y1 > y1_[k] ? c.y1 : y1_[k];
      const T right = c.x2 < x2_[k] ? c.x2 : x2_[k];
      const T bottom = c.y2 < y2_[k] ? c.y2 : y2_[k];
      const T w = legacy ? right - left + offset : right - left;
      const T h = legacy ? bottom - top + offset : bottom - top;
      const T inter = (w > 0 ? w : T(0)) * h;  // h below 0 gives what no bound admits
      any |= inter >= bound * (area_[k] + c.area - inter);
    }
    return any;
  }

  DET_OPS_INLINE bool suppresses(int64_t j, const Candidate<T>& candidate) const {
    const Candidate<T> c = candidate;
    const T threshold = threshold_, offset = offset_;
    int any = 0;
    for (int64_t k = j; k < j + kBlock; ++k) {
      const T left = c.x1 > x1_[k] ? c.x1 : x1_[k];
      const T top = c.y1 > y1_[k] ? c.y1 : y1_[k];
      const T right = c.x2 < x2_[k] ? c.x2 : x2_[k];
      const T bottom = c.y2 < y2_[k] ? c.y2 : y2_[k];
      const T w = right - left + offset;
      const T h = bottom - top + offset;
      const T inter = (w > 0 ? w : T(0)) * (h > 0 ? h : T(0));
      any |= inter / (area_[k] + c.area - inter) > threshold;
    }
    return any;
  }

  T *x1_, *y1_, *x2_, *y2_, *area_;
  T threshold_, bound_, offset_;
};

}  // namespace det_ops
