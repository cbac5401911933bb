#pragma once

#include <pybind11/pybind11.h>

namespace det_coco {

// Adds resize_as_pillow, resize_as_opencv and resize_as_torch to the module: a picture, uint8 [h, w, 3], is resized into
// an array [3, H, W], uint8 or, as torch, float32.
void define_resizing(pybind11::module_& module);

}  // namespace det_coco
