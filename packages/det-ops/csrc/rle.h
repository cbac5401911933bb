// COCO's run-length encoding of a mask, from the places where it changes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace det_ops {

// Positions, in column order and never falling, where the mask changes; outside before the first.
class Changes {
 public:
  void clear() { positions_.clear(); }

  // Two changes at one place are none.
  void toggle(int64_t position) {
    if (!positions_.empty() && positions_.back() == position) {
      positions_.pop_back();
    } else {
      positions_.push_back(position);
    }
  }

  // Compressed counts of a mask of `pixels` pixels.
  std::string encode(int64_t pixels) const;

 private:
  std::vector<int64_t> positions_;
};

}  // namespace det_ops
