"""What torch_npu 2.13.0 and 2.14.0 have and lack: facts of their wheels, sources and documents, not of a device."""

from functools import cache
from importlib.resources import files

import torch

SOCS = ("910ProB", "910B", "950")
"""Ascend generations that differ: up to 910ProB; 910B, 910C (A2, A3); 950."""

KINDS = {
    "cpu": "torch_npu has no kernel: copied to the host, computed by the CPU, copied back",
    "dynamic": "the shape of the result depends on values: the host waits for the device; what follows has new shapes",
    "read": "the host waits for the device, and reads",
    "copy": "copied to the device in the step: make it once before, or copy from pinned memory with non_blocking=True",
    "dtype": "a number format that this NPU computes slowly or not at all",
    "deprecated": "torch_npu warns that it will be removed: no longer maintained, accuracy not guaranteed",
    "soc": "this NPU rejects it",
    "shapes": "other shapes than in the first step: each is compiled or looked up anew",
}
"""Kinds of findings, each with what it costs."""

DYNAMIC = frozenset(
    f"aten::{name}"
    for name in (
        "_unique", "_unique2", "bincount", "masked_select", "nonzero", "repeat_interleave.Tensor",
        "unique_consecutive", "unique_dim",
    )
)  # fmt: skip
"""Operators whose output has a length that depends on values; indexing with a mask does too."""

READS = frozenset(("aten::_local_scalar_dense", "aten::equal"))
"""Operators that give a number to the host."""

READS_OF_ARGUMENTS = {"aten::_fused_sgd_": ("found_inf", "lr")}
"""Arguments that torch_npu's kernel reads on the host where they are tensors."""

INDEXING = frozenset(
    f"aten::{name}" for name in ("_index_put_impl_", "_unsafe_index", "index", "index_put", "index_put_")
)

DEPRECATED = frozenset((
    "npu_anchor_response_flags", "npu_batch_nms", "npu_bounding_box_decode", "npu_bounding_box_encode", "npu_ciou",
    "npu_convolution", "npu_diou", "npu_giou", "npu_grid_assign_positive", "npu_iou", "npu_nms_rotated", "npu_nms_v4",
    "npu_nms_with_mask", "npu_one_hot", "npu_ptiou", "npu_random_choice_with_mask", "npu_silu", "npu_slice",
    "npu_sort_v2", "npu_yolo_boxes_encode",
))  # fmt: skip
"""Operators of torch_npu for detection that warn at run time."""

NOT_ON_950 = DEPRECATED - {"npu_iou", "npu_ciou", "npu_one_hot"} | {"npu_max", "npu_ps_roi_pooling"}
"""Operators of torch_npu that an Ascend 950 rejects, since CANN has no aclnn kernel for them."""

LOWER_UNDER_AUTOCAST = (
    "_convolution", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d",
    "conv_transpose2d.input", "convolution", "einsum", "linear", "matmul", "mm", "mv", "prelu",
)  # fmt: skip
FLOAT32_UNDER_AUTOCAST = (
    "acos", "asin", "binary_cross_entropy_with_logits", "cosh", "cumsum", "exp", "expm1", "group_norm", "huber_loss",
    "l1_loss", "layer_norm", "log", "log10", "log1p", "log2", "log_softmax.int", "mse_loss", "nll_loss", "nll_loss2d",
    "norm.Scalar", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "prod", "reciprocal", "rsqrt", "smooth_l1_loss",
    "softmax.int", "softplus", "sum", "sum.dim_IntList",
)  # fmt: skip


SLOW_DTYPES = frozenset((torch.float64, torch.complex128))
"""What the AI cores do not compute: the device's CPU does, or the operator is refused."""


@cache
def native_operators() -> frozenset[str]:
    """Names with overload, as `aten::add.Tensor`, of the operators for which torch_npu has a kernel of its own."""
    names = set()
    for line in (files("det_ops.npu_check") / "native_operators.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, *overloads = line.split()
            names.update(
                f"aten::{name}" if overload == "default" else f"aten::{name}.{overload}" for overload in overloads
            )
    return frozenset(names)
