#include "rle.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "registers.h"

namespace py = pybind11;

namespace det_ops {

// Each count but the first three is written as the difference to the one two before, five bits a character.
std::string Changes::encode(int64_t pixels) const {
  std::string text;
  text.reserve(3 * positions_.size() + 8);
  int64_t last = 0, before[2] = {0, 0};
  const size_t runs = positions_.size() + (positions_.empty() || positions_.back() != pixels ? 1 : 0);
  for (size_t i = 0; i < runs; ++i) {
    const int64_t position = i < positions_.size() ? positions_[i] : pixels;
    const int64_t count = position - last;
    last = position;
    int64_t value = i > 2 ? count - before[i % 2] : count;
    before[i % 2] = count;
    bool more = true;
    while (more) {
      char bits = static_cast<char>(value & 0x1f);
      value >>= 5;
      more = value != (bits & 0x10 ? -1 : 0);
      if (more) bits |= 0x20;
      text.push_back(static_cast<char>(bits + 48));
    }
  }
  return text;
}

namespace {

// Rows of the image are compared in blocks of columns: most blocks equal the one above, and only differences count.
std::string encode_mask(const uint8_t* mask, int64_t height, int64_t width) {
  constexpr int64_t block = 64;
  Changes changes;
  std::vector<int64_t> rows[block];
  for (int64_t left = 0; left < width; left += block) {
    const int64_t columns = std::min(block, width - left);
    for (int64_t x = 0; x < columns; ++x) {
      rows[x].clear();
      if (height > 0 && mask[left + x]) rows[x].push_back(0);
    }
    for (int64_t y = 1; y < height; ++y) {
      const uint8_t* here = mask + y * width + left;
      const uint8_t* above = here - width;
      if (std::memcmp(here, above, columns) == 0) continue;
      for (int64_t x = 0; x < columns; ++x) {
        if (!here[x] != !above[x]) rows[x].push_back(y);
      }
    }
    for (int64_t x = 0; x < columns; ++x) {
      const int64_t start = (left + x) * height;
      for (const int64_t y : rows[x]) changes.toggle(start + y);
      if (rows[x].size() % 2) changes.toggle(start + height);
    }
  }
  return changes.encode(height * width);
}

std::vector<std::string> encode_rle(uintptr_t masks_ptr, int64_t count, int64_t height, int64_t width, int threads) {
  const uint8_t* masks = reinterpret_cast<const uint8_t*>(masks_ptr);
  std::vector<std::string> texts(count);
  parallel_for(count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) texts[k] = encode_mask(masks + k * height * width, height, width);
  });
  return texts;
}

}  // namespace

void register_rle(py::module_& module) {
  module.def("encode_rle", &encode_rle, py::call_guard<py::gil_scoped_release>());
}

}  // namespace det_ops
