"""Kernels of torch_npu for Ascend NPUs.

They are few: the references consist of PyTorch operators with static shapes, which torch_npu runs natively (aclnn).
"""

from det_ops.backends._backend import Backend

BACKEND = Backend(
    name="torch_npu",
    device="npu",
    package=__name__,
    float64=False,
    kernels={
        "multilevel_roi_align": "npu_roi_align, npu_roi_alignbk in float32, a call per level; float64: reference",
    },
)

FORMS = {
    "host": ("C++", "exact; one call on the CPU, which waits for the NPU; not in a graph"),
    "vendor": (
        "vendor",
        "torchvision_npu's, which waits, or npu_nms_v4, deprecated and not on Ascend 950; ties and rounding are theirs",
    ),
}
"""What `DET_OPS_KERNELS` may choose for NMS instead of the reference: a kernel, and what speaks for and against it."""

_ROI_ALIGN = "torchvision_npu's gradient takes roi_end_mode 1 where aligned=True needs 2"
_BOX_CODING = "is deprecated, with legacy +1 widths"

VENDOR = {
    "bitmap_targets": _ROI_ALIGN,
    "box_iou": "npu_iou, npu_ptiou are deprecated: float16 with 0.01 in the denominator below Ascend 950",
    "decode_boxes": f"npu_bounding_box_decode {_BOX_CODING}",
    "deform_conv2d": "npu_deformable_conv2d is static; float32, offsets in an order of its own",
    "encode_boxes": f"npu_bounding_box_encode {_BOX_CODING}, in float16",
    "generalized_box_iou": "npu_giou is deprecated: pairs of equal index only",
    "match": "npu_grid_assign_positive and npu_iou are deprecated",
    "multilevel_roi_align": _ROI_ALIGN,
    "roi_align": _ROI_ALIGN,
    "subsample": "npu_random_choice_with_mask is deprecated, and does not follow PyTorch's random numbers",
}
"""What torch_npu and torchvision_npu have of their own for a function of the package, and why it does not serve.

Those of torch_npu 2.13 and 2.14, from its sources and documents, not from a device.
"""
