// Rows of results as columns, without a Python loop over each key.

#include "rows.h"

#include <cmath>
#include <cstdint>

#include "column.h"

namespace py = pybind11;

namespace det_coco {

namespace {

constexpr int64_t kLargestId = int64_t{1} << 62;

class Rows {
 public:
  // False where a row has something that Python has to look at.
  bool read(const py::list& rows) {
    const Py_ssize_t count = PyList_GET_SIZE(rows.ptr());
    const bool masks = count > 0 && find(PyList_GET_ITEM(rows.ptr(), 0), segmentation_) != nullptr;
    offsets_.push(0);
    for (Py_ssize_t k = 0; k < count; ++k) {
      PyObject* row = PyList_GET_ITEM(rows.ptr(), k);
      if (find(row, mask_score_) != nullptr) return false;
      if (!id(find(row, image_id_), image_ids_) || !id(find(row, category_id_), category_ids_)) return false;
      if (!number(find(row, score_), scores_) || !box(find(row, bbox_))) return false;
      if (masks && !mask(find(row, segmentation_))) return false;
    }
    masks_ = masks;
    return true;
  }

  py::dict release() {
    using py::literals::operator""_a;
    const py::ssize_t count = static_cast<py::ssize_t>(scores_.size());
    py::dict columns("image_ids"_a = image_ids_.release(), "category_ids"_a = category_ids_.release(),
                     "scores"_a = scores_.release(), "boxes"_a = boxes_.release().reshape({count, py::ssize_t{4}}));
    if (masks_) {
      columns["mask_sizes"] = sizes_.release().reshape({count, py::ssize_t{2}});
      columns["mask_codes"] = codes_.release();
      columns["mask_offsets"] = offsets_.release();
    }
    return columns;
  }

 private:
  // What a dictionary has under a key, or nullptr.
  static PyObject* find(PyObject* row, const py::str& key) {
    return row != nullptr && PyDict_CheckExact(row) ? PyDict_GetItem(row, key.ptr()) : nullptr;
  }

  // True and false are whole numbers in Python, and not here.
  static bool whole(PyObject* value, int64_t& result) {
    if (value == nullptr || !PyLong_CheckExact(value)) return false;
    int overflow = 0;
    result = PyLong_AsLongLongAndOverflow(value, &overflow);
    return overflow == 0 && -kLargestId < result && result < kLargestId;
  }

  static bool id(PyObject* value, Column<int64_t>& column) {
    int64_t result = 0;
    if (!whole(value, result)) return false;
    column.push(result);
    return true;
  }

  static bool number(PyObject* value, Column<double>& column) {
    int64_t exact = 0;
    if (value == nullptr) return false;
    if (PyFloat_Check(value)) {
      column.push(PyFloat_AS_DOUBLE(value));
    } else if (whole(value, exact)) {
      column.push(static_cast<double>(exact));
    } else {
      return false;
    }
    return std::isfinite(column[column.size() - 1]);
  }

  bool box(PyObject* value) {
    if (value == nullptr || !PyList_CheckExact(value) || PyList_GET_SIZE(value) != 4) return false;
    for (Py_ssize_t k = 0; k < 4; ++k) {
      if (!number(PyList_GET_ITEM(value, k), boxes_)) return false;
    }
    return true;
  }

  bool mask(PyObject* code) {
    PyObject *size = find(code, size_), *counts = find(code, counts_);
    if (size == nullptr || counts == nullptr || !PyList_CheckExact(size) || PyList_GET_SIZE(size) != 2) return false;
    if (!id(PyList_GET_ITEM(size, 0), sizes_) || !id(PyList_GET_ITEM(size, 1), sizes_)) return false;
    if (PyUnicode_Check(counts) && PyUnicode_IS_ASCII(counts)) {
      codes_.append(static_cast<const uint8_t*>(PyUnicode_DATA(counts)), PyUnicode_GET_LENGTH(counts));
    } else if (PyBytes_Check(counts)) {
      codes_.append(reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(counts)), PyBytes_GET_SIZE(counts));
    } else {
      return false;
    }
    offsets_.push(static_cast<int64_t>(codes_.size()));
    return true;
  }

  const py::str image_id_{"image_id"}, category_id_{"category_id"}, score_{"score"}, bbox_{"bbox"},
      segmentation_{"segmentation"}, size_{"size"}, counts_{"counts"}, mask_score_{"mask_score"};
  Column<int64_t> image_ids_, category_ids_, sizes_, offsets_;
  Column<double> scores_, boxes_;
  Column<uint8_t> codes_;
  bool masks_ = false;
};

py::object row_columns(const py::list& given) {
  Rows rows;
  if (!rows.read(given)) return py::none();
  return rows.release();
}

}  // namespace

void define_rows(py::module_& module) { module.def("row_columns", &row_columns, py::arg("rows")); }

}  // namespace det_coco
