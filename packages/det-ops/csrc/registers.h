// One registration function per file of kernels; module.cpp calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace det_ops {}  // namespace det_ops
