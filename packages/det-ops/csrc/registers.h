// One registration function per file of kernels, sorted; module.cpp calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace det_ops {

void register_deform_conv(pybind11::module_& module);
void register_fast_nms(pybind11::module_& module);
void register_mask_logits(pybind11::module_& module);
void register_mask_targets(pybind11::module_& module);
void register_matching(pybind11::module_& module);
void register_nms(pybind11::module_& module);
void register_paste(pybind11::module_& module);
void register_rle(pybind11::module_& module);
void register_roi_align(pybind11::module_& module);
void register_sampling(pybind11::module_& module);
void register_winograd(pybind11::module_& module);

}  // namespace det_ops
