#include "registers.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "CPU kernels of det_ops over raw buffers: addresses and sizes in, nothing checked (det_ops checks).";
  det_ops::register_deform_conv(module);
  det_ops::register_fast_nms(module);
  det_ops::register_mask_logits(module);
  det_ops::register_mask_targets(module);
  det_ops::register_matching(module);
  det_ops::register_nms(module);
  det_ops::register_paste(module);
  det_ops::register_rle(module);
  det_ops::register_roi_align(module);
  det_ops::register_sampling(module);
  det_ops::register_winograd(module);
}
