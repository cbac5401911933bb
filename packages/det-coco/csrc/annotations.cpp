// The annotations of a COCO file as columns, without an object for each number. What is not exactly as COCO writes it is
// left to Python, row by row, so that there is one place for every other form and for every message.

#include <pybind11/pybind11.h>

#include <cmath>
#include <limits>

#include "column.h"
#include "json.h"
#include "resize.h"
#include "rows.h"

namespace py = pybind11;

namespace det_coco {

namespace {

constexpr int64_t kLargestId = int64_t{1} << 62;
constexpr int64_t kMostPixels = std::numeric_limits<int32_t>::max();

// A row of `_table.ROW`; the fields are described there.
struct Row {
  int64_t first, last, id, image_id, category_id;
  double box[4], area;
  int32_t polygons, runs, keypoints, num_keypoints, height, width;
  uint8_t crowd, ignored, odd, padding[5];
};

enum Key : uint32_t {
  kId = 1, kImage = 2, kCategory = 4, kBox = 8, kArea = 16, kCrowd = 32, kIgnore = 64, kMask = 128, kPoints = 256,
  kCount = 512, kOther = 0
};

Key key_of(std::string_view name) {
  switch (name.size()) {
    case 2:
      return name == "id" ? kId : kOther;
    case 4:
      return name == "bbox" ? kBox : name == "area" ? kArea : kOther;
    case 6:
      return name == "ignore" ? kIgnore : kOther;
    case 7:
      return name == "iscrowd" ? kCrowd : kOther;
    case 8:
      return name == "image_id" ? kImage : kOther;
    case 9:
      return name == "keypoints" ? kPoints : kOther;
    case 11:
      return name == "category_id" ? kCategory : kOther;
    case 12:
      return name == "segmentation" ? kMask : kOther;
    case 13:
      return name == "num_keypoints" ? kCount : kOther;
    default:
      return kOther;
  }
}

class Annotations {
 public:
  // Reads an array of annotations; false where it is no JSON.
  bool read(Json& json) {
    if (!json.take('[')) return false;
    if (json.take(']')) return true;
    do {
      json.peek();
      const int64_t first = json.place();
      const size_t lengths = lengths_.size(), points = points_.size(), runs = runs_.size(), marks = keypoints_.size();
      Row row{};
      row.area = std::numeric_limits<double>::quiet_NaN();
      row.num_keypoints = -1;
      if (!read_row(json, row) || (json.peek() != ',' && json.peek() != ']')) {
        lengths_.truncate(lengths);
        points_.truncate(points);
        runs_.truncate(runs);
        keypoints_.truncate(marks);
        row = Row{};
        row.odd = 1;
        json.go(first);
        if (!json.skip() || json.place() == first) return false;
      }
      row.first = first;
      row.last = json.place();
      rows_.push(row);
    } while (json.take(','));
    return json.take(']');
  }

  py::tuple release(int64_t first, int64_t last) {
    return py::make_tuple(first, last, rows_.release(), lengths_.release(), points_.release(), runs_.release(),
                          keypoints_.release());
  }

 private:
  bool read_row(Json& json, Row& row) {
    if (!json.take('{')) return false;
    uint32_t seen = 0;
    do {
      std::string_view name;
      if (!json.plain_text(name) || !json.take(':')) return false;
      const Key key = key_of(name);
      if (seen & key) return false;
      seen |= key;
      if (!read_value(json, row, key)) return false;
    } while (json.take(','));
    constexpr uint32_t needed = kId | kImage | kCategory | kBox;
    return json.take('}') && (seen & needed) == needed;
  }

  bool read_value(Json& json, Row& row, Key key) {
    int64_t value = 0;
    switch (key) {
      case kId:
        return read_id(json, row.id);
      case kImage:
        return read_id(json, row.image_id);
      case kCategory:
        return read_id(json, row.category_id);
      case kBox:
        return json.take('[') && json.coordinate(row.box[0]) && json.take(',') && json.coordinate(row.box[1]) &&
               json.take(',') && json.coordinate(row.box[2]) && json.take(',') && json.coordinate(row.box[3]) &&
               json.take(']');
      case kArea:
        return json.coordinate(row.area) && row.area >= 0;
      case kCrowd:
      case kIgnore:
        if (!json.integer(value) || value < 0 || value > 1) return false;
        (key == kCrowd ? row.crowd : row.ignored) = static_cast<uint8_t>(value);
        return true;
      case kMask:
        if (json.peek() == 'n') return json.word("null");
        return json.peek() == '{' ? read_code(json, row) : read_polygons(json, row);
      case kPoints:
        return json.peek() == 'n' ? json.word("null") : read_numbers(json, keypoints_, row.keypoints);
      case kCount:
        if (!json.integer(value) || value < 0 || value > kMostPixels) return false;
        row.num_keypoints = static_cast<int32_t>(value);
        return true;
      default:
        return json.skip_checked();
    }
  }

  static bool read_id(Json& json, int64_t& id) { return json.integer(id) && id >= -kLargestId && id <= kLargestId; }

