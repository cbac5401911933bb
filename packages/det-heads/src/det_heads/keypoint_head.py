"""The keypoint head: a heatmap for each keypoint of a box (Mask R-CNN, section 5; Keypoint R-CNN of torchvision).

Shapes: `B` images, `S` samples, `K` detections, `N` detections of an image, `R` pooled boxes, `J` keypoints.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_backbones import kaiming_normal
from det_heads.keypoint_config import KeypointHeadConfig
from det_heads.matching import Samples
from det_heads.packing import pack, unpack
from det_heads.parts import WHOLE, BatchPart
from det_heads.pooling import RoIPool
from det_heads.postprocess import Original
from det_ops.live_rows import convolution_rows

__all__ = ["KeypointHead", "decode_heatmaps", "keypoint_loss", "keypoint_targets"]


class KeypointHead(nn.Module):
    """3x3 convolutions and a 4x4 transposed convolution to the heatmaps, which are resized to twice their size.

    A :class:`~det_heads.Branch`. Its truth is ``keypoints`` [B, M, J, 3] of the batch: x, y in resized pixels, and
    visibility, 0 where a keypoint is not labelled. Boxes are as wide as ``x2 - x1``.

    Args:
        in_channels: Channels of the pyramid.
        config: Sizes.
        strides: Pixels per cell of each level of the pyramid, finest first.
    """

    def __init__(
        self, in_channels: int, config: KeypointHeadConfig, strides: Sequence[int] = (4, 8, 16, 32, 64)
    ) -> None:
        super().__init__()
        self.config = config
        self.pool = RoIPool(config.pool, tuple(strides))
        widths = [in_channels] + [config.channels] * config.convs
        self.convs = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.predictor = nn.ConvTranspose2d(config.channels, config.num_keypoints, 4, stride=2, padding=1)
        for layer in (*self.convs, self.predictor):
            kaiming_normal(cast("nn.Conv2d", layer))

    def forward(self, pooled: Tensor, count: Tensor) -> Tensor:
        """Compute heatmap logits.

        Args:
            pooled: [R, in_channels, P, P].
            count: int64 scalar tensor, the number of rows that are not padding; they come first.

        Returns:
            [R, J, 4P, 4P].
        """
        hidden = pooled
        for conv in cast("Iterable[nn.Conv2d]", self.convs):
            hidden = convolution_rows(hidden, conv.weight, conv.bias, count, padding=1, relu=True)
        lower = self.predictor(hidden)  # [R, J, 2P, 2P]
        return F.interpolate(lower, scale_factor=2.0, mode="bilinear", align_corners=False)

    def losses(
        self, batch: Mapping[str, Tensor], features: Sequence[Tensor], samples: Samples, part: BatchPart = WHOLE
    ) -> dict[str, Tensor]:
        """Compute ``loss_keypoint``, a scalar, of positive samples of features [B, C, H, W]; see :class:`Branch`.

        Raises:
            ValueError: The batch has no keypoints, or not as many as the head.
        """
        count = self.config.num_keypoints
        if "keypoints" not in batch or batch["keypoints"].shape[2] != count:
            found = "none" if "keypoints" not in batch else f"{batch['keypoints'].shape[2]} of each object"
            raise ValueError(f"The batch must have {count} keypoints of each object, got {found}.")
        slots = samples.max_positives
        packing = pack(samples.positive[:, :slots])
        boxes = samples.boxes[:, :slots].flatten(0, 1)[packing.order]  # [R, 4], R = B * slots
        instance = samples.truth_index[:, :slots].flatten()[packing.order]
        truth = batch["keypoints"][packing.images, instance]  # [R, J, 3]
        logits = self(self.pool(features, boxes, packing.images, packing.used), packing.count)
        cells, valid = keypoint_targets(truth, boxes, logits.shape[-1])
        return {"loss_keypoint": keypoint_loss(logits, cells, valid & packing.used[:, None], part)}

    def detect(self, features: Sequence[Tensor], detections: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute ``heatmaps`` [B, K, J, 4P, 4P], logits, of detections; see :class:`~det_heads.Branch`."""
        valid = detections["valid"]
        packing = pack(valid)
        boxes = detections["boxes"].flatten(0, 1)[packing.order]  # [R, 4], R = B * K
        logits = self(self.pool(features, boxes, packing.images, packing.used), packing.count).float()
        return {"heatmaps": unpack(logits, packing, (valid.shape[0], valid.shape[1]))}

    def to_image(self, found: Mapping[str, Tensor], boxes: Tensor, original: Original) -> dict[str, Any]:  # noqa: ARG002
        """Decode the heatmaps into ``keypoints`` [N, J, 3] and ``keypoint_scores`` [N, J]; see :class:`Branch`.

        A keypoint is x, y in original pixels and 1; a score is a logit.
        """
        points, scores = decode_heatmaps(found["heatmaps"], found["boxes"])
        points[..., :2] /= original.scale
        return {"keypoints": points, "keypoint_scores": scores}


