"""NMS by the vendor's kernels, where `DET_OPS_KERNELS=vendor` asks for them: a call for each image and level.

torchvision_npu's kernel of `torchvision::nms` where it is installed, found by PyTorch's dispatcher; else torch_npu's
`npu_nms_v4`, whose result has a fixed length. Both settle equal scores, and IoUs on the threshold, as they please.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops import backends
from det_ops.reference.nms import best_of


def form(boxes: Tensor) -> str | None:
    """The choice of kernels, one of :data:`~det_ops.backends.npu.FORMS` perhaps, for boxes on an NPU; else None."""
    return backends.chosen if boxes.device.type == "npu" else None


def by_vendor(
    boxes: Tensor,
    scores: Tensor,
    sizes: Sequence[int] | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_output: int,
) -> tuple[Tensor, Tensor]:
    """`det_ops.nms` of groups one behind the other, with `max_output` at most N.

    The vendor's kernels know nothing of inclusive boxes, nor of groups in any order.
    """
    lead, n = scores.shape[:-1], scores.shape[-1]
    boxes, scores = boxes.reshape(-1, n, 4).float(), scores.reshape(-1, n).float()
    usable = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid.reshape(-1, n)
    single = _torchvision if _has_torchvision() else _npu_nms_v4
    places, kept = [], []
    lengths = [n] if sizes is None else list(sizes)
    for image in range(len(boxes)):
        start = 0
        for size in lengths:
            part = (image, slice(start, start + size))
            place, used = single(boxes[part], scores[part], usable[part], iou_threshold, min(max_output, size))
            places.append(torch.where(used, place + start, 0))
            kept.append(used)
            start += size
    if not places:
        empty = torch.zeros(*lead, max_output, dtype=torch.int64, device=boxes.device)
        return empty, empty.bool()
    shape = (len(boxes), -1)
    indices, filled = best_of(torch.cat(places).reshape(shape), torch.cat(kept).reshape(shape), scores, max_output)
    return indices.reshape(*lead, max_output), filled.reshape(*lead, max_output)


def _npu_nms_v4(
    boxes: Tensor, scores: Tensor, usable: Tensor, iou_threshold: float, max_output: int
) -> tuple[Tensor, Tensor]:
    """Of boxes `[N, 4]`: int64 and bool `[max_output]`."""
    least = torch.finfo(torch.float32).min
    scores = torch.where(usable, scores, -torch.inf)
    thresholds = [scores.new_full((), value) for value in (iou_threshold, least)]
    found, count = _operators().npu_nms_v4(boxes.contiguous(), scores, max_output, *thresholds, True)
    return found.long(), torch.arange(max_output, device=boxes.device) < count


def _torchvision(
    boxes: Tensor, scores: Tensor, usable: Tensor, iou_threshold: float, max_output: int
) -> tuple[Tensor, Tensor]:
    """Likewise; the host waits for the number of boxes."""
    found = torch.ops.torchvision.nms(boxes.contiguous(), torch.where(usable, scores, -torch.inf), iou_threshold)
    found = found[:max_output].long()
    filling = (0, max_output - len(found))
    return F.pad(found, filling), F.pad(usable.gather(0, found), filling)


def _has_torchvision() -> bool:
    name = "torchvision::nms"
    return hasattr(torch.ops.torchvision, "nms") and torch._C._dispatch_has_kernel_for_dispatch_key(name, "PrivateUse1")


def _operators() -> Any:
    return torch.ops.npu