  static bool read_numbers(Json& json, Column<double>& numbers, int32_t& count) {
    if (!json.take('[')) return false;
    if (json.take(']')) return true;
    do {
      double value;
      if (!json.coordinate(value) || count == kMostPixels) return false;
      numbers.push(value);
      ++count;
    } while (json.take(','));
    return json.take(']');
  }

  bool read_polygons(Json& json, Row& row) {
    if (!json.take('[')) return false;
    if (json.take(']')) return true;
    do {
      int32_t count = 0;
      if (!read_numbers(json, points_, count) || count % 2 != 0 || count < 6) return false;
      lengths_.push(count / 2);
      ++row.polygons;
    } while (json.take(','));
    // Two lists of one length may be a row of x and a row of y.
    const size_t all = lengths_.size();
    if (row.polygons == 2 && lengths_[all - 1] == lengths_[all - 2]) return false;
    return json.take(']');
  }

  bool read_code(Json& json, Row& row) {
    if (!json.take('{')) return false;
    bool sized = false, counted = false;
    const size_t first = runs_.size();
    do {
      std::string_view name;
      if (!json.plain_text(name) || !json.take(':')) return false;
      if (name == "size" && !sized) {
        int64_t height, width;
        if (!json.take('[') || !json.integer(height) || !json.take(',') || !json.integer(width) || !json.take(']')) {
          return false;
        }
        if (height < 1 || width < 1 || height > kMostPixels / width) return false;
        row.height = static_cast<int32_t>(height);
        row.width = static_cast<int32_t>(width);
        sized = true;
      } else if (name == "counts" && !counted) {
        if (!(json.peek() == '"' ? read_text_runs(json) : read_plain_runs(json))) return false;
        counted = true;
      } else {
        return false;
      }
    } while (json.take(','));
    return json.take('}') && sized && counted && close_runs(row, first);
  }

  // Checks that runs cover the picture, and drops those of an empty mask.
  bool close_runs(Row& row, size_t first) {
    int64_t covered = 0, inside = 0;
    for (size_t run = first; run < runs_.size(); ++run) {
      covered += runs_[run];
      if ((run - first) % 2) inside += runs_[run];
    }
    if (covered != int64_t{row.height} * row.width || runs_.size() - first > static_cast<size_t>(kMostPixels)) {
      return false;
    }
    if (inside == 0) runs_.truncate(first);
    row.runs = static_cast<int32_t>(runs_.size() - first);
    return true;
  }

  bool read_plain_runs(Json& json) {
    if (!json.take('[')) return false;
    if (json.take(']')) return true;
    do {
      int64_t run;
      if (!json.integer(run) || run < 0 || run > kMostPixels) return false;
      runs_.push(static_cast<int32_t>(run));
    } while (json.take(','));
    return json.take(']');
  }

  // COCO's compressed text, see `rle.decode_many`; its one character that JSON escapes is the backslash.
  bool read_text_runs(Json& json) {
    if (!json.take('"')) return false;
    const size_t first = runs_.size();
    int64_t value = 0;
    int shift = 0;
    for (char c; (c = json.next()) != '"';) {
      if (c == '\\' && json.next() != '\\') return false;
      const int digit = c - 48;
      if (digit < 0 || digit > 63 || shift > 30) return false;
      value |= int64_t{digit & 0x1f} << shift;
      shift += 5;
      if (digit & 0x20) continue;
      if (digit & 0x10) value -= int64_t{1} << shift;
      if (runs_.size() - first > 2) value += runs_[runs_.size() - 2];
      if (value < 0 || value > kMostPixels) return false;
      runs_.push(static_cast<int32_t>(value));
      value = shift = 0;
    }
    return shift == 0;
  }

  Column<Row> rows_;
  Column<int32_t> lengths_, runs_;
  Column<double> points_, keypoints_;
};

// Finds the one array of annotations of a file and reads it; None where the file has to be read by Python alone.
py::object scan(const py::bytes& text) {
  const std::string_view view(text);
  Json json(view.data(), view.size());
  Annotations annotations;
  int64_t first = -1, last = -1;
  if (!json.take('{')) return py::none();
  do {
    std::string_view name;
    if (!json.plain_text(name) || !json.take(':')) return py::none();
    json.peek();
    if (name != "annotations") {
      if (!json.skip()) return py::none();
      continue;
    }
    if (first >= 0) return py::none();
    first = json.place();
    if (!annotations.read(json)) return py::none();
    last = json.place();
  } while (json.take(','));
  if (!json.take('}') || json.peek() != '\0' || json.place() != static_cast<int64_t>(view.size()) || first < 0) {
    return py::none();
  }
  return annotations.release(first, last);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "The annotations of a COCO file as columns (det_coco._table says what they hold), rows of results, and resizing.";
  PYBIND11_NUMPY_DTYPE(Row, first, last, id, image_id, category_id, box, area, polygons, runs, keypoints, num_keypoints,
                       height, width, crowd, ignored, odd);
  module.def("scan", &scan, py::arg("text"));
  define_resizing(module);
  define_rows(module);
}

}  // namespace det_coco