def keypoint_targets(keypoints: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Find the cells of heatmaps in which keypoints are.

    Args:
        keypoints: [R, J, 3] x, y in the pixels of the boxes, and visibility.
        boxes: [R, 4].
        size: Cells of a heatmap along a side.

    Returns:
        [R, J] int64, row by row, and [R, J] bool, whether the keypoint is labelled and in the box.
        Source: torchvision roi_heads.py, ``keypoints_to_heatmap``.
    """
    corner, end = boxes[:, None, :2], boxes[:, None, 2:]
    cell = ((keypoints[..., :2] - corner) * (size / (end - corner))).floor()  # [R, J, 2]
    cell = torch.where(keypoints[..., :2] == end, size - 1, cell)
    valid = ((cell >= 0) & (cell < size)).all(-1) & (keypoints[..., 2] > 0)
    x, y = torch.where(valid[..., None], cell, 0).long().unbind(-1)  # a box without width has cells at infinity
    return y * size + x, valid


def keypoint_loss(logits: Tensor, cells: Tensor, valid: Tensor, part: BatchPart = WHOLE) -> Tensor:
    """Compute the cross entropy over the cells of a heatmap, the mean over the valid keypoints.

    Args:
        logits: [R, J, H, W].
        cells: [R, J] int64, see :func:`keypoint_targets`.
        valid: [R, J] bool.
        part: Which part of a larger batch this is.

    Returns:
        A scalar, float32, zero where no keypoint is valid.
    """
    loss = F.cross_entropy(logits.float().flatten(0, 1).flatten(1), cells.flatten(), reduction="none")  # [RJ]
    return (loss * valid.flatten()).sum() / part.denominator(valid.sum())


def decode_heatmaps(heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Find the maximum of each heatmap, enlarged to the pixels of its box; runs on the host.

    Args:
        heatmaps: [N, J, H, W] logits.
        boxes: [N, 4] in the pixels wanted.

    Returns:
        [N, J, 3] float32: x, y and 1; and [N, J] float32, the logit there.
        Source: torchvision roi_heads.py, ``heatmaps_to_keypoints``.
    """
    points = torch.ones(*heatmaps.shape[:2], 3)
    scores = torch.zeros(heatmaps.shape[:2])
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)  # [n, 2]
    for row, (width, height) in enumerate(sides.ceil().int().tolist()):
        enlarged = F.interpolate(heatmaps[row][:, None], size=(height, width), mode="bicubic", align_corners=False)
        best, place = enlarged.flatten(1).max(1)  # [J]
        cell = torch.stack((place % width, place // width), -1) + 0.5  # [J, 2]
        points[row, :, :2] = cell * (sides[row] / torch.tensor([width, height])) + boxes[row, :2]
        scores[row] = best
    return points, scores
