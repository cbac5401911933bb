#pragma once

#include <pybind11/pybind11.h>

namespace det_coco {

// Adds row_columns to the module: the arrays of `Detections` from a list of rows of results, or None where a row is not
// exactly as a results file has it, so that there is one place for every other form and for every message: Python.
void define_rows(pybind11::module_& module);

}  // namespace det_coco
